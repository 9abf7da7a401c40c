"""Receive-side scaling: the Toeplitz hash over addresses and ports, as the 82599 computes it.

The hash is linear: every input byte adds (XOR) a value that depends on its place and itself alone. Those
values are a table, built when a key is set, so that a packet costs one look-up a byte. Sources: 82599
datasheet 7.1.2.8 (RSS), 8.2.3.7.12 (MRQC), Microsoft's "RSS hashing functions"; its IPv6 hashes look at the
header's own addresses, whatever extension headers follow (the 82599 has no "Ex" types).
"""

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.packet import KIND_FRAGMENT, KIND_IPV4, KIND_IPV6, KIND_TCP, KIND_UDP
from vfwire.layouts import ena_admin as ena
from vfwire.layouts.ethernet import IPV4_SOURCE, IPV6_SOURCE
from vfwire.layouts.ixgbe_descriptors import (
    RXD_RSSTYPE_IPV4,
    RXD_RSSTYPE_IPV4_TCP,
    RXD_RSSTYPE_IPV4_UDP,
    RXD_RSSTYPE_IPV6,
    RXD_RSSTYPE_IPV6_TCP,
    RXD_RSSTYPE_IPV6_UDP,
    RXD_RSSTYPE_NONE,
)
from vfwire.memory.compiled import always_inlined, inlined
from vfwire.memory.unaligned import read32, read64

KEY_BYTES = 40
TUPLE_BYTES = 36  # the longest input: two IPv6 addresses and two ports

# Types to hash, where MRQC has them, shifted down by 16 (82599 datasheet 8.2.3.7.12).
RSS_IPV4_TCP = 1 << 0
RSS_IPV4 = 1 << 1
RSS_IPV6 = 1 << 4
RSS_IPV6_TCP = 1 << 5
RSS_IPV4_UDP = 1 << 6
RSS_IPV6_UDP = 1 << 7
RSS_DEFAULT = RSS_IPV4_TCP | RSS_IPV4 | RSS_IPV6 | RSS_IPV6_TCP  # what Linux's PF driver enables

# Fields that an ENA's driver has left out, as bits of four for each protocol of ena_admin_defs.h.
LEFT_OUT_SHIFT = 2  # from that header's bits
LEFT_OUT_BITS = 4
DESTINATION, SOURCE, DESTINATION_PORT, SOURCE_PORT = (
    field >> LEFT_OUT_SHIFT for field in (ena.RSS_L3_DA, ena.RSS_L3_SA, ena.RSS_L4_DP, ena.RSS_L4_SP)
)


def build_toeplitz_table(key: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64[36 * 256]: entry `place * 256 + byte` is what that byte adds to the hash (32 bits).

    key: the 40 bytes of the hash key, first byte first. Raises ValueError for any other number.
    """
    if key.shape != (KEY_BYTES,):
        raise ValueError(f"an RSS key has {KEY_BYTES} bytes")
    bits = int.from_bytes(np.ascontiguousarray(key, np.uint8).tobytes(), "big")
    windows = np.array(
        [(bits >> (8 * KEY_BYTES - 32 - place)) & 0xFFFFFFFF for place in range(8 * TUPLE_BYTES)], np.int64
    ).reshape(TUPLE_BYTES, 8)
    values = np.arange(256, dtype=np.int64)
    table: NDArray[np.int64] = np.zeros((TUPLE_BYTES, 256), np.int64)
    for bit in range(8):
        chosen = -((values >> (7 - bit)) & 1)
        table ^= windows[:, bit : bit + 1] & chosen[np.newaxis, :]
    return table.reshape(-1)


@always_inlined
def _four(table, place, word):  # type: ignore[no-untyped-def]
    """What the four bytes in the low half of `word` add, from `place` (table offset, not bytes) on."""
    return (
        table[place + (word & 0xFF)]
        ^ table[place + 256 + ((word >> 8) & 0xFF)]
        ^ table[place + 512 + ((word >> 16) & 0xFF)]
        ^ table[place + 768 + ((word >> 24) & 0xFF)]
    )


@always_inlined
def _eight(table, place, word):  # type: ignore[no-untyped-def]
    return _four(table, place, word) ^ _four(table, place + 1024, word >> 32)


@always_inlined
def toeplitz(table, address, count):  # type: ignore[no-untyped-def]
    """The hash of `count` (a multiple of 4, 0 to 36) contiguous bytes at `address`: an int of 32 bits."""
    value = 0
    place = 0
    while count >= 8:
        value ^= _eight(table, place, read64(address))
        address += 8
        place += 2048
        count -= 8
    if count >= 4:
        value ^= _four(table, place, read32(address))
    return value


@always_inlined
def toeplitz_ipv4(table, l3_address):  # type: ignore[no-untyped-def]
    """Source and destination address of the IPv4 header at `l3_address`."""
    return _eight(table, 0, read64(l3_address + IPV4_SOURCE))


@always_inlined
def toeplitz_ipv6(table, l3_address):  # type: ignore[no-untyped-def]
    """Source and destination address of the IPv6 header at `l3_address`."""
    source = l3_address + IPV6_SOURCE
    first = _eight(table, 0, read64(source)) ^ _eight(table, 2048, read64(source + 8))
    return first ^ _eight(table, 4096, read64(source + 16)) ^ _eight(table, 6144, read64(source + 24))


@always_inlined
def _hash_ipv4(table, l3_address, l4_address, kind, enabled):  # type: ignore[no-untyped-def]
    if kind & KIND_TCP and enabled & RSS_IPV4_TCP:
        rss_type, ports = RXD_RSSTYPE_IPV4_TCP, True
    elif kind & KIND_UDP and enabled & RSS_IPV4_UDP:
        rss_type, ports = RXD_RSSTYPE_IPV4_UDP, True
    elif enabled & RSS_IPV4:
        rss_type, ports = RXD_RSSTYPE_IPV4, False
    else:
        return 0, RXD_RSSTYPE_NONE
    value = toeplitz_ipv4(table, l3_address)
    if ports:
        value ^= _four(table, 2048, read32(l4_address))
    return value, rss_type


@always_inlined
def _hash_ipv6(table, l3_address, l4_address, kind, enabled):  # type: ignore[no-untyped-def]
    if kind & KIND_TCP and enabled & RSS_IPV6_TCP:
        rss_type, ports = RXD_RSSTYPE_IPV6_TCP, True
    elif kind & KIND_UDP and enabled & RSS_IPV6_UDP:
        rss_type, ports = RXD_RSSTYPE_IPV6_UDP, True
    elif enabled & RSS_IPV6:
        rss_type, ports = RXD_RSSTYPE_IPV6, False
    else:
        return 0, RXD_RSSTYPE_NONE
    value = toeplitz_ipv6(table, l3_address)
    if ports:
        value ^= _four(table, 8192, read32(l4_address))
    return value, rss_type


@always_inlined
def rss_hash(table, address, kind, l2_len, l3_len, enabled):  # type: ignore[no-untyped-def]
    """(32-bit hash, RSS type as a receive descriptor has it) of a frame that `packet.parse` has looked at.

    (0, RXD_RSSTYPE_NONE) where no enabled type applies.

    table: of `build_toeplitz_table`. enabled: RSS_* bits. A fragment, or a type of L4 that is not enabled,
    falls back to the addresses alone. The low 7 bits choose among the 128 entries of the redirection table.
    """
    l3_address = address + l2_len
    if kind & KIND_IPV4:
        return _hash_ipv4(table, l3_address, l3_address + l3_len, kind, enabled)
    if kind & KIND_IPV6:
        return _hash_ipv6(table, l3_address, l3_address + l3_len, kind, enabled)
    return 0, RXD_RSSTYPE_NONE


@inlined
def _ena_protocol(kind):  # type: ignore[no-untyped-def]
    """The protocol that an ENA's driver chooses fields for (ena_admin_defs.h), of a frame that is IP."""
    if kind & KIND_IPV4:
        if kind & KIND_TCP:
            return ena.RSS_TCP4
        if kind & KIND_UDP:
            return ena.RSS_UDP4
        return ena.RSS_IP4_FRAG if kind & KIND_FRAGMENT else ena.RSS_IP4
    if kind & KIND_TCP:
        return ena.RSS_TCP6
    return ena.RSS_UDP6 if kind & KIND_UDP else ena.RSS_IP6


@inlined
def left_out_of_hash(table, address, kind, l2_len, l3_len, left_out):  # type: ignore[no-untyped-def]
    """What the fields that are left out have added to `rss_hash`: taken off again (XOR), they count as zeros.

    left_out: four bits for each protocol; of ports only where that protocol's are hashed.
    """
    fields = left_out >> _ena_protocol(kind) * LEFT_OUT_BITS
    l3_address, value, ports = address + l2_len, 0, 2048
    if kind & KIND_IPV4:
        both = read64(l3_address + IPV4_SOURCE)
        if fields & SOURCE:
            value ^= _four(table, 0, both)
        if fields & DESTINATION:
            value ^= _four(table, 1024, both >> 32)
    else:
        ports, source = 8192, l3_address + IPV6_SOURCE
        if fields & SOURCE:
            value ^= _eight(table, 0, read64(source)) ^ _eight(table, 2048, read64(source + 8))
        if fields & DESTINATION:
            value ^= _eight(table, 4096, read64(source + 16)) ^ _eight(table, 6144, read64(source + 24))
    if fields & (SOURCE_PORT | DESTINATION_PORT):
        mask = 0xFFFF if fields & SOURCE_PORT else 0
        mask |= 0xFFFF0000 if fields & DESTINATION_PORT else 0
        value ^= _four(table, ports, read32(l3_address + l3_len) & mask)
    return value
