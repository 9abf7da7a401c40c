"""The driver's loops over 82599 advanced descriptors (82599 datasheet 7.1.6, 7.2.3).

Completions are asked for on every 32nd transmit descriptor and looked at 32 at a time, so a sent frame costs one
descriptor write and a thirty-second of a read of what the card wrote (ixy's and DPDK's lesson as well).
A slot keeps the buffer of its descriptor: the buffer comes back to the pool when the descriptor is done.
"""

from vfwire.datapath.port import (
    RX_CHECKSUM_BAD,
    RX_HASH,
    RX_IP_GOOD,
    RX_L4_GOOD,
    RX_MORE,
    RX_VLAN,
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
from vfwire.datapath.seed import leave_seed
from vfwire.layouts.ixgbe_descriptors import (
    CTXD_Q0_MACLEN_SHIFT,
    CTXD_Q0_VLAN_SHIFT,
    CTXD_Q1_IDX_SHIFT,
    CTXD_Q1_L4LEN_SHIFT,
    CTXD_Q1_MSS_SHIFT,
    CTXD_TUCMD_IPV4,
    CTXD_TUCMD_L4T_TCP,
    RXD_ERR_IPE,
    RXD_ERR_TCPE,
    RXD_RSSTYPE_MASK,
    RXD_STAT_DD,
    RXD_STAT_EOP,
    RXD_STAT_IPCS,
    RXD_STAT_L4CS,
    RXD_STAT_VP,
    TXD_DCMD_DEXT,
    TXD_DCMD_EOP,
    TXD_DCMD_IFCS,
    TXD_DCMD_RS,
    TXD_DCMD_TSE,
    TXD_DCMD_VLE,
    TXD_DTYP_CTXT,
    TXD_DTYP_DATA,
    TXD_Q1_CC,
    TXD_Q1_DD,
    TXD_Q1_IDX_SHIFT,
    TXD_Q1_IXSM,
    TXD_Q1_PAYLEN_SHIFT,
    TXD_Q1_TXSM,
)
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import load64, prefetch, store32, store64

BATCH = 32  # descriptors for one completion request, and for one refill
PLAIN = TXD_DTYP_DATA | TXD_DCMD_DEXT | TXD_DCMD_IFCS | TXD_Q1_CC
OFFLOADS = TX_IP_CHECKSUM | TX_TCP_CHECKSUM | TX_UDP_CHECKSUM | TX_VLAN | TX_SEGMENT
_LENGTH_MASK = 0xFFFF
_UNUSUAL = RXD_STAT_EOP | RXD_STAT_VP | RXD_ERR_IPE | RXD_ERR_TCPE


@inlined
def _received_flags(status, word0):  # type: ignore[no-untyped-def]
    """RX_* of a descriptor. Most frames are whole and have no error, tag or hash: one compare, and no more."""
    flags = 0
    if status & _UNUSUAL != RXD_STAT_EOP or word0 & RXD_RSSTYPE_MASK:
        if not status & RXD_STAT_EOP:
            flags |= RX_MORE
        if status & RXD_STAT_VP:
            flags |= RX_VLAN
        if word0 & RXD_RSSTYPE_MASK:
            flags |= RX_HASH
        if status & (RXD_ERR_IPE | RXD_ERR_TCPE):
            return flags | RX_CHECKSUM_BAD
    if status & RXD_STAT_IPCS:
        flags |= RX_IP_GOOD
    if status & RXD_STAT_L4CS:
        flags |= RX_L4_GOOD
    return flags


@inlined
def ixgbevf_refill(queue, pool, stack):  # type: ignore[no-untyped-def]
    """Offer free buffers to the card, in whole batches; one entry stays empty (a full ring would look empty)."""
    mask, tail, free = queue.size - 1, queue.tail, pool.free
    room = queue.head + queue.size - 1 - tail
    count = min(room, free) & ~(BATCH - 1)
    if count == 0:
        return
    ring, slots, offset = queue.ring, queue.slots, queue.delta + pool.headroom
    for step in range(count):
        address = stack[free - 1 - step]
        index = (tail + step) & mask
        entry = ring + index * 16
        store64(slots + index * 8, address)
        store64(entry, address + offset)
        store64(entry + 8, 0)
    pool.free = free - count
    queue.tail = tail + count
    store32(queue.doorbell, queue.tail & mask)


@inlined
def ixgbevf_receive(queue, pool, stack, frames, limit):  # type: ignore[no-untyped-def]
    """See verbs.receive. A length that no buffer could hold is cut to the buffer and counted as an error."""
    mask, head, ring, slots = queue.size - 1, queue.head, queue.ring, queue.slots
    headroom = pool.headroom
    room = pool.buffer_bytes - headroom
    count = 0
    total = 0
    while count < limit:
        index = head & mask
        entry = ring + index * 16
        word1 = load64(entry + 8)
        if not word1 & RXD_STAT_DD:
            break
        word0 = load64(entry)
        length = (word1 >> 32) & _LENGTH_MASK
        if length > room:
            length = room
            queue.errors += 1
        frame = frames[count]
        address = load64(slots + index * 8) + headroom
        prefetch(address)
        frame.address = address
        frame.length = length
        frame.flags = _received_flags(word1, word0)
        frame.vlan = (word1 >> 48) & 0xFFFF
        frame.hash = word0 >> 32
        total += length
        head += 1
        count += 1
    if count:
        queue.head = head
        queue.frames += count
        queue.bytes += total
    if queue.tail - head < queue.size - BATCH:
        ixgbevf_refill(queue, pool, stack)
    return count


@inlined
def _collect(queue, pool, stack):  # type: ignore[no-untyped-def]
    """Take back the buffers of finished batches. A context descriptor has no buffer: its slot holds 0."""
    mask, ring, slots = queue.size - 1, queue.ring, queue.slots
    while queue.tail - queue.head >= BATCH:
        last = (queue.head + BATCH - 1) & mask
        if not load64(ring + last * 16 + 8) & TXD_Q1_DD:
            return
        free = pool.free
        for step in range(BATCH):
            address = load64(slots + ((queue.head + step) & mask) * 8)
            if address:
                stack[free] = buffer_of(pool, address)
                free += 1
        pool.free = free
        queue.head += BATCH


@inlined
def _put(queue, address, word0, word1):  # type: ignore[no-untyped-def]
    """Write the next descriptor; the last of each batch asks for its completion."""
    tail = queue.tail
    index = tail & (queue.size - 1)
    if tail & (BATCH - 1) == BATCH - 1:
        word1 |= TXD_DCMD_RS
    entry = queue.ring + index * 16
    store64(queue.slots + index * 8, address)
    store64(entry, word0)
    store64(entry + 8, word1)
    queue.tail = tail + 1


@inlined
def _put_context(queue, frame):  # type: ignore[no-untyped-def]
    """The context that a frame's offloads refer to: index 1, for index 0 is the plain one of `ixgbevf_start`."""
    header, segment, vlan = int(frame.header), int(frame.segment), int(frame.vlan)
    l2, l3, l4 = header & 0xFF, (header >> 8) & 0xFF, (header >> 16) & 0xFF
    word0 = l3 | (l2 << CTXD_Q0_MACLEN_SHIFT) | ((vlan & 0xFFFF) << CTXD_Q0_VLAN_SHIFT)
    command = TXD_DTYP_CTXT | TXD_DCMD_DEXT
    if not frame.flags & TX_IPV6:
        command |= CTXD_TUCMD_IPV4
    if frame.flags & (TX_TCP_CHECKSUM | TX_SEGMENT):
        command |= CTXD_TUCMD_L4T_TCP
    word1 = command | (1 << CTXD_Q1_IDX_SHIFT) | (l4 << CTXD_Q1_L4LEN_SHIFT)
    word1 |= (segment & 0xFFFF) << CTXD_Q1_MSS_SHIFT
    _put(queue, 0, word0, word1)


@inlined
def _put_offloaded(queue, frames, first, entries, total):  # type: ignore[no-untyped-def]
    """A frame of several entries, or one that asks for an offload: its context, then a descriptor for each entry."""
    frame = frames[first]
    flags = frame.flags
    common = PLAIN
    payload = int(total)
    if flags & OFFLOADS:
        leave_seed(frame, total)
        _put_context(queue, frame)
        common |= 1 << TXD_Q1_IDX_SHIFT
        if flags & TX_VLAN:
            common |= TXD_DCMD_VLE
        if flags & (TX_TCP_CHECKSUM | TX_UDP_CHECKSUM | TX_SEGMENT):
            common |= TXD_Q1_TXSM
        if flags & TX_IP_CHECKSUM or (flags & TX_SEGMENT and not flags & TX_IPV6):
            common |= TXD_Q1_IXSM
        if flags & TX_SEGMENT:
            common |= TXD_DCMD_TSE
            header = int(frame.header)
            payload -= (header & 0xFF) + ((header >> 8) & 0xFF) + ((header >> 16) & 0xFF)
    common |= payload << TXD_Q1_PAYLEN_SHIFT
    for step in range(entries):
        entry = frames[first + step]
        word1 = common | int(entry.length)
        if step == entries - 1:
            word1 |= TXD_DCMD_EOP
        _put(queue, entry.address, entry.address + queue.delta, word1)


@inlined
def _put_plain(queue, frames, position, end, last):  # type: ignore[no-untyped-def]
    """Write descriptors for plain one-entry frames, up to one that is not, the end of the burst or of the ring.

    Returns (next position, bytes). The tail stays in a register: kept in the record it would be written and read
    back for every frame.
    """
    tail, mask, ring, slots, delta = queue.tail, queue.size - 1, queue.ring, queue.slots, queue.delta
    total = 0
    while position < end and tail < last:
        frame = frames[position]
        if frame.flags & (OFFLOADS | TX_MORE):
            break
        length = int(frame.length)
        address = int(frame.address)
        word1 = PLAIN | TXD_DCMD_EOP | length | (length << TXD_Q1_PAYLEN_SHIFT)
        if tail & (BATCH - 1) == BATCH - 1:
            word1 |= TXD_DCMD_RS
        index = tail & mask
        store64(slots + index * 8, address)
        store64(ring + index * 16, address + delta)
        store64(ring + index * 16 + 8, word1)
        tail += 1
        position += 1
        total += length
    queue.tail = tail
    return position, total


@inlined
def ixgbevf_transmit(queue, pool, stack, frames, start, count):  # type: ignore[no-untyped-def]
    """See verbs.transmit. A frame whose last entry is missing (TX_MORE on the last of the burst) is not taken."""
    if queue.tail - queue.head >= BATCH:
        _collect(queue, pool, stack)
    before = queue.tail
    last = queue.head + queue.size - 1
    position, end = start, start + count
    total_bytes = 0
    while position < end and queue.tail < last:
        position, total = _put_plain(queue, frames, position, end, last)
        total_bytes += total
        if position == end or queue.tail >= last:
            break
        entries, total = 1, int(frames[position].length)
        while position + entries < end and frames[position + entries - 1].flags & TX_MORE:
            total += frames[position + entries].length
            entries += 1
        if frames[position + entries - 1].flags & TX_MORE or queue.tail + entries + 1 > last:
            break
        _put_offloaded(queue, frames, position, entries, total)
        position += entries
        total_bytes += total
    taken = position - start
    if queue.tail != before:
        store32(queue.doorbell, queue.tail & (queue.size - 1))
        queue.frames += taken
        queue.bytes += total_bytes
    if taken < count:
        queue.full += 1
    return taken


@compiled
def ixgbevf_start(rx, tx, pool, stack):  # type: ignore[no-untyped-def]
    """Fill every receive ring, and give every transmit queue its plain context (L2 length 14, index 0)."""
    for number in range(rx.shape[0]):
        ixgbevf_refill(rx[number], pool[0], stack)
    for number in range(tx.shape[0]):
        queue = tx[number]
        _put(queue, 0, 14 << CTXD_Q0_MACLEN_SHIFT, TXD_DTYP_CTXT | TXD_DCMD_DEXT)
        store32(queue.doorbell, queue.tail & (queue.size - 1))


@compiled
def ixgbevf_take_back(queues, pool, stack):  # type: ignore[no-untyped-def]
    """After the queues are disabled: every buffer that they still hold goes back to the pool."""
    for number in range(queues.shape[0]):
        queue = queues[number]
        while queue.head < queue.tail:
            address = load64(queue.slots + (queue.head & (queue.size - 1)) * 8)
            if address:
                give(pool[0], stack, address)
            queue.head += 1
