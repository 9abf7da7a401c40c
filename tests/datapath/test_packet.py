import struct

import pytest
from frames import ETHERNET, SCTP, TCP, UDP, Packet
from guarded_memory import Guarded
from hypothesis import example, given
from hypothesis import strategies as st
from packet_strategies import PACKETS

from vfwire.datapath import packet as subject
from vfwire.memory.compiled import compiled

MEMORY = Guarded()
V6 = {"source": bytes(range(16)), "destination": bytes(range(16, 32))}


@compiled
def parse_at(address, length):  # type: ignore[no-untyped-def]
    return subject.parse(address, length)


@compiled
def parse_full_at(address, length):  # type: ignore[no-untyped-def]
    return subject.parse_full(address, length)


@compiled
def parse_prefix_at(address, available, length):  # type: ignore[no-untyped-def]
    return subject.parse_prefix(address, available, length)


@compiled
def packet_type_of(kind):  # type: ignore[no-untyped-def]
    return subject.packet_type(kind)


def parse(frame: bytes) -> tuple[int, ...]:
    short = parse_at(MEMORY.put(frame), len(frame))
    full = parse_full_at(MEMORY.put(frame), len(frame))
    assert full[:5] == short
    return tuple(full)


L4_TYPES = {TCP: 0x10, UDP: 0x20, SCTP: 0x40}


@given(PACKETS, st.integers(0, 30))
def test_parse_finds_what_was_built(packet: Packet, padding: int) -> None:
    frame = packet.frame()
    kind, l2, l3, l4, protocol, rest = parse(frame + bytes(padding))
    assert (l2, l3, l4, protocol) == (packet.l2_len, packet.l3_len, packet.l4_len, packet.protocol)
    assert rest == len(frame) - l2 - l3
    # Packet types as DPDK's ixgbe driver lists them (ixgbe_rxtx.c, IXGBE_PACKET_TYPE_*), shifted to bit 4.
    if packet.is_ipv6:
        wanted = 0x0C if packet.extensions else 0x04
    else:
        wanted = 0x03 if packet.ip_options else 0x01
    assert packet_type_of(kind) == (wanted | L4_TYPES.get(packet.protocol, 0)) << 4
    assert bool(kind & subject.KIND_VLAN) == (packet.vlan is not None)
    assert not kind & (subject.KIND_FRAGMENT | subject.KIND_CUT)


@given(PACKETS, st.data())
def test_a_cut_frame_has_no_l4(packet: Packet, data: st.DataObject) -> None:
    frame = packet.frame()
    kind, l2, l3, l4, _, rest = parse(frame[: data.draw(st.integers(14, len(frame) - 1))])
    assert (l4, rest) == (0, 0)
    assert l2 + l3 <= len(frame)
    assert not packet_type_of(kind) >> 4 & 0x70


@given(PACKETS, st.data())
def test_the_front_of_a_frame_is_enough(packet: Packet, data: st.DataObject) -> None:
    """All is found once the headers are there; with less, what is there is told, and nothing more is read."""
    frame = packet.frame()
    headers = packet.l2_len + packet.l3_len + packet.l4_len
    there = data.draw(st.integers(14, len(frame)))
    front = tuple(parse_prefix_at(MEMORY.put(frame[:there]), there, len(frame)))
    if there >= headers:
        assert front == parse(frame)
    else:
        assert front[3] == 0
        assert front[1] + front[2] <= max(there, 14)


@given(st.binary(min_size=14, max_size=120))
@example(ETHERNET + bytes.fromhex("8100"))
@example(ETHERNET + bytes.fromhex("0800"))
@example(ETHERNET + bytes.fromhex("86dd"))
def test_any_bytes_stay_within_the_frame(frame: bytes) -> None:
    _, l2, l3, l4, _, rest = parse(frame)
    assert l2 + l3 + max(l4, rest) <= max(len(frame), 14)
    assert l4 <= rest


@given(st.sampled_from(["0800", "86dd"]), st.booleans(), st.binary(max_size=150))
def test_any_ip_bytes_stay_within_the_frame(ethertype: str, ipv6: bool, rest: bytes) -> None:
    frame = ETHERNET + bytes.fromhex(ethertype) + (b"\x60" if ipv6 else b"\x46") + rest
    _, l2, l3, l4, _, l4_bytes = parse(frame)
    assert l2 + l3 + max(l4, l4_bytes) <= len(frame)


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x3FFF])
def test_ipv4_fragments_have_no_l4(fragment: int) -> None:
    frame = Packet(fragment=fragment).frame()
    kind, _, l3, l4, protocol, rest = parse(frame)
    assert kind & subject.KIND_FRAGMENT
    assert (l3, l4, protocol, rest) == (20, 0, TCP, 0)


def test_dont_fragment_is_no_fragment() -> None:
    assert parse(Packet(fragment=0x4000).frame())[3] == 20


def test_ipv6_fragments_have_no_l4() -> None:
    frame = Packet(**V6, extensions=((0, b"\x00" + bytes(6)), (44, bytes(7)))).frame()
    kind, _, l3, l4, protocol, rest = parse(frame)
    assert kind & subject.KIND_FRAGMENT
    assert packet_type_of(kind) == 0xC0
    assert (l3, l4, protocol, rest) == (48, 0, 44, 0)


@pytest.mark.parametrize(("segments_left", "l4_len"), [(0, 20), (1, 0)])
def test_a_routing_header_to_follow_hides_l4(segments_left: int, l4_len: int) -> None:
    """Its last destination, not the header's, would be in the pseudo header (RFC 8200 8.1)."""
    routing = (43, bytes([0, 4, segments_left]) + bytes(4))
    assert parse(Packet(**V6, extensions=(routing,)).frame())[3] == l4_len


def test_too_many_extension_headers_end_the_walk() -> None:
    hop = (60, bytes(7))
    assert parse(Packet(**V6, extensions=(hop,) * 7).frame())[3] == 20
    assert parse(Packet(**V6, extensions=(hop,) * 9).frame())[3:] == (0, 60, 0)


@pytest.mark.parametrize("first", [0x44, 0x4F, 0x55, 0x65, 0x05])
def test_an_ipv4_header_that_cannot_be(first: int) -> None:
    frame = bytearray(Packet(payload=b"").frame())
    frame[14] = first
    kind, l2, l3, l4, _, _ = parse(bytes(frame[: 14 + 40]))
    assert (kind, l2, l3, l4) == (0, 14, 0, 0)


@pytest.mark.parametrize("total", [0, 19, 48, 0xFFFF])
def test_an_ipv4_length_that_cannot_be(total: int) -> None:
    frame = bytearray(Packet().frame())
    frame[16:18] = struct.pack(">H", total)
    kind, _, _, l4, _, rest = parse(bytes(frame))
    assert kind & subject.KIND_CUT
    assert (l4, rest) == (0, 0)


@pytest.mark.parametrize("offset", [0x00, 0x40, 0xF0])
def test_a_tcp_header_that_cannot_be(offset: int) -> None:
    frame = bytearray(Packet().frame())
    frame[14 + 20 + 12] = offset
    assert parse(bytes(frame))[3] == 0


def test_frames_that_are_not_ip() -> None:
    arp = ETHERNET + bytes.fromhex("0806") + bytes(46)
    assert parse(arp) == (0, 14, 0, 0, 0, 0)
    twice = ETHERNET + bytes.fromhex("8100000181000002 0800".replace(" ", "")) + bytes(46)
    assert parse(twice) == (subject.KIND_VLAN, 18, 0, 0, 0, 0)
