"""The Internet checksum (RFC 1071) of memory at any address, in pieces.

A `partial` is a sum of little-endian 16-bit words, or anything equal to it modulo 0xFFFF: a non-negative
int64, at most 2**33 from `sum_words`. All here take one of up to 2**40, so a hundred can be added without a
thought. The sum does not depend on byte order (RFC 1071 2(B)): what `fold` gives is stored little-endian,
and then lies in memory as the network wants it.

Parity: `sum_words` takes its piece to begin at an even offset of the whole. For a piece that begins at an odd
offset (only ever after a piece of odd length), sum it from 0 and add `at_odd_offset` of that.
"""

from vfwire.layouts.ethernet import IPV4_SOURCE, IPV6_SOURCE
from vfwire.memory.compiled import always_inlined
from vfwire.memory.unaligned import BLOCK, read16, read32, read64, sum_blocks
from vfwire.memory.words import load8

_LOW32 = 0xFFFF_FFFF


@always_inlined
def _four(first, second):  # type: ignore[no-untyped-def]
    """The sum of the four 32-bit halves of two 64-bit words."""
    return ((first & _LOW32) + (second & _LOW32)) + (((first >> 32) & _LOW32) + ((second >> 32) & _LOW32))


@always_inlined
def sum_words(address, count, partial):  # type: ignore[no-untyped-def]
    """`partial` plus the sum of `count` (0 to 2**31) bytes at any `address`; an odd end is padded with 0.

    Returns a partial. A constant `count` leaves straight code: 20 cost under 3 ns; a variable one is a call.
    """
    total = partial
    if count >= BLOCK:
        blocks = count >> 6
        total += sum_blocks(address, blocks)
        address += blocks << 6
        count &= BLOCK - 1
    if count & 32:
        total += _four(read64(address), read64(address + 8))
        total += _four(read64(address + 16), read64(address + 24))
        address += 32
    if count & 16:
        total += _four(read64(address), read64(address + 8))
        address += 16
    if count & 8:
        word = read64(address)
        total += (word & _LOW32) + ((word >> 32) & _LOW32)
        address += 8
    if count & 4:
        total += read32(address)
        address += 4
    if count & 2:
        total += read16(address)
        address += 2
    if count & 1:
        total += load8(address)
    return (total & _LOW32) + (total >> 32)


@always_inlined
def at_odd_offset(partial):  # type: ignore[no-untyped-def]
    """The partial of a piece, summed from 0, as it counts at an odd offset: bytes change places."""
    shifted = partial << 8
    return (shifted & _LOW32) + (shifted >> 32)


@always_inlined
def fold(partial):  # type: ignore[no-untyped-def]
    """The 16-bit ones'-complement sum: 0xFFFF over data with a right checksum; 0 only where all was 0."""
    total = (partial & 0xFFFF) + ((partial >> 16) & 0xFFFF) + (partial >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@always_inlined
def checksum_field(partial):  # type: ignore[no-untyped-def]
    """What goes into a checksum field (that was 0 in the sum); written little-endian: `write16(field, …)`."""
    return 0xFFFF ^ fold(partial)


@always_inlined
def swap16(value):  # type: ignore[no-untyped-def]
    """A 16-bit value with its two bytes exchanged: a number in network order as a little-endian word."""
    return ((value & 0xFF) << 8) | ((value >> 8) & 0xFF)


@always_inlined
def pseudo_header(l3_address, is_ipv6, protocol, l4_length):  # type: ignore[no-untyped-def]
    """The partial of the pseudo header: RFC 9293 3.1 for IPv4, RFC 8200 8.1 for IPv6 (no routing header).

    l3_address: of the IP header, 20 or 40 bytes of which are there. l4_length: bytes of L4 header and
    payload, 0 to 2**32 - 1.
    """
    partial = swap16(protocol) + swap16(l4_length) + swap16(l4_length >> 16)
    if is_ipv6:
        return sum_words(l3_address + IPV6_SOURCE, 32, partial)
    return sum_words(l3_address + IPV4_SOURCE, 8, partial)
