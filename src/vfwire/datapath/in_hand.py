"""The frame in hand (state.IN_HAND) as each of its receivers needs it, whatever their model."""

from vfwire.datapath.checksum_status import IP_GOOD, checksum_status, ipv4_header_status
from vfwire.datapath.packet import KIND_IPV4
from vfwire.datapath.segment import gather_copy
from vfwire.layouts.ethernet import ETHERNET_TYPE, VLAN_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import write16, write16_be
from vfwire.memory.words import copy

VLAN_TYPE = 0x0081  # EtherType 0x8100 as a little-endian word
TAGGED_COPY = 2048  # offset from the header to a second scratch, for the copy with its tag put back


@inlined
def tag_put_back(header, header_length, tag):  # type: ignore[no-untyped-def]
    """The header with its 802.1Q tag in line, in a scratch of its own. For a receiver that strips none."""
    tagged = header + TAGGED_COPY
    copy(tagged, header, ETHERNET_TYPE)
    write16(tagged + ETHERNET_TYPE, VLAN_TYPE)
    write16_be(tagged + ETHERNET_TYPE + 2, tag)
    copy(tagged + ETHERNET_TYPE + VLAN_BYTES, header + ETHERNET_TYPE, header_length - ETHERNET_TYPE)
    return tagged


@inlined
def copy_range(state, to, header, header_length, position, count):  # type: ignore[no-untyped-def]
    """Bytes [position, position + count) of the frame: the header as given, then the rest of the frame in hand."""
    if position < header_length:
        part = min(count, header_length - position)
        copy(to, header + position, part)
        to += part
        position += part
        count -= part
    if count:
        hand = state.in_hand[0]
        rest = hand.offset + position - header_length
        gather_copy(to, state.gather[0], state.gather[1], hand.entries, rest, count)


@inlined
def checksums(state, kind, l2, l3, protocol, l4_bytes):  # type: ignore[no-untyped-def]
    """IP_* and L4_* flags (checksum_status.py) of the frame in hand: as its sender's offload left them, or looked at.

    A sender may have had its L4 checksum filled in and no other: what it wrote into its IPv4 header is looked at.
    """
    hand = state.in_hand[0]
    if hand.good:
        if kind & KIND_IPV4 and not hand.good & IP_GOOD:
            return hand.good | ipv4_header_status(hand.header + l2, l3)
        return hand.good
    return checksum_status(
        hand.header,
        hand.header_length,
        kind,
        l2,
        l3,
        protocol,
        l4_bytes,
        state.gather[0],
        state.gather[1],
        hand.entries,
        hand.offset,
    )
