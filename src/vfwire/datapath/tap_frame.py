"""Between a tap's header before each frame (struct virtio_net_hdr) and the offloads that a driver is asked for."""

from vfwire.datapath.checksum import checksum_field, sum_words
from vfwire.datapath.port import TX_IP_CHECKSUM, TX_IPV6, TX_SEGMENT, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM
from vfwire.layouts.ethernet import (
    ETHERNET_BYTES,
    ETHERNET_TYPE,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_QINQ,
    ETHERTYPE_VLAN,
    IPV4_BYTES,
    IPV4_MAXIMUM_BYTES,
    IPV6_BYTES,
    TCP_BYTES,
    TCP_CHECKSUM,
    TCP_DATA_OFFSET,
    UDP_CHECKSUM,
    VLAN_BYTES,
)
from vfwire.layouts.tap import (
    VNET_CSUM_OFFSET,
    VNET_CSUM_START,
    VNET_FLAGS,
    VNET_GSO_ECN,
    VNET_GSO_NONE,
    VNET_GSO_SIZE,
    VNET_GSO_TCPV4,
    VNET_GSO_TCPV6,
    VNET_GSO_TYPE,
    VNET_NEEDS_CSUM,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read16, read16_be, write16
from vfwire.memory.words import load8

_L3_SHIFT, _L4_SHIFT = 8, 16  # in a FRAME's `header`


@inlined
def l2_bytes(address):  # type: ignore[no-untyped-def]
    """Ethernet header with up to two tags."""
    length = ETHERNET_BYTES
    for _ in range(2):
        kind = read16_be(address + length - ETHERNET_BYTES + ETHERNET_TYPE)
        if kind != ETHERTYPE_VLAN and kind != ETHERTYPE_QINQ:
            break
        length += VLAN_BYTES
    return length


@inlined
def _sum_here(address, length, start, offset):  # type: ignore[no-untyped-def]
    """Finish a checksum whose field holds the sum of the pseudo header; False where it lies outside."""
    field = start + offset
    if start < ETHERNET_BYTES or field + 2 > length:
        return False
    value = checksum_field(sum_words(address + start, length - start, 0))
    if value == 0 and offset == UDP_CHECKSUM:
        value = 0xFFFF
    write16(address + field, value)
    return True


@inlined
def _segment(frame, address, first_bytes, l2, start, gso, size):  # type: ignore[no-untyped-def]
    """Ask for TCP segmentation; False where the headers do not say what the tap's header says."""
    kind = read16_be(address + l2 - ETHERNET_BYTES + ETHERNET_TYPE)
    l3 = start - l2
    if start + TCP_BYTES > first_bytes:
        return False
    l4 = (load8(address + start + TCP_DATA_OFFSET) >> 4) * 4
    if l4 < TCP_BYTES or start + l4 > first_bytes or size == 0:
        return False
    flags = TX_SEGMENT | TX_TCP_CHECKSUM
    if gso == VNET_GSO_TCPV4 and kind == ETHERTYPE_IPV4 and IPV4_BYTES <= l3 <= IPV4_MAXIMUM_BYTES:
        flags |= TX_IP_CHECKSUM
    elif gso == VNET_GSO_TCPV6 and kind == ETHERTYPE_IPV6 and l3 == IPV6_BYTES:
        flags |= TX_IPV6
    else:
        return False
    frame.flags |= flags
    frame.header = l2 | l3 << _L3_SHIFT | l4 << _L4_SHIFT
    frame.segment = size
    return True


@inlined
def ask_offloads(frame, header, first_bytes, whole):  # type: ignore[no-untyped-def]
    """Have `frame` (FRAME, its first piece of `first_bytes`) sent as the tap's header at `header` asks.

    whole: the frame lies in one piece. Plain headers (no IP options) are left to the driver; other checksums are
    finished here. False for what neither can do: the frame cannot be sent.
    """
    address = frame.address
    gso = load8(header + VNET_GSO_TYPE) & (0xFF ^ VNET_GSO_ECN)
    if not load8(header + VNET_FLAGS) & VNET_NEEDS_CSUM:
        return gso == VNET_GSO_NONE
    start, offset = read16(header + VNET_CSUM_START), read16(header + VNET_CSUM_OFFSET)
    l2 = l2_bytes(address)
    if gso != VNET_GSO_NONE:
        if offset != TCP_CHECKSUM:
            return False
        return _segment(frame, address, first_bytes, l2, start, gso, read16(header + VNET_GSO_SIZE))
    kind = read16_be(address + l2 - ETHERNET_BYTES + ETHERNET_TYPE)
    is_ipv6 = kind == ETHERTYPE_IPV6 and start == l2 + IPV6_BYTES
    is_ipv4 = kind == ETHERTYPE_IPV4 and start == l2 + IPV4_BYTES
    if (is_ipv4 or is_ipv6) and offset in (TCP_CHECKSUM, UDP_CHECKSUM):
        frame.flags |= TX_TCP_CHECKSUM if offset == TCP_CHECKSUM else TX_UDP_CHECKSUM
        if is_ipv6:
            frame.flags |= TX_IPV6
        frame.header = l2 | (start - l2) << _L3_SHIFT
        return True
    return whole and _sum_here(address, first_bytes, start, offset)
