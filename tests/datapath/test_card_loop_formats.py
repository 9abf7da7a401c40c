"""Receive descriptors in the forms that VFSRRCTL names, and the head written back instead of DD (82599 datasheet 7.1.5,
7.1.10, 7.2.3.5.2)."""

import struct
from dataclasses import dataclass, replace

import pytest
from frames import UDP, Packet
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import MEMORY, PAGE, RX_BUFFERS, RX_RINGS, LoopBench, LoopGuest, tagged

from vfwire.datapath.state import Drop
from vfwire.layouts import ixgbe_descriptors as d
from vfwire.layouts import ixgbevf as regs

HEADERS = RX_BUFFERS + 0x80000  # of the header buffers, 1 KiB apart
SPLIT, ALWAYS = regs.SRRCTL_DESCTYPE_HDR_SPLIT, regs.SRRCTL_DESCTYPE_HDR_SPLIT_ALWAYS
ALL_HEADERS = (
    regs.PSRTYPE_TCPHDR
    | regs.PSRTYPE_UDPHDR
    | regs.PSRTYPE_IPV4HDR
    | regs.PSRTYPE_IPV6HDR
    | regs.PSRTYPE_L2HDR
)
V6 = {"source": bytes(15) + b"\1", "destination": bytes(15) + b"\2"}


@dataclass(frozen=True)
class Part:
    """What one descriptor tells of: the bytes in its header buffer and in its packet buffer."""

    header: bytes
    packet: bytes
    sph: bool
    hbo: bool
    header_length: int
    end: bool


def started(
    form: int, *, kib: int = 2, header_bytes: int = 256, psrtype: int = 0
) -> tuple[LoopBench, LoopGuest, LoopGuest]:
    bench = LoopBench(2)
    receiver, sender = bench.start()
    receiver.disable()
    bench.round()
    receiver.start(kib=kib)
    receiver.record.psrtype, receiver.record.max_frame = psrtype, 9000
    receiver.write(regs.VFSRRCTL, kib | form | header_bytes // 64 << regs.SRRCTL_BSIZEHDR_SHIFT)
    for place in range(64):
        receiver.put(RX_RINGS + place * 16 + 8, struct.pack("<Q", receiver.iova + HEADERS + place * 1024))
    bench.round()
    return bench, sender, receiver


def parts(receiver: LoopGuest, count: int) -> list[Part]:
    found = []
    for place in range(count):
        at = RX_RINGS + place * 16
        info, _, status, length, _ = struct.unpack("<IIIHH", receiver.memory[at : at + 16].tobytes())
        assert status & d.RXD_STAT_DD
        header_length = (info & d.RXD_HDRLEN_MASK) >> d.RXD_Q0_HDRLEN_SHIFT
        start, packet = HEADERS + place * 1024, RX_BUFFERS + place * 2048
        found.append(
            Part(
                receiver.memory[start : start + header_length].tobytes(),
                receiver.memory[packet : packet + length].tobytes(),
                bool(info & d.RXD_SPH),
                bool(status & d.RXD_ERR_HBO),
                header_length,
                bool(status & d.RXD_STAT_EOP),
            )
        )
    assert not receiver.memory[RX_RINGS + count * 16 + 8] & 1  # the next one is still the driver's
    return found


TCP4, UDP6 = Packet(payload=bytes(range(200))), Packet(protocol=UDP, payload=bytes(range(90)), **V6)


@pytest.mark.parametrize("form", [SPLIT, ALWAYS])
@pytest.mark.parametrize(
    ("packet", "psrtype", "header"),
    [
        (TCP4, ALL_HEADERS, 54),
        (TCP4, regs.PSRTYPE_IPV4HDR, 34),
        (TCP4, regs.PSRTYPE_L2HDR, 14),
        (TCP4, regs.PSRTYPE_TCPHDR, 54),
        (UDP6, ALL_HEADERS, 62),
        (UDP6, regs.PSRTYPE_IPV6HDR | regs.PSRTYPE_TCPHDR, 54),
        (replace(TCP4, fragment=0x2000), ALL_HEADERS, 34),
        (replace(TCP4, payload=b""), ALL_HEADERS, 54),
    ],
)
def test_a_header_is_split_after_the_last_one_named(
    form: int, packet: Packet, psrtype: int, header: int
) -> None:
    bench, sender, receiver = started(form, header_bytes=64, psrtype=psrtype)
    frame = packet.frame() + bytes(max(0, 70 - len(packet.frame())))
    sender.send(frame)
    bench.rounds()
    (part,) = parts(receiver, 1)
    assert part == Part(frame[:header], frame[header:], True, False, header, True)


def test_a_frame_without_payload_leaves_its_packet_buffer_empty() -> None:
    bench, sender, receiver = started(SPLIT, psrtype=ALL_HEADERS)
    frame = replace(TCP4, payload=b"").frame()
    sender.send(frame)
    bench.rounds()
    assert parts(receiver, 1) == [Part(frame, b"", True, False, len(frame), True)]


def test_the_rest_goes_on_in_the_next_packet_buffers() -> None:
    bench, sender, receiver = started(SPLIT, kib=1, psrtype=ALL_HEADERS)
    frame = replace(TCP4, payload=bytes(range(250)) * 9).frame()
    sender.send(frame)
    bench.rounds()
    first, second, third = parts(receiver, 3)
    assert (first.header, first.sph, first.end) == (frame[:54], True, False)
    assert first.packet + second.packet + third.packet == frame[54:]
    assert (len(first.packet), len(second.packet), third.end) == (1024, 1024, True)


@pytest.mark.parametrize(("form", "front"), [(SPLIT, 0), (ALWAYS, 64)])
def test_a_header_larger_than_its_buffer_overflows(form: int, front: int) -> None:
    bench, sender, receiver = started(form, header_bytes=64, psrtype=ALL_HEADERS)
    frame = replace(TCP4, l4_options=b"\1" * 40).frame()
    sender.send(frame)
    bench.rounds()
    (part,) = parts(receiver, 1)
    assert (part.sph, part.hbo, part.header_length, part.packet) == (True, True, 94, frame[front:])
    assert part.header[:front] == frame[:front]


@pytest.mark.parametrize(("form", "front"), [(SPLIT, 0), (ALWAYS, 128)])
def test_what_has_no_such_header_is_not_split(form: int, front: int) -> None:
    bench, sender, receiver = started(form, header_bytes=128, psrtype=regs.PSRTYPE_UDPHDR)
    frame = TCP4.frame()
    sender.send(frame)
    bench.rounds()
    (part,) = parts(receiver, 1)
    assert (part.sph, part.hbo, part.header_length) == (False, False, front)
    assert part.header + part.packet == frame


def test_a_short_frame_fits_the_header_buffer_alone() -> None:
    bench, sender, receiver = started(ALWAYS, header_bytes=256, psrtype=0)
    frame = TCP4.frame()[:200]
    sender.send(frame)
    bench.rounds()
    assert parts(receiver, 1) == [Part(frame, b"", False, False, 200, True)]


@given(
    st.sampled_from([0, *range(1 << 25, 8 << 25, 1 << 25)]),
    st.integers(0, 63),
    st.integers(0, 0xFFFFFFFF),
    st.integers(17, 3000),
)
def test_any_form_keeps_within_the_guests_memory(form: int, units: int, psrtype: int, size: int) -> None:
    """Header buffers of any size, at addresses that may lie outside: memory around the guest's is guarded."""
    bench, sender, receiver = started(form, kib=1, header_bytes=units * 64, psrtype=psrtype)
    last = receiver.iova + MEMORY
    for place, address in enumerate((last - 64, last - 1, last, 0, (1 << 64) - 2)):
        receiver.put(RX_RINGS + (place + 1) * 16 + 8, struct.pack("<Q", address))
    frame = (TCP4.frame() + bytes(3000))[:size]
    for _ in range(6):
        sender.send(frame)
    bench.rounds()
    assert receiver.record.fault in (-1, int(Drop.BAD_DMA))
    assert sender.record.tx_frames == 6


def test_a_header_buffer_outside_stops_the_function() -> None:
    bench, sender, receiver = started(SPLIT, psrtype=ALL_HEADERS)
    receiver.put(RX_RINGS + 8, struct.pack("<Q", receiver.iova + MEMORY - 2))
    sender.send(TCP4.frame())
    bench.rounds()
    assert receiver.record.fault == Drop.BAD_DMA and receiver.record.dma == 0


# --- Legacy receive descriptors -----------------------------------------------------------------------------------


def legacy(receiver: LoopGuest, place: int) -> tuple[int, int, int, int, int]:
    """(buffer address, length, status, errors, VLAN tag) of a descriptor (datasheet 7.1.5)."""
    at = RX_RINGS + place * 16
    address, length, _, status, errors, vlan = struct.unpack(
        "<QHHBBH", receiver.memory[at : at + 16].tobytes()
    )
    return address, length, status, errors, vlan


def test_legacy_descriptors_tell_length_status_errors_and_tag() -> None:
    bench, sender, receiver = started(regs.SRRCTL_DESCTYPE_LEGACY)
    offered = [legacy(receiver, place)[0] for place in range(3)]
    bad = bytearray(TCP4.frame())
    bad[-1] ^= 1
    sender.send(TCP4.frame())
    sender.send(bytes(bad))
    receiver.record.vlans = 0
    bench.state.vlan_pools[0, 7] = 3
    sender.send(tagged(receiver.mac, sender.mac, 7))
    bench.rounds()
    found = [legacy(receiver, place) for place in range(3)]
    assert [one[0] for one in found] == offered  # the address stays
    done, ip_and_l4 = 0x03, 0x60
    assert [one[1:] for one in found] == [
        (len(bad), done | ip_and_l4, 0, 0),
        (len(bad), done | ip_and_l4, 0x40, 0),
        (60, done | 0x08, 0, 7),
    ]
    start = RX_BUFFERS
    assert receiver.memory[start : start + len(bad)].tobytes() == TCP4.frame()


def test_a_queue_that_changes_its_form_is_taken_at_its_word() -> None:
    """The fast path is left and found again."""
    bench, sender, receiver = started(regs.SRRCTL_DESCTYPE_ADV_ONEBUF)
    plain = receiver.mac + sender.mac + b"\x88\xb5" + bytes(46)
    for _ in range(3):
        sender.send(plain)
    bench.rounds()
    assert len(receiver.receive()) == 3
    receiver.write(regs.VFSRRCTL, 2 | regs.SRRCTL_DESCTYPE_LEGACY)
    for place in range(3, 6):
        at = RX_RINGS + place * 16
        receiver.put(at + 8, bytes(8))
        sender.send(plain)
    bench.rounds()
    assert [legacy(receiver, place)[1:3] for place in range(3, 6)] == [(60, 3)] * 3


# --- Head write-back ----------------------------------------------------------------------------------------------

TX_HEAD = RX_RINGS + 8 * PAGE


def with_write_back(address: int) -> tuple[LoopBench, LoopGuest, LoopGuest]:
    bench = LoopBench(2)
    receiver, sender = bench.guests
    sender.write(regs.VFTDWBAL, (address & 0xFFFFFFFC) | regs.TDWBAL_HEAD_WB_ENABLE)
    sender.write(regs.VFTDWBAH, address >> 32)
    bench.start()
    return bench, sender, receiver


def test_the_head_is_written_back_where_status_was_asked_for() -> None:
    bench, sender, receiver = with_write_back(0x2000_0000 + TX_HEAD)
    assert sender.iova == 0x2000_0000
    plain = receiver.mac + sender.mac + b"\x88\xb5" + bytes(46)
    for _ in range(5):
        sender.send(plain)
    bench.rounds()
    assert sender.memory[TX_HEAD] == 0  # nobody asked
    sender.send(plain, extra=d.TXD_DCMD_RS)
    bench.rounds()
    assert sender.memory[TX_HEAD : TX_HEAD + 4].tobytes() == struct.pack("<I", 6)
    assert len(receiver.receive()) == 6
    descriptor = sender.memory[5 * 16 : 6 * 16].tobytes()
    assert not struct.unpack("<QQ", descriptor)[1] & d.TXD_Q1_DD  # the head stands for it


def test_a_head_that_cannot_be_written_is_counted_and_traffic_goes_on() -> None:
    bench, sender, receiver = with_write_back(0x7000_0000)
    for _ in range(3):
        sender.send(receiver.mac + sender.mac + b"\x88\xb5" + bytes(46), extra=d.TXD_DCMD_RS)
    bench.rounds()
    assert len(receiver.receive()) == 3 and sender.record.bad_dma == 3 and sender.record.fault == -1
