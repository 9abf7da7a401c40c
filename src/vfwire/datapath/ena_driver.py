"""The driver's loops over ENA queue pairs (amzn-drivers, ena_eth_io_defs.h; the order of writes as in ena_eth_com.c).

A request ID is the ring index of a frame's first data descriptor, or of its first low-latency entry. `slots` keeps the
buffers that the device has: a frame's own in a row, from its request ID on (times LLQ_SLOTS in a low-latency queue,
where one entry holds several descriptors). A slot of 0 is free. Completions may come in any order: an index is used
again only when its own has come. A frame's first slot also says how many ring entries it took.
"""

from vfwire.datapath.ena_driver_frame import (
    LLQ_SLOT_SHIFT,
    LONGEST_HEADER,
    OFFLOADS,
    SPAN_SHIFT,
    slot_shift,
    special_frame,
)
from vfwire.datapath.ena_words import (
    ADDRESS_MASK,
    LENGTH_MASK,
    RX_CONTROL_SHIFT,
    RX_ID_SHIFT,
    RX_OFFER,
    RXC_ID_SHIFT,
    RXC_L3_BAD,
    RXC_L3_MASK,
    RXC_L4_BAD,
    RXC_L4_CHECKED,
    RXC_LAST,
    RXC_LENGTH_SHIFT,
    RXC_OFFSET_SHIFT,
    RXC_PHASE_SHIFT,
    TX_COMPLETE,
    TX_FIRST,
    TX_HEADER_SHIFT,
    TX_LAST,
    TX_PHASE_SHIFT,
    TXC_PHASE_SHIFT,
    id_bits,
    phase_of,
)
from vfwire.datapath.port import (
    RX_CHECKSUM_BAD,
    RX_HASH,
    RX_IP_GOOD,
    RX_L4_GOOD,
    RX_MORE,
    TX_MORE,
    TX_VLAN,
    buffer_of,
    give,
)
from vfwire.layouts.ena_io import L3_PROTO_IPV4
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import copy, load64, prefetch, store32, store64

BATCH = 32  # descriptors for one refill
ONE_FRAME = TX_FIRST | TX_LAST | TX_COMPLETE
DOORBELL_MASK = 0xFFFF
_LOW32 = 0xFFFFFFFF
_SIGN32 = 0x80000000


@inlined
def ena_refill(queue, pool, stack):  # type: ignore[no-untyped-def]
    """Offer free buffers to the device, in whole batches; one entry stays empty, as in every vendor's driver."""
    size, tail, free = queue.size, queue.tail, pool.free
    mask = size - 1
    count = min(queue.head + size - 1 - tail, free) & ~(BATCH - 1)
    ring, slots, offset = queue.ring, queue.slots, queue.delta + pool.headroom
    control = RX_OFFER | ((pool.buffer_bytes - pool.headroom) & LENGTH_MASK)
    done = 0
    while done < count:
        index = tail & mask
        if load64(slots + index * 8):  # still with the device: completions came in another order
            break
        address = stack[free - 1 - done]
        store64(slots + index * 8, address)
        entry = ring + index * 16
        store64(entry + 8, address + offset)
        store64(entry, control | phase_of(tail, size) << RX_CONTROL_SHIFT | index << RX_ID_SHIFT)
        tail += 1
        done += 1
    if done:
        pool.free = free - done
        queue.tail = tail
        store32(queue.doorbell, tail & DOORBELL_MASK)


@inlined
def _received_flags(word0, word1):  # type: ignore[no-untyped-def]
    """RX_* of a completion."""
    flags = 0
    if not word0 & RXC_LAST:
        return RX_MORE
    protocol = word0 & RXC_L3_MASK
    if protocol:
        if protocol == L3_PROTO_IPV4:
            flags = RX_CHECKSUM_BAD if word0 & RXC_L3_BAD else RX_IP_GOOD
        if word0 & RXC_L4_CHECKED:
            flags |= RX_CHECKSUM_BAD if word0 & RXC_L4_BAD else RX_L4_GOOD
    if word1 & _LOW32:
        flags |= RX_HASH
    return flags


@inlined
def ena_receive(queue, pool, stack, frames, limit):  # type: ignore[no-untyped-def]
    """See verbs.receive. A completion of a buffer that was never offered, or too long for it, counts as an error."""
    mask, slots = queue.size - 1, queue.slots
    ring, ring_mask, taken = queue.completions, queue.completion_size - 1, queue.completed
    headroom = pool.headroom
    room = pool.buffer_bytes - headroom
    count, total = 0, 0
    while count < limit:
        entry = ring + (taken & ring_mask) * 16
        word0 = load64(entry)
        if (word0 >> RXC_PHASE_SHIFT) & 1 != phase_of(taken, ring_mask + 1):
            break
        word1 = load64(entry + 8)
        taken += 1
        index = (word0 >> RXC_ID_SHIFT) & 0xFFFF
        buffer = load64(slots + (index & mask) * 8)
        if index > mask or buffer == 0:
            queue.invalid += 1
            continue
        store64(slots + index * 8, 0)
        length = (word0 >> RXC_LENGTH_SHIFT) & LENGTH_MASK
        skip = (word1 >> RXC_OFFSET_SHIFT) & 0xFF
        if length + skip > room:
            length, skip = min(length, room), 0
            queue.errors += 1
        frame = frames[count]
        address = buffer + headroom + skip
        prefetch(address)
        frame.address = address
        frame.length = length
        frame.flags = _received_flags(word0, word1)
        frame.vlan = 0
        frame.hash = (word1 & _LOW32 ^ _SIGN32) - _SIGN32  # the field is signed, and plain Python minds
        total += length
        count += 1
    if taken != queue.completed:
        queue.head += taken - queue.completed
        queue.completed = taken
        queue.frames += count
        queue.bytes += total
    if queue.tail - queue.head < queue.size - BATCH:
        ena_refill(queue, pool, stack)
    return count


@inlined
def ena_collect(queue, pool, stack):  # type: ignore[no-untyped-def]
    """Take back the buffers of frames that the device has completed."""
    mask, slots, shift = queue.size - 1, queue.slots, slot_shift(queue)
    slot_mask = (queue.size << shift) - 1
    ring, ring_mask, taken = queue.completions, queue.completion_size - 1, queue.completed
    free, head = pool.free, queue.head
    while True:
        word = load64(ring + (taken & ring_mask) * 8)
        if (word >> TXC_PHASE_SHIFT) & 1 != phase_of(taken, ring_mask + 1):
            break
        taken += 1
        index = word & 0xFFFF
        place = (index & mask) << shift
        slot = load64(slots + place * 8)
        span = slot >> SPAN_SHIFT
        if index > mask or span == 0:
            queue.invalid += 1
            continue
        head += span
        while slot:
            stack[free] = buffer_of(pool, slot & ADDRESS_MASK)
            free += 1
            store64(slots + place * 8, 0)
            place = (place + 1) & slot_mask
            slot = load64(slots + place * 8)
            if slot >> SPAN_SHIFT:  # the next frame's first
                break
    queue.completed = taken
    queue.head = head
    pool.free = free


@inlined
def _put_plain(queue, frames, position, end, last):  # type: ignore[no-untyped-def]
    """Write descriptors for plain one-entry frames, up to one that is not, or the end of the burst or of the ring.

    Returns (next position, bytes).
    """
    tail, size, ring, slots, delta = queue.tail, queue.size, queue.ring, queue.slots, queue.delta
    mask = size - 1
    total = 0
    while position < end and tail < last:
        frame = frames[position]
        index = tail & mask
        if frame.flags & (OFFLOADS | TX_MORE | TX_VLAN) or load64(slots + index * 8):
            break
        length = int(frame.length)
        address = int(frame.address)
        store64(slots + index * 8, address | 1 << SPAN_SHIFT)
        entry = ring + index * 16
        store64(entry + 8, address + delta)
        store64(entry, ONE_FRAME | length | phase_of(tail, size) << TX_PHASE_SHIFT | id_bits(index))
        tail += 1
        position += 1
        total += length
    queue.tail = tail
    return position, total


@inlined
def _push_plain(queue, frames, position, end, last):  # type: ignore[no-untyped-def]
    """As `_put_plain`, into a low-latency queue: the front of each frame goes into the device's memory with it."""
    tail, size, ring, slots, delta = queue.tail, queue.size, queue.ring, queue.slots, queue.delta
    stride, header_at = queue.llq_bytes, queue.llq_header
    room = min(stride - header_at, LONGEST_HEADER)
    mask = size - 1
    total = 0
    while position < end and tail < last:
        frame = frames[position]
        index = tail & mask
        slot = slots + (index << LLQ_SLOT_SHIFT) * 8
        if frame.flags & (OFFLOADS | TX_MORE | TX_VLAN) or load64(slot):
            break
        length = int(frame.length)
        address = int(frame.address)
        front = min(length, room)
        store64(slot, address | 1 << SPAN_SHIFT)
        entry = ring + index * stride
        copy(entry + header_at, address, front)
        store64(entry + 8, ((address + delta + front) & ADDRESS_MASK) | front << TX_HEADER_SHIFT)
        rest = length - front
        store64(entry, ONE_FRAME | rest | phase_of(tail, size) << TX_PHASE_SHIFT | id_bits(index))
        tail += 1
        position += 1
        total += length
    queue.tail = tail
    return position, total


@inlined
def _ring(queue, rung):  # type: ignore[no-untyped-def]
    """Announce what has been written since the tail was `rung`. Returns the tail."""
    if queue.tail != rung:
        store32(queue.doorbell, queue.tail & DOORBELL_MASK)
        queue.doorbells += 1
    return queue.tail


@inlined
def ena_transmit(queue, pool, stack, frames, start, count):  # type: ignore[no-untyped-def]
    """See verbs.transmit. A frame whose last entry is missing (TX_MORE on the last of the burst) is not taken.

    Where a low-latency queue takes only so many entries between two doorbells, each turn begins behind a doorbell and
    writes no more than that: a run of plain frames, or one that is not.
    """
    ena_collect(queue, pool, stack)
    before = rung = queue.tail
    last = queue.head + queue.size - 1
    most = queue.llq_burst if queue.llq_burst else queue.size
    position, end = start, start + count
    total_bytes = 0
    while position < end and queue.tail < last:
        at = position
        if queue.llq_bytes:
            if queue.llq_burst:
                rung = _ring(queue, rung)
            position, total = _push_plain(queue, frames, position, end, min(last, queue.tail + most))
        else:
            position, total = _put_plain(queue, frames, position, end, last)
        total_bytes += total
        if position > at:
            continue
        entries, total = special_frame(queue, pool, stack, frames, position, end, last)
        if entries == 0:
            break
        position += entries
        total_bytes += total
    taken = position - start
    if queue.tail != before:
        _ring(queue, rung)
        queue.frames += taken
        queue.bytes += total_bytes
    if taken < count:
        queue.full += 1
    return taken


@compiled
def ena_start(rx, pool, stack):  # type: ignore[no-untyped-def]
    """Fill every receive ring."""
    for number in range(rx.shape[0]):
        ena_refill(rx[number], pool[0], stack)


@compiled
def ena_take_back(queues, pool, stack):  # type: ignore[no-untyped-def]
    """After the queues are destroyed: every buffer that they still hold goes back to the pool."""
    for number in range(queues.shape[0]):
        queue = queues[number]
        for index in range(queue.size << slot_shift(queue)):
            address = load64(queue.slots + index * 8) & ADDRESS_MASK
            if address:
                give(pool[0], stack, address)
            store64(queue.slots + index * 8, 0)
        queue.head = queue.tail
