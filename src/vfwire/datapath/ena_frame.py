"""The general path: one frame off an ENA's transmit ring, in the guest's memory or in a low-latency queue.

(amzn-drivers, ena_eth_io_defs.h; what drivers really write, ena_eth_com.c.) A frame is a meta descriptor, if its
offloads differ from the last one's, and a data descriptor for each buffer. In a low-latency queue the header lies
behind the first descriptors of its first entry, and further entries are descriptors only.
"""

from vfwire.datapath.dma import stop_function
from vfwire.datapath.ena_interrupts import note_completion
from vfwire.datapath.ena_queues import next_completion
from vfwire.datapath.ena_words import (
    ADDRESS_MASK,
    LENGTH_MASK,
    META_L3_OFFSET_SHIFT,
    META_L4_WORDS_SHIFT,
    META_MSS_HIGH_SHIFT,
    META_MSS_LOW_BITS,
    META_MSS_LOW_SHIFT,
    TX_COMPLETE,
    TX_FIRST,
    TX_HEADER_SHIFT,
    TX_L3_SHIFT,
    TX_L3_SUM,
    TX_L4_PARTIAL,
    TX_L4_SHIFT,
    TX_L4_SUM,
    TX_LAST,
    TX_META,
    TX_OFFLOADS,
    TX_PHASE_SHIFT,
    TX_TSO,
    TXC_HEAD_SHIFT,
    TXC_PHASE_SHIFT,
    TXC_QUEUE_SHIFT,
    phase_of,
    request_id,
)
from vfwire.datapath.ixgbevf_queues import buffer_address
from vfwire.datapath.route import HEADER_BYTES, pick_up, take_tag_out
from vfwire.datapath.state import GATHER, QUEUES, Drop
from vfwire.datapath.transmit import transmit
from vfwire.layouts.ena_io import L3_PROTO_IPV6, L4_PROTO_TCP, L4_PROTO_UDP
from vfwire.layouts.ethernet import ETHERNET_BYTES, PROTOCOL_TCP, PROTOCOL_UDP, VLAN_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.words import load64, store64

LONGEST_FRAME = 9_216 + ETHERNET_BYTES + VLAN_BYTES  # bytes, without segmentation: the largest MTU there is
LONGEST_SEGMENTED = 0x3FFFF + HEADER_BYTES
HOST_ENTRY = 16
NOTHING = (0, 0, 0, 0)
CHAIN_TOO_LONG = int(Drop.CHAIN_TOO_LONG)
BAD_DMA = int(Drop.BAD_DMA)
BAD_DESCRIPTOR = int(Drop.BAD_DESCRIPTOR)
TOO_SHORT = int(Drop.TOO_SHORT)
TOO_LONG = int(Drop.TOO_LONG)
MORE, WHOLE, BROKEN = 0, 1, 2  # what a walk along descriptors has come to


@inlined
def _add(state, entries, address, length):  # type: ignore[no-untyped-def]
    state.gather[0, entries] = address
    state.gather[1, entries] = length


@inlined
def _keep_meta(queue, word0, word1):  # type: ignore[no-untyped-def]
    """The offsets that this frame's offloads, and those of later frames without a meta descriptor, refer to."""
    queue.meta_l3 = word1 & 0xFF
    queue.meta_l2 = (word1 >> META_L3_OFFSET_SHIFT) & 0xFF
    queue.meta_l4 = ((word1 >> META_L4_WORDS_SHIFT) & 0x3F) << 2
    low = (word1 >> META_MSS_LOW_SHIFT) & ((1 << META_MSS_LOW_BITS) - 1)
    queue.meta_mss = low | ((word0 >> META_MSS_HIGH_SHIFT) & 0xF) << META_MSS_LOW_BITS


@inlined
def _front(state, queue, word1):  # type: ignore[no-untyped-def]
    """The header in a low-latency queue's first entry, as the gather list's first piece: its bytes; -1: too many."""
    if not queue.llq_bytes:
        return 0
    length = (word1 >> TX_HEADER_SHIFT) & 0xFF
    header_at = queue.llq_first * HOST_ENTRY
    if length > queue.llq_bytes - header_at:
        return -1
    entry = queue.ring + (queue.head & (queue.size - 1)) * queue.llq_bytes
    _add(state, 0, entry + header_at, length)
    return length


@inlined
def _gather(state, function, queue, pending):  # type: ignore[no-untyped-def]
    """Collect a frame's buffers. Returns (ring entries, pieces, total bytes, first data qword0, cause or -1).

    Ring entries 0: the frame's end is not there yet. A chain longer than any frame stops the function; an entry that
    is no frame's beginning is stepped over.
    """
    stride = queue.llq_bytes if queue.llq_bytes else HOST_ENTRY
    room = queue.llq_first if queue.llq_bytes else 1
    more = queue.llq_more if queue.llq_bytes else 1
    at, place, pieces, total, first, cause = 0, 0, 0, 0, 0, -1
    seen_data = False
    for step in range(GATHER - 1):
        if place == room:
            at, place, room = at + 1, 0, more
            if at == pending:
                break
        entry = queue.ring + ((queue.head + at) & (queue.size - 1)) * stride + place * HOST_ENTRY
        place += 1
        word0, word1 = load64(entry), load64(entry + 8)
        phase = (word0 >> TX_PHASE_SHIFT) & 1
        if phase != phase_of(queue.head + at, queue.size) or (word0 & TX_FIRST != 0) != (step == 0):
            return max(at, 1), 0, 0, 0, BAD_DESCRIPTOR
        if word0 & TX_META:
            if step or word0 & TX_LAST:
                return max(at, 1), 0, 0, 0, BAD_DESCRIPTOR
            _keep_meta(queue, word0, word1)
            continue
        if not seen_data:
            seen_data, first = True, word0
            total = _front(state, queue, word1)
            if total < 0:
                total, cause = 0, BAD_DESCRIPTOR
            elif total:
                pieces = 1
        length = word0 & LENGTH_MASK
        if length:
            address = buffer_address(state, function, queue, word1 & ADDRESS_MASK, length, 0)
            if address == 0:
                cause = BAD_DMA
            _add(state, pieces, address, length)
            pieces += 1
            total += length
        if word0 & TX_LAST:
            return at + 1, pieces, total, first, cause
    if at < pending or pending >= queue.size - 1:
        stop_function(state, function, CHAIN_TOO_LONG)
    return 0, 0, 0, 0, -1


@inlined
def _ask(state, queue, word, tag_bytes):  # type: ignore[no-untyped-def]
    """What the frame in hand's descriptors ask for. tag_bytes: of a tag that was in line and has been taken out."""
    hand = state.in_hand[0]
    hand.asked = 1 if word & TX_OFFLOADS else 0
    hand.l2, hand.l3, hand.l4 = queue.meta_l2 - tag_bytes, queue.meta_l3, queue.meta_l4
    hand.mss = max(queue.meta_mss, 1) if word & TX_TSO else 0
    hand.is_ipv6 = 1 if (word >> TX_L3_SHIFT) & 0xF == L3_PROTO_IPV6 else 0
    l4 = (word >> TX_L4_SHIFT) & 0x1F
    hand.protocol = PROTOCOL_TCP if l4 == L4_PROTO_TCP else (PROTOCOL_UDP if l4 == L4_PROTO_UDP else 0)
    hand.fill_l3 = 1 if word & TX_L3_SUM and not hand.is_ipv6 else 0
    hand.fill_l4 = 1 if word & TX_L4_SUM else 0
    hand.seeded = 1 if word & TX_L4_PARTIAL else 0


@inlined
def _send(state, function, queue, word, pieces, total, link_credit):  # type: ignore[no-untyped-def]
    """One whole frame. Returns (wire cost, 1 if it has to wait for the link, cause or -1)."""
    if total < ETHERNET_BYTES:
        return 0, 0, TOO_SHORT
    if total > (LONGEST_SEGMENTED if word & TX_TSO else LONGEST_FRAME):
        return 0, 0, TOO_LONG
    pick_up(state, pieces, total)
    tagged = take_tag_out(state)
    _ask(state, queue, word, VLAN_BYTES if tagged else 0)
    plain = word & TX_OFFLOADS == 0 and pieces <= (2 if queue.llq_bytes else 1)
    return transmit(state, function, queue, tagged, plain, link_credit)


@inlined
def _complete(state, function, number, queue, entries, word):  # type: ignore[no-untyped-def]
    """Step over the frame and post its completion, where it was asked for: also that of a frame that was dropped."""
    queue.head += entries
    if not word & TX_COMPLETE:
        return
    entry, phase = next_completion(queue)
    head = (queue.head & 0xFFFF) << TXC_HEAD_SHIFT
    store64(entry, request_id(word) | phase << TXC_PHASE_SHIFT | number << TXC_QUEUE_SHIFT | head)
    note_completion(state, function, queue.vector)


@inlined
def ena_frame(state, function, number, pending, link_credit):  # type: ignore[no-untyped-def]
    """One frame off the ring. Returns (ring entries taken, wire cost, cost on the link, 0: it tells by itself).

    0 taken: the frame is not whole yet, the link has no credit for it, or the function was stopped.
    """
    queue = state.tx[function * QUEUES + number]
    entries, pieces, total, first, cause = _gather(state, function, queue, pending)
    if entries == 0:
        return NOTHING
    cost, wait, link = 0, 0, 0
    if cause < 0:
        cost, wait, cause = _send(state, function, queue, first, pieces, total, link_credit)
        if wait:
            return NOTHING
        link = state.in_hand[0].link
    if cause >= 0:
        state.drops[function, cause] += 1
    else:
        queue.frames += 1
        queue.bytes += total
    _complete(state, function, number, queue, entries, first)
    return entries, cost, cost if link else 0, 0
