"""What a driver leaves in a TCP or UDP checksum field for a card to add to (82599 datasheet 7.2.5.2; ENA's
l4_csum_partial): the sum of the pseudo header, for segmentation without its length, which differs by segment.

The card adds what it finds, so an application need not prepare anything: the driver makes the seed from the IP header.
"""

from vfwire.datapath.checksum import fold, pseudo_header
from vfwire.datapath.port import TX_IPV6, TX_SEGMENT, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM
from vfwire.layouts.ethernet import (
    IPV4_BYTES,
    IPV4_TOTAL_LENGTH,
    IPV6_BYTES,
    IPV6_PAYLOAD_LENGTH,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TCP_CHECKSUM,
    UDP_CHECKSUM,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read16_be, write16

_ASKED = TX_TCP_CHECKSUM | TX_UDP_CHECKSUM | TX_SEGMENT


@inlined
def leave_seed(frame, total):  # type: ignore[no-untyped-def]
    """Write the seed that `frame` (FRAME, the first entry of a frame of `total` bytes) needs.

    Its headers lie whole in that entry; a frame whose lengths make no sense is left as it is, for the card to refuse.
    """
    flags = frame.flags
    if not flags & _ASKED:
        return
    header = int(frame.header)
    l2, l3 = header & 0xFF, (header >> 8) & 0xFF
    is_udp = flags & TX_UDP_CHECKSUM != 0 and not flags & (TX_SEGMENT | TX_TCP_CHECKSUM)
    is_ipv6 = flags & TX_IPV6 != 0
    field = l2 + l3 + (UDP_CHECKSUM if is_udp else TCP_CHECKSUM)
    if l3 < (IPV6_BYTES if is_ipv6 else IPV4_BYTES) or field + 2 > frame.length:
        return
    address = int(frame.address)
    length = 0
    if not flags & TX_SEGMENT:
        if is_ipv6:
            length = read16_be(address + l2 + IPV6_PAYLOAD_LENGTH) + IPV6_BYTES - l3
        else:
            length = read16_be(address + l2 + IPV4_TOTAL_LENGTH) - l3
        if not 0 <= length <= total - l2 - l3:
            length = int(total) - l2 - l3
    protocol = PROTOCOL_UDP if is_udp else PROTOCOL_TCP
    write16(address + field, fold(pseudo_header(address + l2, is_ipv6, protocol, length)))
