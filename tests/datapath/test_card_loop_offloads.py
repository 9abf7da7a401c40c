"""Offloads through the loop: every checksum that arrives is checked byte by byte, apart from the code under test."""

import struct
from dataclasses import replace

import internet_checksum as reference
import pytest
from frames import SCTP, TCP, UDP, Packet
from loop_kit import TX_BUFFERS, LoopBench, LoopGuest, Received

from vfwire.datapath.rss import RSS_DEFAULT
from vfwire.datapath.state import Drop
from vfwire.layouts import ixgbe_descriptors as d
from vfwire.layouts.ixgbevf import VFTDH

V6 = {"source": bytes(15) + b"\1", "destination": bytes(15) + b"\2"}
TCP4 = d.CTXD_TUCMD_IPV4 | d.CTXD_TUCMD_L4T_TCP
CHECKSUMS = d.TXD_Q1_IXSM | d.TXD_Q1_TXSM
PACKETS = {
    "tcp": Packet(payload=bytes(range(201))),
    "udp": Packet(protocol=UDP, payload=b"odd"),
    "tcp6": Packet(payload=bytes(300), **V6),
    "udp6": Packet(protocol=UDP, payload=b"six", **V6),
    "sctp": Packet(protocol=SCTP, payload=bytes(range(99))),
    "sctp6": Packet(protocol=SCTP, payload=b"stream", **V6),
    "options": Packet(ip_options=b"\1\1\1\0", l4_options=bytes(12)),
}


def started(**options: object) -> tuple[LoopBench, LoopGuest, LoopGuest]:
    """Packets go from guest 1 to guest 0, as tests' frames are addressed."""
    bench = LoopBench(2)
    receiver, sender = bench.start(**options)
    return bench, sender, receiver


def l4_of(frame: bytes, packet: Packet) -> bytes:
    """The L4 part of a frame, without padding."""
    at = packet.l2_len + packet.l3_len
    end = at + len(packet.l4()) + len(packet.payload)
    return frame[at:end]


def checksums_are_right(frame: bytes) -> bool:
    """IPv4 header and TCP or UDP checksums, by RFC 1071."""
    l3 = frame[14:]
    if l3[0] >> 4 == 4:
        size, total = (l3[0] & 15) * 4, struct.unpack(">H", l3[2:4])[0]
        if reference.ones_sum(l3[:size]) != 0xFFFF:
            return False
        source, destination, protocol, l4 = l3[12:16], l3[16:20], l3[9], l3[size:total]
    else:
        source, destination, protocol = l3[8:24], l3[24:40], l3[6]
        l4 = l3[40 : 40 + struct.unpack(">H", l3[4:6])[0]]
    return reference.ones_sum(reference.pseudo(source, destination, protocol, len(l4)) + l4) == 0xFFFF


def without_checksums(packet: Packet, *, segmented: bool = False) -> bytes:
    """As a driver hands it over: the sum of the pseudo header in the field of L4 (segmented: without its length)."""
    data = bytearray(packet.frame())
    l4 = packet.l2_len + packet.l3_len
    if packet.protocol == SCTP:
        data[l4 + 8 : l4 + 12] = b"\xde\xad\xbe\xef"
    else:
        at = l4 + (16 if packet.protocol == TCP else 6)
        length = 0 if segmented else len(data) - l4
        pseudo = reference.pseudo(packet.source, packet.destination, packet.protocol, length)
        data[at : at + 2] = struct.pack(">H", reference.ones_sum(pseudo))
    if not packet.is_ipv6:
        data[packet.l2_len + 10 : packet.l2_len + 12] = b"\xbe\xef"
    return bytes(data)


def tucmd(packet: Packet) -> int:
    bits = 0 if packet.is_ipv6 else d.CTXD_TUCMD_IPV4
    kinds = {TCP: d.CTXD_TUCMD_L4T_TCP, UDP: d.CTXD_TUCMD_L4T_UDP, SCTP: d.CTXD_TUCMD_L4T_SCTP}
    return bits | kinds[packet.protocol]


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("pieces", [(), (40,), (14, 1, 20)])
def test_checksums_are_filled_in(name: str, pieces: tuple[int, ...]) -> None:
    packet = PACKETS[name]
    bench, sender, receiver = started()
    sender.context(l3=packet.l3_len, tucmd=tucmd(packet), index=1)
    sender.send(without_checksums(packet), pieces=pieces, extra=CHECKSUMS | 1 << d.TXD_Q1_IDX_SHIFT)
    bench.rounds()
    (got,) = receiver.receive()
    assert got.frame == packet.frame() and (packet.protocol == SCTP or checksums_are_right(got.frame))
    assert got.status & d.RXD_STAT_L4CS and not got.status & (d.RXD_ERR_TCPE | d.RXD_ERR_IPE)


@pytest.mark.parametrize("segmented", [False, True])
def test_a_driver_that_forgets_the_pseudo_header_sends_wrong_checksums(segmented: bool) -> None:
    """As on the chip, so that who writes a driver learns of it here; the receiver is told that they are wrong."""
    packet = PACKETS["tcp"]
    bench, sender, receiver = started()
    data = bytearray(without_checksums(packet, segmented=segmented))
    data[14 + 20 + 16 : 14 + 20 + 18] = bytes(2)
    sender.context(l3=20, tucmd=TCP4, mss=1000 if segmented else 0)
    sender.send(bytes(data), extra=CHECKSUMS | (d.TXD_DCMD_TSE if segmented else 0))
    bench.rounds()
    (got,) = receiver.receive()
    assert not checksums_are_right(got.frame)
    assert got.status & d.RXD_STAT_L4CS and got.status & d.RXD_ERR_TCPE


@pytest.mark.parametrize("name", PACKETS)
def test_checksums_are_checked_in_several_buffers_too(name: str) -> None:
    packet = replace(PACKETS[name], payload=bytes(range(250)) * 6)
    bench, sender, receiver = started(kib=1)
    wrong = bytearray(packet.frame())
    wrong[-1] ^= 1
    receiver.record.max_frame = 9000
    sender.send(packet.frame())
    sender.send(bytes(wrong), pieces=(700,))
    bench.rounds()
    good, bad = receiver.receive()
    assert len(good.pieces) == 2 and good.frame == packet.frame() and bad.frame == wrong
    assert good.status & d.RXD_STAT_L4CS and not good.status & d.RXD_ERR_TCPE
    assert bad.status & d.RXD_STAT_L4CS and bad.status & d.RXD_ERR_TCPE


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("wrong", [None, "ip", "l4"])
def test_checksums_are_checked_on_receive(name: str, wrong: str | None) -> None:
    packet = PACKETS[name]
    bench, sender, receiver = started()
    data = bytearray(packet.frame())
    if wrong == "ip" and packet.is_ipv6:
        wrong = "l4"
    if wrong:
        data[packet.l2_len + 8 if wrong == "ip" else len(data) - 1] ^= 0x55
    for _ in range(3):
        sender.send(bytes(data))
    bench.rounds()
    for got in receiver.receive():
        assert got.frame == data
        assert bool(got.status & d.RXD_STAT_IPCS) != packet.is_ipv6
        assert got.status & d.RXD_STAT_L4CS
        assert bool(got.status & d.RXD_ERR_IPE) == (wrong == "ip")
        assert bool(got.status & d.RXD_ERR_TCPE) == (wrong == "l4")


def test_udp_without_a_checksum_takes_the_fast_path_and_says_what_it_knows() -> None:
    bench, sender, receiver = started()
    packet = Packet(protocol=UDP, udp_checksum=False, payload=bytes(40))
    bad = bytearray(packet.frame())
    bad[24] ^= 1
    for data in (packet.frame(), packet.frame(), bytes(bad)):
        sender.send(data)
    bench.rounds()
    good, fast, wrong = receiver.receive()
    assert (good.status, good.info) == (fast.status, fast.info)
    assert good.packet_type == d.RXD_PKTTYPE_IPV4 | d.RXD_PKTTYPE_UDP
    assert good.status & d.RXD_STAT_IPCS and not good.status & (d.RXD_STAT_L4CS | d.RXD_ERR_IPE)
    assert wrong.status & d.RXD_ERR_IPE


# --- TCP segmentation ----------------------------------------------------------------------------------------


def segmented(
    packet: Packet, mss: int, *, pieces: tuple[int, ...] = (), vlan: int = 0, kib: int = 2
) -> tuple[list[Received], LoopBench]:
    bench, sender, receiver = started(kib=kib)
    receiver.record.max_frame = 9000
    tag = d.TXD_DCMD_VLE if vlan else 0
    sender.context(l3=packet.l3_len, l4=packet.l4_len, mss=mss, tucmd=tucmd(packet), vlan=vlan)
    data = without_checksums(packet, segmented=True)
    sender.send(data, pieces=pieces, extra=d.TXD_DCMD_TSE | CHECKSUMS | tag)
    bench.rounds()
    return receiver.receive(), bench


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize(
    ("size", "mss"), [(5000, 1460), (1460, 1460), (1461, 1460), (100, 8), (0, 500), (9001, 4000)]
)
def test_segments_carry_the_whole_payload_in_order(size: int, mss: int, ipv6: bool) -> None:
    payload = bytes((number * 7) & 0xFF for number in range(size))
    packet = Packet(payload=payload, flags=0x99, l4_options=bytes(12), **(V6 if ipv6 else {}))
    got, bench = segmented(packet, mss, pieces=(50, 70) if size > 200 else ())
    assert b"".join(l4_of(one.frame, replace(packet, payload=payload[:mss]))[32:] for one in got) == payload
    assert len(got) == max(1, -(-size // mss)) == bench.state.functions[1].tx_frames
    for number, one in enumerate(got):
        assert checksums_are_right(one.frame)
        at = packet.l2_len + packet.l3_len
        assert struct.unpack(">I", one.frame[at + 4 : at + 8])[0] == packet.sequence + number * mss
        last = number == len(got) - 1
        assert one.frame[at + 13] == 0x10 | (0x80 if number == 0 else 0) | (0x09 if last else 0)
        if not ipv6:
            assert struct.unpack(">H", one.frame[18:20])[0] == packet.identification + number
        assert one.status & d.RXD_STAT_L4CS and not one.status & d.RXD_ERR_TCPE


def test_segments_in_several_receive_buffers_and_with_a_tag() -> None:
    packet = Packet(payload=bytes(range(250)) * 40)
    got, _ = segmented(packet, 4000, vlan=0, kib=1)
    assert [one.pieces for one in got] == [(1024,) * 3 + (982,)] * 2 + [(1024, 1024, 6)]
    assert all(checksums_are_right(one.frame) for one in got)
    got, bench = segmented(packet, 1000, vlan=5)
    assert got == [] and bench.state.drops[1, Drop.NO_DESTINATION] == 10  # nobody is in VLAN 5


@pytest.mark.parametrize(
    "context",
    [
        {"mss": 0},
        {"mss": 1},
        {"mss": 7},
        {"mss": 0xFFFF},
        {"l2": 0},
        {"l2": 13},
        {"l2": 127},
        {"l3": 0},
        {"l3": 511},
        {"l3": 508},
        {"l3": 64},
        {"l4": 0},
        {"l4": 255},
        {"l4": 64},
        {"tucmd": 0},
    ],
)
def test_segmentation_that_makes_no_sense_is_dropped_and_counted(context: dict[str, int]) -> None:
    bench, sender, receiver = started()
    packet = Packet(payload=bytes(10))
    sender.context(**{"mss": 1000, "l3": 20, "tucmd": TCP4, **context})
    for pieces in ((), (20,)):
        sender.send(packet.frame(), pieces=pieces, extra=d.TXD_DCMD_TSE | CHECKSUMS)
    sender.context(**{"l3": 20, "tucmd": TCP4, **context})
    sender.send(packet.frame(), extra=CHECKSUMS)
    sender.send(packet.frame())
    bench.rounds()
    arrived = receiver.receive()
    assert arrived[-1].frame == packet.frame()
    assert sender.drops().get("bad descriptor", 0) == 4 - len(arrived) >= 2
    assert sender.record.fault == -1


@pytest.mark.parametrize("payload_length", [0, 1, 0x3FFFF])
def test_what_a_descriptor_says_of_the_payload_length_does_not_count(payload_length: int) -> None:
    packet = Packet(payload=bytes(2000))
    bench, sender, receiver = started()
    sender.context(l3=20, l4=20, mss=1000, tucmd=TCP4)
    lie = payload_length << d.TXD_Q1_PAYLEN_SHIFT
    sender.send(without_checksums(packet, segmented=True), extra=d.TXD_DCMD_TSE | CHECKSUMS | lie)
    sender.send(packet.frame()[:100], extra=lie)
    bench.rounds()
    assert [len(got.frame) for got in receiver.receive()] == [1054, 1054, 100]


def test_one_descriptor_that_asks_for_many_segments_does_not_keep_the_others_waiting() -> None:
    bench = LoopBench(3)
    two, one, three = bench.start(size=256)
    payload = Packet(payload=bytes(0xF000)).frame()
    payload = two.mac + one.mac + payload[12:]
    at = one.put(TX_BUFFERS, payload)
    for _ in range(40):
        one.context(l3=20, l4=20, mss=8, tucmd=TCP4)
        one.descriptor(at, len(payload) | d.TXD_DTYP_DATA | d.TXD_DCMD_DEXT | d.TXD_DCMD_EOP | d.TXD_DCMD_TSE)
    one.ring()
    three.send(two.mac + three.mac + bytes(60))
    bench.round()
    assert one.read(VFTDH) == 2 and one.record.tx_frames == 7680  # a context and one frame in this turn
    assert three.record.tx_frames == 1


# --- RSS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queues", [2, 4])
@pytest.mark.parametrize("ipv6", [False, True])
def test_rss_spreads_flows_and_keeps_each_in_one_queue(queues: int, ipv6: bool) -> None:
    bench, sender, receiver = started(queues=queues)
    receiver.record.rss, receiver.record.rx_queues = RSS_DEFAULT, queues
    packets = [Packet(ports=(1000 + number, 80), **(V6 if ipv6 else {})) for number in range(40)]
    for _ in range(2):
        for packet in packets:
            sender.send(packet.frame())
            bench.rounds()
    by_queue = [receiver.receive(queue) for queue in range(queues)]
    assert sum(map(len, by_queue)) == 80 and all(len(found) >= 8 for found in by_queue)
    kind = d.RXD_RSSTYPE_IPV6_TCP if ipv6 else d.RXD_RSSTYPE_IPV4_TCP
    for queue, found in enumerate(by_queue):
        for got in found:
            assert got.rss_type == kind and (got.hash & 127) % 4 % queues == queue
        flows = {got.frame for got in found}
        assert all(flows.isdisjoint(other.frame for other in by_queue[number]) for number in range(queue))


def test_rss_leaves_what_it_cannot_hash_in_the_first_queue() -> None:
    bench, sender, receiver = started(queues=4)
    receiver.record.rss = RSS_DEFAULT
    sender.send(receiver.mac + sender.mac + b"\x88\xb5" + bytes(46))
    bench.rounds()
    (got,) = receiver.receive(0)
    assert (got.rss_type, got.hash) == (0, 0)
