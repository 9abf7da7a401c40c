"""An ENA's offloads through the loop: what a receiver is told of checksums, and what a sender has filled in and cut up.

Every checksum that arrives is checked byte by byte, apart from the code under test.
"""

from dataclasses import replace

import pytest
from ena_kit import EnaGuest, Got, ena_bench
from frames import ICMP, SCTP, TCP, UDP, Packet
from loop_kit import LoopBench
from segment_kit import pseudo_sum, spoiled

from vfwire.layouts.ixgbe_descriptors import RXD_ERR_IPE, RXD_ERR_TCPE, RXD_STAT_IPCS, RXD_STAT_L4CS

V6 = {"source": bytes(15) + b"\1", "destination": bytes(15) + b"\2"}
L3_IPV4, L3_IPV6, L4_TCP, L4_UDP = 8, 11, 12, 13  # ena_eth_io_defs.h: ENA_ETH_IO_L3_PROTO_*, L4_PROTO_*
TSO, L3_SUM, L4_SUM, PARTIAL = 1 << 7, 1 << 13, 1 << 14, 1 << 17  # bits of meta_ctrl
PACKETS = {
    "tcp": Packet(payload=bytes(range(201))),
    "udp": Packet(protocol=UDP, payload=b"odd"),
    "tcp6": Packet(payload=bytes(300), **V6),
    "udp6": Packet(protocol=UDP, payload=b"six", **V6),
    "options": Packet(ip_options=b"\1\1\1\0", l4_options=bytes(12)),
}
QUIET = {  # IPv4 without a checksum beyond its header: what the fast path tells of
    "udp": Packet(protocol=UDP, udp_checksum=False, payload=bytes(40)),
    "icmp": Packet(protocol=ICMP, payload=bytes(40)),
}


def started(**options: object) -> tuple[LoopBench, EnaGuest, EnaGuest]:
    """Packets go from guest 1 to guest 0, as tests' frames are addressed."""
    bench, (receiver, sender) = ena_bench(2, **options)
    return bench, sender, receiver


def protocols(packet: Packet) -> tuple[int, int]:
    return L3_IPV6 if packet.is_ipv6 else L3_IPV4, {TCP: L4_TCP, UDP: L4_UDP}.get(packet.protocol, 0)


def told(got: Got) -> tuple[int, int, bool, bool, bool]:
    """(L3 protocol, L4 protocol, L3 bad, L4 checked, L4 bad)"""
    return got.l3, got.l4, got.l3_bad, got.l4_checked, got.l4_bad


def spoil(packet: Packet, wrong: str) -> bytes:
    """The packet with another time to live, or another last byte of its payload."""
    data = bytearray(packet.frame())
    data[packet.l2_len + 8 if wrong == "ip" else -1] ^= 0x55
    return bytes(data)


# --- Receive --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [2048, 128])
@pytest.mark.parametrize("name", PACKETS)
def test_a_right_checksum_is_told_to_be_right(name: str, buffer: int) -> None:
    bench, sender, receiver = started(buffer=buffer)
    for _ in range(3):
        sender.send(PACKETS[name].frame())
    bench.rounds()
    wanted = (*protocols(PACKETS[name]), False, True, False)
    assert [told(got) for got in receiver.receive()] == [wanted] * 3


@pytest.mark.parametrize("pieces", [(), (60,), (14, 1, 20)])
@pytest.mark.parametrize("name", PACKETS)
def test_a_wrong_l4_checksum_is_told(name: str, pieces: tuple[int, ...]) -> None:
    packet = PACKETS[name]
    bench, sender, receiver = started()
    for _ in range(3):
        sender.send(spoil(packet, "l4"), pieces=pieces if len(packet.frame()) > 61 else ())
    sender.send(packet.frame())
    bench.rounds()
    bad, good = ((*protocols(packet), False, True, wrong) for wrong in (True, False))
    assert [told(got) for got in receiver.receive()] == [bad, bad, bad, good]


@pytest.mark.parametrize("name", ["tcp", "udp", "options"])
def test_a_wrong_ipv4_header_checksum_is_told_and_spoils_no_other(name: str) -> None:
    packet = PACKETS[name]
    bench, sender, receiver = started()
    for _ in range(2):
        sender.send(spoil(packet, "ip"))
    sender.send(packet.frame())
    bench.rounds()
    bad, good = ((*protocols(packet), wrong, True, False) for wrong in (True, False))
    assert [told(got) for got in receiver.receive()] == [bad, bad, good]


@pytest.mark.parametrize("llq", [0, 128])
@pytest.mark.parametrize("name", QUIET)
def test_the_fast_path_tells_of_a_wrong_header_what_the_general_one_does(name: str, llq: int) -> None:
    """The first of a burst goes by the general path, those behind it by the fast one."""
    packet = QUIET[name]
    bench, sender, receiver = started(llq=llq)
    right, wrong = packet.frame(), spoil(packet, "ip")
    for data in (wrong, wrong, right, wrong, right):
        sender.send(data, ring=False)
    sender.ring()
    bench.rounds()
    bad, good = ((*protocols(packet), broken, False, False) for broken in (True, False))
    assert [told(got) for got in receiver.receive()] == [bad, bad, good, bad, good]


def test_udp_needs_a_checksum_over_ipv6_alone() -> None:
    bench, sender, receiver = started()
    for family in ({}, V6):
        sender.send(Packet(protocol=UDP, udp_checksum=False, **family).frame())
    bench.rounds()
    assert [told(got) for got in receiver.receive()] == [
        (L3_IPV4, L4_UDP, False, False, False),
        (L3_IPV6, L4_UDP, False, True, True),
    ]


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x3FFF])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_fragment_is_told_to_be_one_and_nothing_of_its_l4(protocol: int, fragment: int) -> None:
    """On either path: whole datagrams of the same flow come before and behind it."""
    whole = Packet(protocol=protocol, udp_checksum=False)
    part = replace(whole, fragment=fragment)
    bench, sender, receiver = started()
    for data in (part.frame(), whole.frame(), part.frame(), spoil(part, "ip"), whole.frame()):
        sender.send(data, ring=False)
    sender.ring()
    bench.rounds()
    found = receiver.receive()
    assert [bool(got.status >> 15 & 1) for got in found] == [True, False, True, True, False]
    assert [got.l3_bad for got in found] == [False, False, False, True, False]
    for got in (found[0], found[2], found[3]):
        assert (got.l3, got.l4, got.l4_checked, got.l4_bad) == (L3_IPV4, 0, False, False)


def test_what_is_no_ip_packet_is_told_nothing_of() -> None:
    bench, sender, receiver = started()
    arp = receiver.mac + sender.mac + b"\x08\x06" + bytes(46)
    for _ in range(3):
        sender.send(arp)
    sender.send(Packet(protocol=SCTP).frame())  # its sum is none that an ENA knows
    bench.rounds()
    found = [told(got) for got in receiver.receive()]
    assert found[:3] == [(0, 0, False, False, False)] * 3
    assert found[3] == (L3_IPV4, 0, False, False, False)


# --- Transmit -------------------------------------------------------------------------------------------------


def l4_bytes(packet: Packet) -> int:
    return packet.l4_len + len(packet.payload)


def l4_of(frame: bytes, packet: Packet) -> bytes:
    at = packet.l2_len + packet.l3_len
    return frame[at : at + l4_bytes(packet)]


def to_be_filled_in(packet: Packet, *, segmented: bool = False) -> bytes:
    """As a driver hands it over: the sum of the pseudo header in the field of L4 (segmented: without its length)."""
    return spoiled(packet, packet.frame(), seed=pseudo_sum(packet, 0 if segmented else l4_bytes(packet)))


def asked(packet: Packet, seeded: bool) -> int:
    """meta_ctrl of a packet whose sums are to be filled in. Linux's driver has seeded them (ena_netdev.c), others
    leave the pseudo header to the device.
    """
    l3, l4 = protocols(packet)
    bits = l3 | l4 << 8 | L4_SUM
    return bits | (0 if packet.is_ipv6 else L3_SUM) | (PARTIAL if seeded else 0)


@pytest.mark.parametrize("llq", [0, 128])
@pytest.mark.parametrize("pieces", [(), (14, 1, 20)])
@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize("name", PACKETS)
def test_checksums_are_filled_in(name: str, seeded: bool, pieces: tuple[int, ...], llq: int) -> None:
    packet = PACKETS[name]
    bench, sender, receiver = started(llq=llq)
    meta = sender.meta(l3=packet.l3_len, l4=packet.l4_len)
    data = to_be_filled_in(packet) if seeded else spoiled(packet, packet.frame())
    sender.send(data, pieces=() if llq else pieces, meta=meta, bits=asked(packet, seeded))
    bench.rounds()
    (got,) = receiver.receive()
    assert got.frame == packet.frame()
    assert told(got) == (*protocols(packet), False, True, False)


@pytest.mark.parametrize("receiver_is_ena", [True, False])
@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("name", ["tcp", "udp", "options"])
def test_an_ipv4_header_that_the_sender_made_itself_is_looked_at(
    name: str, wrong: bool, receiver_is_ena: bool
) -> None:
    """As Linux's driver asks for a frame that is not segmented: the sum of L4 alone (ena_netdev.c, ena_tx_csum)."""
    packet = PACKETS[name]
    bench, (receiver, sender) = ena_bench(2, ena=(0, 1) if receiver_is_ena else (1,))
    data = bytearray(
        spoiled(packet, packet.frame(), want_ip=False, seed=pseudo_sum(packet, l4_bytes(packet)))
    )
    data[packet.l2_len + 8] ^= 0x55 * wrong
    meta = sender.meta(l3=packet.l3_len, l4=packet.l4_len)
    sender.send(bytes(data), meta=meta, bits=asked(packet, True) & ~L3_SUM)
    bench.rounds()
    (got,) = receiver.receive()
    assert l4_of(got.frame, packet) == l4_of(packet.frame(), packet)
    if receiver_is_ena:
        assert told(got) == (*protocols(packet), wrong, True, False)
    else:
        assert got.status & (RXD_STAT_IPCS | RXD_STAT_L4CS) == RXD_STAT_IPCS | RXD_STAT_L4CS
        assert (bool(got.status & RXD_ERR_IPE), bool(got.status & RXD_ERR_TCPE)) == (wrong, False)


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("name", ["tcp", "tcp6"])
def test_a_driver_that_forgets_the_pseudo_header_sends_wrong_checksums(name: str, segmented: bool) -> None:
    """So that who writes a driver learns of it here: the receiver is told that they are wrong."""
    packet = PACKETS[name]
    bench, sender, receiver = started()
    data = spoiled(packet, packet.frame(), seed=bytes(2))
    meta = sender.meta(l3=packet.l3_len, l4=packet.l4_len, mss=1000)
    sender.send(data, meta=meta, bits=asked(packet, True) | (TSO if segmented else 0))
    bench.rounds()
    (got,) = receiver.receive()
    assert told(got) == (*protocols(packet), False, True, True)


@pytest.mark.parametrize("llq", [0, 128])
@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize("family", [{}, V6])
@pytest.mark.parametrize(("size", "mss"), [(5000, 1400), (1400, 1400), (1401, 1400), (90, 8)])
def test_segments_are_packets_of_their_own(
    size: int, mss: int, family: dict[str, bytes], seeded: bool, llq: int
) -> None:
    """Each is what a sender would have made of that part of the payload; numbers count on."""
    payload = bytes(number * 7 & 0xFF for number in range(size))
    packet = Packet(payload=payload, flags=0x10, l4_options=bytes(12), **family)
    bench, sender, receiver = started(llq=llq)
    meta = sender.meta(l3=packet.l3_len, l4=packet.l4_len, mss=mss)
    data = to_be_filled_in(packet, segmented=True) if seeded else spoiled(packet, packet.frame())
    sender.send(data, meta=meta, bits=asked(packet, seeded) | TSO)
    bench.rounds()
    wanted = [
        replace(
            packet,
            payload=payload[at : at + mss],
            sequence=packet.sequence + at,
            identification=packet.identification + at // mss,
        ).frame()
        for at in range(0, size, mss)
    ]
    found = receiver.receive()
    assert [got.frame for got in found] == wanted
    assert {told(got) for got in found} == {(*protocols(packet), False, True, False)}
