"""Into one receiver's ring: the queue by RSS, the tag as the receiver wants it, as many buffers as it takes.

(82599 datasheet 7.1.2 RSS, 7.1.6 descriptors, 7.4.4 VLAN strip.) A full or disabled ring is a counted drop, never a
wait.
"""

from vfwire.datapath.dma import stop_function
from vfwire.datapath.interrupts import note_cause
from vfwire.datapath.ixgbevf_queues import buffer_address, rx_publish, rx_room
from vfwire.datapath.packet import (
    IP_BAD,
    IP_GOOD,
    L4_BAD,
    L4_GOOD,
    packet_type,
    parse_prefix,
    receive_checksum_status,
)
from vfwire.datapath.rss import rss_hash
from vfwire.datapath.segment import gather_copy
from vfwire.datapath.state import QUEUES, RETA_ENTRIES, Drop
from vfwire.layouts.ethernet import ETHERNET_TYPE, VLAN_BYTES
from vfwire.layouts.ixgbe_descriptors import (
    RXD_ERR_IPE,
    RXD_ERR_TCPE,
    RXD_STAT_DD,
    RXD_STAT_EOP,
    RXD_STAT_IPCS,
    RXD_STAT_L4CS,
    RXD_STAT_VP,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read64, write16, write16_be
from vfwire.memory.words import copy, load64, store64

NO_ROOM = int(Drop.NO_RX_DESCRIPTOR)
DISABLED = int(Drop.RX_DISABLED)
LINK_IS_DOWN = int(Drop.LINK_DOWN)
TOO_LONG = int(Drop.TOO_LONG)
BAD_DMA = int(Drop.BAD_DMA)
VLAN_TYPE = 0x0081
TAGGED_COPY = 2048  # offset from the header to a second scratch, for the copy with its tag put back


@inlined
def _tag_put_back(header, header_length, tag):  # type: ignore[no-untyped-def]
    """The header with its 802.1Q tag in line, in a scratch of its own. The receiver has stripping off."""
    tagged = header + TAGGED_COPY
    copy(tagged, header, ETHERNET_TYPE)
    write16(tagged + ETHERNET_TYPE, VLAN_TYPE)
    write16_be(tagged + ETHERNET_TYPE + 2, tag)
    copy(tagged + ETHERNET_TYPE + VLAN_BYTES, header + ETHERNET_TYPE, header_length - ETHERNET_TYPE)
    return tagged


@inlined
def _copy_range(state, to, header, header_length, position, count):  # type: ignore[no-untyped-def]
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
def _queue_and_hash(state, function, header, kind, l2, l3):  # type: ignore[no-untyped-def]
    """(receive queue, hash, RSS type) as the function's RSS has it."""
    record = state.functions[function]
    if not record.rss:
        return 0, 0, 0
    value, rss_type = rss_hash(state.toeplitz[function], header, kind, l2, l3, record.rss)
    if rss_type == 0:
        return 0, 0, 0
    entry = state.reta[function, value & (RETA_ENTRIES - 1)]
    return entry & (record.rx_queues - 1), value, rss_type


@inlined
def _checksum_bits(found):  # type: ignore[no-untyped-def]
    """What was found out about a frame's checksums, as status and error bits of its descriptor."""
    status = 0
    if found & (IP_GOOD | IP_BAD):
        status |= RXD_STAT_IPCS
    if found & (L4_GOOD | L4_BAD):
        status |= RXD_STAT_L4CS
    if found & IP_BAD:
        status |= RXD_ERR_IPE
    if found & L4_BAD:
        status |= RXD_ERR_TCPE
    return status


@inlined
def _fill_buffers(state, function, inbox, header, header_length, total, word0, status, tag_field):  # type: ignore[no-untyped-def]
    """Write the frame into the buffers it takes, each with its descriptor. False: a bad one stopped the receiver."""
    good = state.in_hand[0].good
    position = 0
    while position < total:
        part = min(inbox.buffer_bytes, total - position)
        entry = inbox.ring + inbox.head * 16
        buffer = buffer_address(state, function, inbox, load64(entry), part, 1)
        if buffer == 0:
            stop_function(state, function, BAD_DMA)
            return False
        _copy_range(state, buffer, header, header_length, position, part)
        word1 = RXD_STAT_DD | (part << 32)
        if position + part == total:
            word1 |= RXD_STAT_EOP | status | good | tag_field
            if not good and part == total:
                word1 |= _checksum_bits(receive_checksum_status(buffer, total))
        store64(entry, word0)
        store64(entry + 8, word1)
        inbox.head = inbox.head + 1 if inbox.head + 1 < inbox.size else 0
        position += part
    return True


@inlined
def _refusal(inbox, room, total, longest):  # type: ignore[no-untyped-def]
    """-1, or why a frame of `total` bytes cannot go into a queue that has `room` descriptors (-1: not enabled)."""
    if room < 0:
        return DISABLED
    if total > longest:
        return TOO_LONG
    if (total + inbox.buffer_bytes - 1) // inbox.buffer_bytes > room:
        return NO_ROOM
    return -1


@inlined
def deliver(state, function):  # type: ignore[no-untyped-def]
    """Copy the frame in hand (state.IN_HAND) to `function`, or count why not."""
    hand, record = state.in_hand[0], state.functions[function]
    if not record.link_up or record.dma == 0:
        state.drops[function, DISABLED if record.link_up else LINK_IS_DOWN] += 1
        return
    header, header_length, longest = hand.header, hand.header_length, record.max_frame
    tag = 0 if record.port_vlan else hand.tag
    kind, l2, l3, _, _, _ = parse_prefix(header, header_length, header_length + hand.count)
    number, value, rss_type = _queue_and_hash(state, function, header, kind, l2, l3)
    inbox = state.rx[function * QUEUES + number]
    room = rx_room(state, function, number)
    group = read64(header) & 1
    if tag and not inbox.strip_vlan:
        header = _tag_put_back(header, header_length, tag)
        header_length += VLAN_BYTES
        longest += VLAN_BYTES
    total = header_length + hand.count
    cause = _refusal(inbox, room, total, longest)
    if cause >= 0:
        state.drops[function, cause] += 1
        return
    word0 = rss_type | packet_type(kind) | (value << 32)
    status = RXD_STAT_VP if tag else 0
    tag_field = tag << 48 if inbox.strip_vlan else 0
    if not _fill_buffers(state, function, inbox, header, header_length, total, word0, status, tag_field):
        return
    rx_publish(inbox)
    inbox.frames += 1
    inbox.bytes += total
    record.rx_frames += 1
    record.rx_bytes += total
    record.copied += total
    record.rx_multicast += group
    note_cause(state, function, record.rx_vector[number])
