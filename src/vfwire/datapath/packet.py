"""What a frame is: its headers found, its type as descriptors name it.

Everything here takes any bytes. Each word of a header is read once, checked, then used, so a guest may
change the frame meanwhile: what comes back still lies within the frame. A kind is a set of bits: those of an
82599's packet type where its receive descriptor has them (layouts/ixgbe_descriptors.py), and above them bits
of our own.
"""

from vfwire.datapath.checksum import swap16
from vfwire.layouts.ethernet import (
    ETHERNET_BYTES,
    ETHERNET_TYPE,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_VLAN,
    IPV4_BYTES,
    IPV4_MORE_FRAGMENTS,
    IPV4_OFFSET_MASK,
    IPV4_PROTOCOL,
    IPV6_BYTES,
    PROTOCOL_DESTINATION_OPTIONS,
    PROTOCOL_FRAGMENT,
    PROTOCOL_HOP_BY_HOP,
    PROTOCOL_ROUTING,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    SCTP_BYTES,
    TCP_BYTES,
    TCP_DATA_OFFSET,
    UDP_BYTES,
    VLAN_BYTES,
)
from vfwire.layouts.ixgbe_descriptors import (
    RXD_PKTTYPE_IPV4,
    RXD_PKTTYPE_IPV4_EX,
    RXD_PKTTYPE_IPV6,
    RXD_PKTTYPE_IPV6_EX,
    RXD_PKTTYPE_MASK,
    RXD_PKTTYPE_SCTP,
    RXD_PKTTYPE_TCP,
    RXD_PKTTYPE_UDP,
)
from vfwire.memory.compiled import always_inlined, inlined
from vfwire.memory.unaligned import read16, read32, read64
from vfwire.memory.words import load8

KIND_IPV4 = RXD_PKTTYPE_IPV4
KIND_IPV4_OPTIONS = RXD_PKTTYPE_IPV4_EX  # beside KIND_IPV4
KIND_IPV6 = RXD_PKTTYPE_IPV6
KIND_IPV6_EXTENSIONS = RXD_PKTTYPE_IPV6_EX  # beside KIND_IPV6
KIND_TCP = RXD_PKTTYPE_TCP
KIND_UDP = RXD_PKTTYPE_UDP
KIND_SCTP = RXD_PKTTYPE_SCTP
KIND_VLAN = 1 << 20  # one IEEE 802.1Q tag
KIND_FRAGMENT = 1 << 21  # of IPv4 or IPv6: no L4 bit beside it
KIND_CUT = 1 << 22  # the IP header's length goes beyond the frame, or not beyond itself: no L4 bit beside it

MAXIMUM_EXTENSIONS = 8  # IPv6 extension headers walked; a frame with more has no L4

# Little-endian images of big-endian words, so that the common path swaps nothing.
_TYPE_VLAN = (ETHERTYPE_VLAN >> 8) | ((ETHERTYPE_VLAN & 0xFF) << 8)
_TYPE_IPV4 = (ETHERTYPE_IPV4 >> 8) | ((ETHERTYPE_IPV4 & 0xFF) << 8)
_TYPE_IPV6 = (ETHERTYPE_IPV6 >> 8) | ((ETHERTYPE_IPV6 & 0xFF) << 8)
_FRAGMENTED = IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK
_FRAGMENTED_IMAGE = (_FRAGMENTED >> 8) | ((_FRAGMENTED & 0xFF) << 8)


@always_inlined
def _l4(address, room, protocol):  # type: ignore[no-untyped-def]
    """(kind bit, header bytes) of the L4 header at `address` in `room` bytes; (0, 0) if none fits."""
    if protocol == PROTOCOL_TCP:
        if room >= TCP_BYTES:
            header = (load8(address + TCP_DATA_OFFSET) >> 4) << 2
            if TCP_BYTES <= header <= room:
                return KIND_TCP, header
    elif protocol == PROTOCOL_UDP:
        if room >= UDP_BYTES:
            return KIND_UDP, UDP_BYTES
    elif protocol == PROTOCOL_SCTP and room >= SCTP_BYTES:
        return KIND_SCTP, SCTP_BYTES
    return 0, 0


@always_inlined
def _ipv4(address, room, whole):  # type: ignore[no-untyped-def]
    """(kind, L3 bytes, L4 header bytes, protocol, L4 and rest) of IPv4: `room` of `whole` bytes are here."""
    if room < IPV4_BYTES:
        return 0, 0, 0, 0, 0
    word = read64(address)  # version and length, type of service, total length, identification, fragment
    header = (word & 0x0F) << 2
    if (word & 0xF0) != 0x40 or header < IPV4_BYTES or header > room:
        return 0, 0, 0, 0, 0
    kind = KIND_IPV4
    if header > IPV4_BYTES:
        kind |= KIND_IPV4_OPTIONS
    protocol = load8(address + IPV4_PROTOCOL)
    rest = swap16(word >> 16) - header
    if (word >> 48) & _FRAGMENTED_IMAGE:
        return kind | KIND_FRAGMENT, header, 0, protocol, 0
    if rest < 0 or header + rest > whole:
        return kind | KIND_CUT, header, 0, protocol, 0
    bit, l4_length = _l4(address + header, min(rest, room - header), protocol)
    return kind | bit, header, l4_length, protocol, rest


@inlined
def _ipv6(address, room, whole):  # type: ignore[no-untyped-def]
    """As `_ipv4`. The walk ends at a fragment, a routing header still to be followed, or the 9th header."""
    if room < IPV6_BYTES:
        return 0, 0, 0, 0, 0
    word = read64(address)  # version and flow, payload length, next header, hop limit
    if (word & 0xF0) != 0x60:
        return 0, 0, 0, 0, 0
    kind = KIND_IPV6
    protocol = (word >> 48) & 0xFF
    end = IPV6_BYTES + swap16(word >> 32)
    if end > whole:
        return kind | KIND_CUT, IPV6_BYTES, 0, protocol, 0
    header = IPV6_BYTES
    limit = min(end, room)
    for _ in range(MAXIMUM_EXTENSIONS):
        if protocol == PROTOCOL_FRAGMENT:
            return kind | KIND_IPV6_EXTENSIONS | KIND_FRAGMENT, header, 0, protocol, 0
        if (
            protocol != PROTOCOL_HOP_BY_HOP
            and protocol != PROTOCOL_DESTINATION_OPTIONS
            and protocol != PROTOCOL_ROUTING
        ):
            bit, l4_length = _l4(address + header, limit - header, protocol)
            return kind | bit, header, l4_length, protocol, end - header
        kind |= KIND_IPV6_EXTENSIONS
        if header + 8 > limit:
            break
        extension = read32(address + header)  # next header, length, and for routing: type, segments left
        size = (((extension >> 8) & 0xFF) + 1) << 3
        if header + size > limit or (protocol == PROTOCOL_ROUTING and (extension >> 24) & 0xFF):
            break
        protocol = extension & 0xFF
        header += size
    return kind, header, 0, protocol, 0


@always_inlined
def parse_prefix(address, available, length):  # type: ignore[no-untyped-def]
    """(kind, l2_len, l3_len, l4_len, l4_protocol, l4_bytes) of a frame whose front is at `address`.

    length: of the frame. available: bytes of it that are there, 14 to length; the rest is not looked at.

    l2_len: 14, or 18 with a tag. l3_len: IP header with its options or extension headers, 0 if it is not IP
    or its header does not fit. l4_len: bytes of the TCP, UDP or SCTP header, 0 if there is none whole.
    l4_protocol: where l3_len is not 0, IPv4's protocol or the last IPv6 next header that was reached.
    l4_bytes: L4 header and payload as IP counts them (padding left out), 0 where L4 cannot be looked at.
    Headers lie within `available`, l4_bytes within the frame.
    """
    kind = 0
    l2 = ETHERNET_BYTES
    ethertype = read16(address + ETHERNET_TYPE)
    if ethertype == _TYPE_VLAN and available >= ETHERNET_BYTES + VLAN_BYTES:
        kind = KIND_VLAN
        l2 = ETHERNET_BYTES + VLAN_BYTES
        ethertype = read16(address + ETHERNET_TYPE + VLAN_BYTES)
    if ethertype == _TYPE_IPV4:
        bits, l3, l4, protocol, rest = _ipv4(address + l2, available - l2, length - l2)
        return kind | bits, l2, l3, l4, protocol, rest
    if ethertype == _TYPE_IPV6:
        bits, l3, l4, protocol, rest = _ipv6(address + l2, available - l2, length - l2)
        return kind | bits, l2, l3, l4, protocol, rest
    return kind, l2, 0, 0, 0, 0


@always_inlined
def parse_full(address, length):  # type: ignore[no-untyped-def]
    """(kind, l2_len, l3_len, l4_len, l4_protocol, l4_bytes) of the `length` (from 14) bytes at `address`."""
    return parse_prefix(address, length, length)


@always_inlined
def parse(address, length):  # type: ignore[no-untyped-def]
    """(kind, l2_len, l3_len, l4_len, l4_protocol): `parse_full` without the last."""
    kind, l2, l3, l4, protocol, _ = parse_full(address, length)
    return kind, l2, l3, l4, protocol


@always_inlined
def packet_type(kind):  # type: ignore[no-untyped-def]
    """The packet type of an 82599's receive descriptor, where it lies in the low dword (7.1.6.2)."""
    return kind & RXD_PKTTYPE_MASK
