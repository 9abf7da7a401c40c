"""Checksums in software: what netfront asked for (NETTXF_csum_blank) and no card behind netback fills in.

Frames lie in own memory. TCP and UDP over IPv4 and IPv6 without extension headers, with up to one VLAN tag,
as stock netfronts ask for; anything else is told apart, not guessed at.
"""

from vfwire.datapath.checksum import checksum_field, pseudo_header, sum_words, swap16
from vfwire.layouts.ethernet import (
    ETHERNET_BYTES,
    ETHERNET_TYPE,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_VLAN,
    IPV4_BYTES,
    IPV4_CHECKSUM,
    IPV4_FRAGMENT,
    IPV4_MORE_FRAGMENTS,
    IPV4_OFFSET_MASK,
    IPV4_PROTOCOL,
    IPV4_TOTAL_LENGTH,
    IPV4_VERSION_IHL,
    IPV6_BYTES,
    IPV6_NEXT_HEADER,
    IPV6_PAYLOAD_LENGTH,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TCP_BYTES,
    TCP_CHECKSUM,
    UDP_BYTES,
    UDP_CHECKSUM,
    VLAN_BYTES,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read16, write16
from vfwire.memory.words import load8

_NOTHING = (0, 0, 0, False, 0)


@inlined
def _l4(address, length):  # type: ignore[no-untyped-def]
    """(offset of the IP header, of the L4 header, L4 length with payload, is it IPv6, protocol); zeros if not
    whole.
    """
    l3 = ETHERNET_BYTES
    ethertype = swap16(read16(address + ETHERNET_TYPE))
    if ethertype == ETHERTYPE_VLAN and length >= l3 + VLAN_BYTES:
        ethertype = swap16(read16(address + ETHERNET_TYPE + VLAN_BYTES))
        l3 += VLAN_BYTES
    ip = address + l3
    if ethertype == ETHERTYPE_IPV4 and length >= l3 + IPV4_BYTES:
        header = (load8(ip + IPV4_VERSION_IHL) & 15) * 4
        total = swap16(read16(ip + IPV4_TOTAL_LENGTH))
        fragment = swap16(read16(ip + IPV4_FRAGMENT)) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)
        if header < IPV4_BYTES or total < header or l3 + total > length or fragment != 0:
            return _NOTHING
        return l3, l3 + header, total - header, False, load8(ip + IPV4_PROTOCOL)
    if ethertype == ETHERTYPE_IPV6 and length >= l3 + IPV6_BYTES:
        payload = swap16(read16(ip + IPV6_PAYLOAD_LENGTH))
        if l3 + IPV6_BYTES + payload > length:
            return _NOTHING
        return l3, l3 + IPV6_BYTES, payload, True, load8(ip + IPV6_NEXT_HEADER)
    return _NOTHING


@inlined
def complete_checksum(address, length):  # type: ignore[no-untyped-def]
    """Write the TCP or UDP checksum of the frame at `address`, whatever its field holds now (netfronts differ
    there).

    Returns False, with nothing written, when there is no whole TCP or UDP header in it.
    """
    l3, l4, l4_bytes, is_ipv6, protocol = _l4(address, length)
    if protocol == PROTOCOL_TCP and l4_bytes >= TCP_BYTES:
        field = address + l4 + TCP_CHECKSUM
    elif protocol == PROTOCOL_UDP and l4_bytes >= UDP_BYTES:
        field = address + l4 + UDP_CHECKSUM
    else:
        return False
    write16(field, 0)
    partial = pseudo_header(address + l3, is_ipv6, protocol, l4_bytes)
    value = checksum_field(sum_words(address + l4, l4_bytes, partial))
    if value == 0 and protocol == PROTOCOL_UDP:
        value = 0xFFFF
    write16(field, value)
    return True


@inlined
def complete_ipv4_header(address, length):  # type: ignore[no-untyped-def]
    """Write the IPv4 header checksum of the frame at `address`, if it is IPv4 with a whole header."""
    l3 = ETHERNET_BYTES
    if swap16(read16(address + ETHERNET_TYPE)) == ETHERTYPE_VLAN:
        l3 += VLAN_BYTES
    ip = address + l3
    if length < l3 + IPV4_BYTES or swap16(read16(ip - 2)) != ETHERTYPE_IPV4:
        return
    header = (load8(ip + IPV4_VERSION_IHL) & 15) * 4
    if header < IPV4_BYTES or l3 + header > length:
        return
    write16(ip + IPV4_CHECKSUM, 0)
    write16(ip + IPV4_CHECKSUM, checksum_field(sum_words(ip, header, 0)))
