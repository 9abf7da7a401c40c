"""The fast path: bursts of plain frames from one transmit queue to the function that the last frame went to.

Plain: one descriptor, no offload, no tag. The first 14 bytes are fetched once and compared with those of the last
frame that passed every check (switch, spoof check, VLAN, link): equal means all of it holds again. They are then
written over the copy, so that the header that was checked is the header that arrives, whatever the guest writes
meanwhile. Anything else falls out to the general path (ixgbevf_frame.py), which sets the key for the next burst.
"""

from vfwire.datapath.interrupts import note_cause
from vfwire.datapath.ixgbevf_queues import buffer_address, rx_publish, rx_room
from vfwire.datapath.plain_frame import (
    IPV4_IN_KEY1,
    KEY1_MASK,
    SHORTEST,
    STREAM_FROM,
    count_burst,
    ipv4_status,
    put_frame,
    put_header,
)
from vfwire.datapath.rate import wire_cost
from vfwire.datapath.state import QUEUES, STAGED
from vfwire.layouts.ixgbe_descriptors import (
    RXD_STAT_DD,
    RXD_STAT_EOP,
    TXD_DCMD_DEXT,
    TXD_DCMD_EOP,
    TXD_DCMD_RS,
    TXD_DCMD_TSE,
    TXD_DCMD_VLE,
    TXD_DTALEN_MASK,
    TXD_DTYP_DATA,
    TXD_DTYP_MASK,
    TXD_Q1_DD,
    TXD_Q1_IXSM,
    TXD_Q1_TXSM,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.streaming import stream_fence
from vfwire.memory.unaligned import read64
from vfwire.memory.words import load64, prefetch, prefetch_write, store64

PLAIN_MASK = (
    TXD_DTYP_MASK | TXD_DCMD_DEXT | TXD_DCMD_EOP | TXD_DCMD_TSE | TXD_DCMD_VLE | TXD_Q1_IXSM | TXD_Q1_TXSM
)
PLAIN = TXD_DTYP_DATA | TXD_DCMD_DEXT | TXD_DCMD_EOP
AHEAD = 8  # frames: their lines are asked for before they are needed, for they are in another core's cache
FAR_AHEAD = 32  # descriptors, which say where those frames are
_DONE = RXD_STAT_DD | RXD_STAT_EOP


@inlined
def _ahead(place, distance, size):  # type: ignore[no-untyped-def]
    place += distance
    return place if place < size else place - size


@inlined
def _show(state, inbox, count, streamed):  # type: ignore[no-untyped-def]
    """Hand the staged frames to the receiver: their descriptors, behind all that was copied."""
    if count == 0:
        return
    if streamed:
        stream_fence()
    ring, place, size = inbox.ring, inbox.head, inbox.size
    for at in range(count):
        entry = ring + place * 16
        store64(entry, state.staged[0, at])
        store64(entry + 8, state.staged[1, at])
        place = place + 1 if place + 1 < size else 0
    inbox.head = place
    rx_publish(inbox)


@inlined
def plain_burst(state, function, number, pending, credit, metered):  # type: ignore[no-untyped-def]
    """Move up to `pending` plain frames that match the cached path, while there is credit (bits x 1e9).

    metered: 0 when no rate applies, else 1. Returns (descriptors taken, credit left, 1 if completions were asked for).
    """
    queue = state.tx[function * QUEUES + number]
    to = queue.to
    target = state.functions[to]
    inbox = state.rx[to * QUEUES]
    key0, key1 = queue.key0, queue.key1
    ring, head, size = queue.ring, queue.head, queue.size
    start, end, delta = queue.map_start, queue.map_end, queue.map_delta
    if target.rss or not target.dma:  # a guest changes these without a word
        return 0, credit, 0
    room = rx_room(state, to, 0)
    if room < 0 or not inbox.one_buffer:
        return 0, credit, 0
    in_ring, in_head, in_size = inbox.ring, inbox.head, inbox.size
    longest = min(inbox.buffer_bytes, target.max_frame)
    is_ipv4 = (key1 >> 32) & 0xFFFF == IPV4_IN_KEY1
    streaming = pending >= STREAM_FROM
    taken, moved, dropped, total, lost, asked, staged, streamed = 0, 0, 0, 0, 0, 0, 0, 0
    while taken < pending and credit > 0:
        entry = ring + head * 16
        if taken + FAR_AHEAD < pending:
            prefetch(ring + _ahead(head, FAR_AHEAD, size) * 16)
        prefetch(load64(ring + _ahead(head, AHEAD, size) * 16) + delta)
        word1 = load64(entry + 8)
        length = word1 & TXD_DTALEN_MASK
        if word1 & PLAIN_MASK != PLAIN or length < SHORTEST or length > longest:
            break
        address = load64(entry)
        if address < start or address > end - length:
            break
        address += delta
        first, second = read64(address), read64(address + 8)
        if first != key0 or second & KEY1_MASK != key1:
            break
        packet_type, status = 0, 0
        if is_ipv4:
            packet_type, status = ipv4_status(address, length, second)
            if packet_type < 0:
                break
        if staged == min(STAGED, room):
            _show(state, inbox, staged, streamed)
            room -= staged
            staged = 0
            if room == 0:
                room = rx_room(state, to, 0)
                if room < 0 or not inbox.one_buffer:
                    break
                in_ring, in_head, in_size = inbox.ring, inbox.head, inbox.size
                longest = min(inbox.buffer_bytes, target.max_frame)
                if length > longest:
                    break
        if room == 0:
            dropped += 1
            lost += length
        else:
            prefetch_write(in_ring + _ahead(in_head, FAR_AHEAD, in_size) * 16)
            buffer = buffer_address(state, to, inbox, load64(in_ring + in_head * 16), longest, 1)
            if buffer == 0:
                break
            streamed |= put_frame(buffer, address, length, streaming)
            put_header(buffer, first, second)
            state.staged[0, staged] = packet_type
            state.staged[1, staged] = _DONE | status | (length << 32)
            staged += 1
            in_head = in_head + 1 if in_head + 1 < in_size else 0
            moved += 1
            total += length
        if metered:
            credit -= wire_cost(length)
        if word1 & TXD_DCMD_RS:
            store64(entry + 8, TXD_Q1_DD)
            asked = 1
        head = head + 1 if head + 1 < size else 0
        taken += 1
    queue.head = head
    if inbox.on:
        _show(state, inbox, staged, streamed)
        if moved:
            note_cause(state, to, target.rx_vector[0])
    inbox.frames += moved
    inbox.bytes += total
    count_burst(state, function, queue, to, taken, moved, dropped, total, lost)
    return taken, credit, asked
