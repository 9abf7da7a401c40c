"""A received frame's checksums, checked as a card does it (82599 datasheet 7.1.11), wherever its bytes lie."""

from vfwire.datapath.checksum import at_odd_offset, fold, pseudo_header, sum_words
from vfwire.datapath.packet import KIND_IPV4, KIND_IPV6, KIND_SCTP, KIND_TCP, KIND_UDP
from vfwire.datapath.segment import gather_sum, sctp_checksum
from vfwire.layouts.ethernet import SCTP_CHECKSUM, UDP_BYTES, UDP_CHECKSUM, UDP_LENGTH
from vfwire.memory.compiled import always_inlined, inlined
from vfwire.memory.unaligned import read16, read16_be, read32

IP_GOOD = 1 << 0
IP_BAD = 1 << 1
L4_GOOD = 1 << 2
L4_BAD = 1 << 3


@always_inlined
def _udp_length(l4_address, l4_bytes):  # type: ignore[no-untyped-def]
    """Bytes that a UDP checksum covers, or 0: no checksum, or -1: a length that cannot be right."""
    if read16(l4_address + UDP_CHECKSUM) == 0:
        return 0
    covered = read16_be(l4_address + UDP_LENGTH)
    return covered if UDP_BYTES <= covered <= l4_bytes else -1


@always_inlined
def ipv4_header_status(l3_address, l3):  # type: ignore[no-untyped-def]
    """IP_GOOD or IP_BAD of an IPv4 header of `l3` bytes."""
    return IP_GOOD if fold(sum_words(l3_address, l3, 0)) == 0xFFFF else IP_BAD


@inlined
def checksum_status(  # type: ignore[no-untyped-def]
    header, header_length, kind, l2, l3, protocol, l4_bytes, addresses, lengths, entries, offset
):
    """IP_* and L4_* flags of a frame that `parse_prefix` has looked at: from kind to l4_bytes, what it said.

    The first `header_length` bytes lie at `header`, the rest in the gather list from `offset` on (segment.py).
    Neither IP flag: not IPv4. Neither L4 flag: not TCP, UDP or SCTP, a fragment, or UDP over IPv4 without a
    checksum. UDP over IPv6 must have one (RFC 8200 8.1), so a field of 0 is bad there.
    """
    l3_address = header + l2
    l4_address = l3_address + l3
    here = header_length - l2 - l3
    is_ipv6 = kind & KIND_IPV6 != 0
    status = 0
    if kind & KIND_IPV4:
        status = ipv4_header_status(l3_address, l3)
    if kind & KIND_SCTP:
        here = min(here, l4_bytes)
        wanted = sctp_checksum(l4_address, here, l4_bytes, addresses, lengths, entries, offset)
        return status | (L4_GOOD if read32(l4_address + SCTP_CHECKSUM) == wanted else L4_BAD)
    covered = l4_bytes
    if kind & KIND_UDP:
        covered = _udp_length(l4_address, l4_bytes)
        if covered == 0 and not is_ipv6:
            return status
        if covered <= 0:
            return status | L4_BAD
    elif not kind & KIND_TCP:
        return status
    here = min(here, covered)
    partial = sum_words(l4_address, here, pseudo_header(l3_address, is_ipv6, protocol, covered))
    if covered > here:
        rest = gather_sum(addresses, lengths, entries, offset, covered - here)
        partial += at_odd_offset(rest) if here & 1 else rest
    return status | (L4_GOOD if fold(partial) == 0xFFFF else L4_BAD)
