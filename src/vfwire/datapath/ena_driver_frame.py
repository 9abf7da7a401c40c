"""The ENA driver's frames that are not plain: several buffers, offloads, tags (amzn-drivers, ena_eth_com.c).

Offloads refer to a meta descriptor, which goes first. In a low-latency queue a frame's header lies in the device's
memory, beside its first descriptors; further ones fill entries of their own. An ENA inserts no tag: the driver does.
"""

from vfwire.datapath.ena_words import (
    ADDRESS_MASK,
    META_L3_OFFSET_SHIFT,
    META_L4_WORDS_SHIFT,
    META_MSS_HIGH_SHIFT,
    META_MSS_LOW_BITS,
    META_MSS_LOW_SHIFT,
    META_STORE,
    META_TYPE,
    META_VALID,
    TX_COMPLETE,
    TX_FIRST,
    TX_HEADER_SHIFT,
    TX_L3_SHIFT,
    TX_L3_SUM,
    TX_L4_SHIFT,
    TX_L4_SUM,
    TX_LAST,
    TX_META,
    TX_PHASE_SHIFT,
    TX_TSO,
    id_bits,
    phase_of,
)
from vfwire.datapath.port import (
    TX_IP_CHECKSUM,
    TX_IPV6,
    TX_MORE,
    TX_SEGMENT,
    TX_TCP_CHECKSUM,
    TX_UDP_CHECKSUM,
    TX_VLAN,
    buffer_of,
    give,
)
from vfwire.layouts.ena_io import L3_PROTO_IPV4, L3_PROTO_IPV6, L4_PROTO_TCP, L4_PROTO_UDP
from vfwire.layouts.ethernet import ETHERNET_TYPE, ETHERTYPE_VLAN, VLAN_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read32, read64, write16_be, write32, write64
from vfwire.memory.words import copy, load8, load64, store8, store64

MOST_ENTRIES = (
    16  # of one frame: with its meta descriptor 17, and every ENA takes as many (max_packet_tx_descs)
)
OFFLOADS = TX_IP_CHECKSUM | TX_TCP_CHECKSUM | TX_UDP_CHECKSUM | TX_SEGMENT
LLQ_SLOT_SHIFT = 3
LLQ_SLOTS = (
    1 << LLQ_SLOT_SHIFT
)  # descriptors of a low-latency entry of 128 bytes; one of 256 is used no further
LONGEST_HEADER = 0xFF
SPAN_SHIFT = 48  # within a slot: ring entries of the frame, above the buffer's address


@inlined
def slot_shift(queue):  # type: ignore[no-untyped-def]
    return LLQ_SLOT_SHIFT if queue.llq_bytes else 0


@inlined
def _put(queue, word0, word1):  # type: ignore[no-untyped-def]
    """Write the next descriptor of a ring in our memory, qword0 with its phase last."""
    tail = queue.tail
    entry = queue.ring + (tail & (queue.size - 1)) * 16
    store64(entry + 8, word1)
    store64(entry, word0 | phase_of(tail, queue.size) << TX_PHASE_SHIFT)
    queue.tail = tail + 1


@inlined
def _meta(frame):  # type: ignore[no-untyped-def]
    """(qword0, qword1) of the meta descriptor that a frame's offloads refer to."""
    header, segment = int(frame.header), int(frame.segment)
    l2, l3, l4 = header & 0xFF, (header >> 8) & 0xFF, (header >> 16) & 0xFF
    word0 = TX_META | META_VALID | META_TYPE | META_STORE | TX_FIRST
    word0 |= (segment >> META_MSS_LOW_BITS & 0xF) << META_MSS_HIGH_SHIFT
    low = segment & ((1 << META_MSS_LOW_BITS) - 1)
    word1 = l3 | l2 << META_L3_OFFSET_SHIFT | (l4 >> 2) << META_L4_WORDS_SHIFT | low << META_MSS_LOW_SHIFT
    return word0, word1


@inlined
def _offload_bits(flags):  # type: ignore[no-untyped-def]
    """What a frame asks for, as bits of its first data descriptor. The device makes the pseudo header itself."""
    word = (L3_PROTO_IPV6 if flags & TX_IPV6 else L3_PROTO_IPV4) << TX_L3_SHIFT
    if flags & (TX_TCP_CHECKSUM | TX_SEGMENT):
        word |= L4_PROTO_TCP << TX_L4_SHIFT | TX_L4_SUM
    elif flags & TX_UDP_CHECKSUM:
        word |= L4_PROTO_UDP << TX_L4_SHIFT | TX_L4_SUM
    if flags & TX_SEGMENT:
        word |= TX_TSO
    if flags & TX_IP_CHECKSUM or (flags & TX_SEGMENT and not flags & TX_IPV6):
        word |= TX_L3_SUM
    return word


@inlined
def _put_frame(queue, frames, first, entries):  # type: ignore[no-untyped-def]
    """A frame of several entries, or one that asks for an offload: its meta descriptor, then one for each entry."""
    frame = frames[first]
    mask, slots = queue.size - 1, queue.slots
    span = entries
    begin = TX_FIRST
    bits = 0
    if frame.flags & OFFLOADS:
        word0, word1 = _meta(frame)
        _put(queue, word0, word1)
        bits = _offload_bits(frame.flags)
        begin = 0  # stands in the meta descriptor
        span += 1
    for step in range(entries):
        entry = frames[first + step]
        index = queue.tail & mask
        address = int(entry.address)
        word0 = int(entry.length)
        slot = address
        if step == 0:
            word0 |= begin | bits | TX_COMPLETE | id_bits(index)
            slot |= span << SPAN_SHIFT
        if step == entries - 1:
            word0 |= TX_LAST
        store64(slots + index * 8, slot)
        _put(queue, word0, address + queue.delta)


@inlined
def _entries_of(frames, position, end):  # type: ignore[no-untyped-def]
    """(entries, bytes) of the frame at `position`; 0 entries where its last is not there."""
    entries, total = 1, int(frames[position].length)
    while frames[position + entries - 1].flags & TX_MORE:
        if position + entries >= end:
            return 0, 0
        total += frames[position + entries].length
        entries += 1
    return entries, total


@inlined
def _room_for(queue, entries, last):  # type: ignore[no-untyped-def]
    """Whether the next `entries` ring indices are free."""
    if queue.tail + entries > last:
        return False
    shift, taken = slot_shift(queue), 0
    for step in range(entries):
        taken |= load64(queue.slots + (((queue.tail + step) & (queue.size - 1)) << shift) * 8)
    return taken == 0


@inlined
def _insert_tag(pool, frame):  # type: ignore[no-untyped-def]
    """Put the frame's tag in line, since an ENA inserts none: into headroom, else by moving up what follows.

    False where the buffer has room for neither.
    """
    address, length = int(frame.address), int(frame.length)
    room = address - buffer_of(pool, address)
    if room >= VLAN_BYTES:
        first, second = read64(address), read32(address + 8)
        address -= VLAN_BYTES
        write64(address, first)
        write32(address + 8, second)
        frame.address = address
    elif room + length + VLAN_BYTES <= pool.buffer_bytes:
        place = length
        while place >= ETHERNET_TYPE + 8:
            place -= 8
            write64(address + place + VLAN_BYTES, read64(address + place))
        while place > ETHERNET_TYPE:
            place -= 1
            store8(address + place + VLAN_BYTES, load8(address + place))
    else:
        return False
    write16_be(address + ETHERNET_TYPE, ETHERTYPE_VLAN)
    write16_be(address + ETHERNET_TYPE + 2, int(frame.vlan))
    frame.length = length + VLAN_BYTES
    frame.header += VLAN_BYTES  # the L2 length, its lowest byte
    frame.flags &= ~TX_VLAN
    return True


@inlined
def _push_frame(queue, frames, first, entries):  # type: ignore[no-untyped-def]
    """`_put_frame` for a low-latency queue: the header beside the first descriptors, the others eight to an entry."""
    frame = frames[first]
    flags = frame.flags
    stride, mask, begin = queue.llq_bytes, queue.size - 1, queue.tail
    index = begin & mask
    entry = queue.ring + index * stride
    front = min(int(frame.length), stride - queue.llq_header, LONGEST_HEADER)
    copy(entry + queue.llq_header, int(frame.address), front)
    place, room = 0, queue.llq_header // 16  # descriptors written into this entry, and what it takes
    phase = phase_of(begin, queue.size) << TX_PHASE_SHIFT
    bits = TX_FIRST
    if flags & OFFLOADS:
        word0, word1 = _meta(frame)
        store64(entry + 8, word1)
        store64(entry, word0 | phase)
        place, bits = 1, _offload_bits(flags)
    slot = index << LLQ_SLOT_SHIFT
    slot_mask = (queue.size << LLQ_SLOT_SHIFT) - 1
    skip = front
    for step in range(entries):
        piece = frames[first + step]
        if place == room:
            queue.tail += 1
            entry = queue.ring + (queue.tail & mask) * stride
            phase = phase_of(queue.tail, queue.size) << TX_PHASE_SHIFT
            place, room = 0, LLQ_SLOTS
        address = int(piece.address)
        word0, word1 = (int(piece.length) - skip) | phase, (address + skip + queue.delta) & ADDRESS_MASK
        if step == 0:
            word0 |= bits | TX_COMPLETE | id_bits(index)
            word1 |= front << TX_HEADER_SHIFT
        if step == entries - 1:
            word0 |= TX_LAST
        store64(entry + place * 16 + 8, word1)
        store64(entry + place * 16, word0)
        store64(queue.slots + ((slot + step) & slot_mask) * 8, address)
        place += 1
        skip = 0
    queue.tail += 1
    span = queue.tail - begin
    store64(queue.slots + slot * 8, int(frame.address) | span << SPAN_SHIFT)


@inlined
def _too_long_for_a_burst(queue, frame, entries):  # type: ignore[no-untyped-def]
    """Whether a frame takes more low-latency entries than the device wants between two doorbells."""
    if queue.llq_burst == 0:
        return False
    descriptors = entries + 1 if frame.flags & OFFLOADS else entries
    beyond = max(descriptors - queue.llq_header // 16, 0)
    return 1 + (beyond + LLQ_SLOTS - 1) // LLQ_SLOTS > queue.llq_burst


@inlined
def special_frame(queue, pool, stack, frames, position, end, last):  # type: ignore[no-untyped-def]
    """One frame of several entries, or with a tag or an offload. Returns (entries taken, bytes); 0: no room for it.

    What no device takes, because a tag or a limit makes it too long, is given back and counted as an error.
    """
    entries, total = _entries_of(frames, position, end)
    if entries == 0 or entries > MOST_ENTRIES or not _room_for(queue, entries + 1, last):
        return 0, 0
    frame = frames[position]
    untagged = frame.flags & TX_VLAN != 0
    if _too_long_for_a_burst(queue, frame, entries) or (untagged and not _insert_tag(pool, frame)):
        for step in range(entries):
            give(pool, stack, int(frames[position + step].address))
        queue.errors += 1
        return entries, 0
    if queue.llq_bytes:
        _push_frame(queue, frames, position, entries)
    else:
        _put_frame(queue, frames, position, entries)
    return entries, total
