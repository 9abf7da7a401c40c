"""Checksums of received frames: right ones, wrong ones, those that are none, and frames that lie in pieces."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from frames import ETHERNET, SCTP, TCP, UDP, Packet, crc32c
from guarded_memory import Guarded
from hypothesis import given
from hypothesis import strategies as st
from packet_strategies import PACKETS

from vfwire.datapath import checksum_status as subject
from vfwire.datapath import crc32c as crc
from vfwire.datapath.packet import parse_prefix
from vfwire.memory.compiled import compiled

FRONT, REST = Guarded(), Guarded()
V6 = {"source": bytes(range(16)), "destination": bytes(range(16, 32))}
IP_GOOD, IP_BAD, L4_GOOD, L4_BAD = 1, 2, 4, 8
ANY = IP_GOOD | IP_BAD | L4_GOOD | L4_BAD


@compiled
def status_at(address, here, length, addresses, lengths):  # type: ignore[no-untyped-def]
    kind, l2, l3, _, protocol, l4_bytes = parse_prefix(address, here, length)
    return subject.checksum_status(
        address, here, kind, l2, l3, protocol, l4_bytes, addresses, lengths, len(addresses), 0
    )


@compiled
def crc_of(address, count):  # type: ignore[no-untyped-def]
    return crc.crc32c(crc.CRC32C_START, address, count) ^ crc.CRC32C_START


def status(frame: bytes, here: int | None = None, pieces: Sequence[int] = ()) -> int:
    """The flags of a frame whose first `here` bytes are private, the rest cut at `pieces`."""
    here = len(frame) if here is None else here
    base = REST.put(frame[here:])
    cuts = sorted({0, *(cut % (len(frame) - here + 1) for cut in pieces), len(frame) - here})
    lengths = np.diff(np.array(cuts, np.int64)) if len(cuts) > 1 else np.zeros(0, np.int64)
    addresses = np.array(cuts[: len(lengths)], np.int64) + base
    return int(status_at(FRONT.put(frame[:here]), here, len(frame), addresses, lengths))


def test_crc32c_is_the_published_one() -> None:
    """Check value of CRC-32C (RFC 3720 B.4 has more): the nine digits."""
    assert crc_of(FRONT.put(b"123456789"), 9) == crc32c(b"123456789") == 0xE3069283


@given(PACKETS, st.integers(0, 30))
def test_good_checksums_are_good(packet: Packet, padding: int) -> None:
    wanted = 0 if packet.is_ipv6 else IP_GOOD
    if packet.protocol in (TCP, UDP, SCTP):
        wanted |= L4_GOOD
    assert status(packet.frame() + bytes(padding)) == wanted


@given(PACKETS, st.data())
def test_a_flipped_bit_is_seen(packet: Packet, data: st.DataObject) -> None:
    """In the addresses it spoils both sums (SCTP's has no pseudo header), in L4 that one. What says what the frame is
    stays as it is."""
    frame = bytearray(packet.frame())
    start = packet.l2_len + packet.l3_len
    covered = [*range(start, len(frame))]
    if packet.protocol == TCP:
        covered.remove(start + 12)
    elif packet.protocol == UDP:
        covered = [at for at in covered if at - start not in (4, 5, 6, 7)]
    elif packet.protocol != SCTP:
        covered = []
    addresses = packet.l2_len + (8 if packet.is_ipv6 else 12)
    at = data.draw(st.sampled_from([addresses, addresses + 3, *covered]))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    flags = 0 if packet.is_ipv6 else (IP_BAD if at < start else IP_GOOD)
    if packet.protocol in (TCP, UDP):
        flags |= L4_BAD
    elif packet.protocol == SCTP:  # no pseudo header: the addresses are not in its sum
        flags |= L4_BAD if at >= start else L4_GOOD
    assert status(bytes(frame)) == flags


def test_udp_without_a_checksum() -> None:
    """None was computed over IPv4 (RFC 768); over IPv6 there must be one (RFC 8200 8.1)."""
    assert status(Packet(protocol=UDP, udp_checksum=False).frame()) == IP_GOOD
    assert status(Packet(**V6, protocol=UDP, udp_checksum=False).frame()) == L4_BAD


@pytest.mark.parametrize("length", [0, 7, 16, 0xFFFF])
def test_udp_lengths_that_cannot_be(length: int) -> None:
    frame = bytearray(Packet(protocol=UDP).frame())
    frame[14 + 20 + 4 : 14 + 20 + 6] = struct.pack(">H", length)
    assert status(bytes(frame)) == IP_GOOD | L4_BAD


@given(PACKETS, st.integers(0, 200), st.lists(st.integers(0, 300), max_size=4))
def test_a_frame_in_pieces_has_the_same_checksums(packet: Packet, more: int, pieces: list[int]) -> None:
    frame = packet.frame()
    here = min(packet.l2_len + packet.l3_len + packet.l4_len + more, len(frame))
    assert status(frame, here, pieces) == status(frame)


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x3FFF])
def test_a_fragment_has_no_l4_checksum(fragment: int) -> None:
    assert status(Packet(fragment=fragment).frame()) == IP_GOOD


@given(st.binary(min_size=14, max_size=120))
def test_any_bytes_have_some_status(frame: bytes) -> None:
    assert not status(frame) & ~ANY


@given(st.sampled_from(["0800", "86dd"]), st.booleans(), st.binary(max_size=150))
def test_any_ip_bytes_have_some_status(ethertype: str, ipv6: bool, rest: bytes) -> None:
    assert not status(ETHERNET + bytes.fromhex(ethertype) + (b"\x60" if ipv6 else b"\x46") + rest) & ~ANY


def test_what_is_not_ip_has_none() -> None:
    assert status(ETHERNET + bytes.fromhex("0806") + bytes(46)) == 0
