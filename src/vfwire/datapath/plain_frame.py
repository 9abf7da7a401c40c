"""A plain frame on the fast paths, whatever the models: how it is copied, what of IPv4 is told, and what is counted."""

from vfwire.datapath.checksum import fold
from vfwire.datapath.state import Drop
from vfwire.layouts.ethernet import PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP
from vfwire.layouts.ixgbe_descriptors import RXD_ERR_IPE, RXD_PKTTYPE_IPV4, RXD_PKTTYPE_UDP, RXD_STAT_IPCS
from vfwire.memory.compiled import inlined
from vfwire.memory.streaming import LINE, stream_line
from vfwire.memory.unaligned import read16, read32, read64, write16, write32, write64
from vfwire.memory.words import copy

SHORTEST = 17  # the least that an 82599 sends; also what two 64-bit loads need
KEY1_MASK = (1 << 48) - 1
IPV4_IN_KEY1 = 0x0008  # EtherType 0x0800 as it stands in bits 47:32 of bytes 8-15
STREAM_FROM = 32  # frames in a ring, from which on long ones are copied past the caches
STREAM_LENGTH = 512  # bytes of a long frame: who receives a shorter one would wait for memory
_IPV4_SHORTEST = 42  # Ethernet, IPv4 without options, UDP header
_LOW32 = 0xFFFFFFFF
NO_ROOM = int(Drop.NO_RX_DESCRIPTOR)


@inlined
def ipv4_status(address, length, word1):  # type: ignore[no-untyped-def]
    """(packet type, status and error bits) of an IPv4 frame, or (-1, 0) where the general path has to look.

    word1: bytes 8-15 of the frame. Only frames without options, and without an L4 checksum that would have to be
    verified over the payload, are told here.
    """
    if length < _IPV4_SHORTEST or (word1 >> 48) & 0xFF != 0x45:
        return -1, 0
    first, second, third = read64(address + 14), read64(address + 22), read32(address + 30)
    if (first >> 48) & 0xFFBF:  # a fragment (flags and offset but for DF, in network order)
        return -1, 0
    protocol = (second >> 8) & 0xFF
    packet_type = RXD_PKTTYPE_IPV4
    if protocol == PROTOCOL_UDP:
        if read16(address + 40) != 0:
            return -1, 0
        packet_type |= RXD_PKTTYPE_UDP
    elif protocol in (PROTOCOL_TCP, PROTOCOL_SCTP):
        return -1, 0
    total = (
        (first & _LOW32) + ((first >> 32) & _LOW32) + (second & _LOW32) + ((second >> 32) & _LOW32) + third
    )
    if fold(total) == 0xFFFF:
        return packet_type, RXD_STAT_IPCS
    return packet_type, RXD_STAT_IPCS | RXD_ERR_IPE


@inlined
def copy_frame(to, source, length):  # type: ignore[no-untyped-def]
    """Copy a frame. Small ones by two moves of fixed size that may overlap: a third of what a call of memcpy takes."""
    if 32 <= length <= 64:
        copy(to, source, 32)
        copy(to + length - 32, source + length - 32, 32)
    else:
        copy(to, source, length)


@inlined
def copy_long_frame(to, source, length):  # type: ignore[no-untyped-def]
    """Copy a frame of LINE bytes or more to the start of a line: its head through the caches, whole lines past them."""
    copy(to, source, LINE)
    done = LINE
    while done + LINE <= length:
        stream_line(to + done, source + done)
        done += LINE
    if done < length:
        copy(to + done, source + done, length - done)


@inlined
def put_frame(buffer, source, length, streaming):  # type: ignore[no-untyped-def]
    """Copy a frame; streaming: many more come behind it. Returns 1 when a fence has to stand behind it, else 0."""
    if length >= STREAM_LENGTH and streaming and buffer & (LINE - 1) == 0:
        copy_long_frame(buffer, source, length)
        return 1
    copy_frame(buffer, source, length)
    return 0


@inlined
def put_header(buffer, first, second):  # type: ignore[no-untyped-def]
    """The 14 bytes that were checked, over those that were copied: the sender may have changed them meanwhile."""
    write64(buffer, first)
    write32(buffer + 8, second)
    write16(buffer + 12, second >> 32)


@inlined
def count_burst(state, function, queue, to, taken, moved, dropped, total, lost):  # type: ignore[no-untyped-def]
    """total: bytes moved. lost: bytes of the frames that were dropped."""
    sender, target = state.functions[function], state.functions[to]
    queue.frames += taken
    queue.bytes += total + lost
    sender.tx_frames += taken
    sender.tx_bytes += total + lost
    card = state.cards[sender.card]
    if target.card == sender.card:
        card.loopback += taken
    else:
        card.link_frames += taken
        card.link_bytes += total + lost
        state.cards[target.card].link_in_frames += taken
    target.rx_frames += moved
    target.rx_bytes += total
    target.copied += total
    if dropped:
        state.drops[to, NO_ROOM] += dropped
