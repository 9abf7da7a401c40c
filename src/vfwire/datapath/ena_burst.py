"""The ENA's fast path: bursts of plain frames from one transmit queue to the ENA that the last frame went to.

Its receive side may spread them over queues, frame by frame: they are staged together, and each goes to its queue's
completions at the end.

Plain: one descriptor, no offload, no tag; in a low-latency queue, one entry. As for the 82599 (ixgbevf_burst.py), the
first 14 bytes are fetched once, compared with those of the last frame that passed every check, and written over the
copy. Each frame costs the descriptors of both sides and a completion to each. Anything else falls out to the general
path (ena_frame.py).
"""

from vfwire.datapath.ena_interrupts import note_completion
from vfwire.datapath.ena_queues import submitted
from vfwire.datapath.ena_words import (
    ADDRESS_MASK,
    DESCRIPTOR_BYTES,
    LENGTH_MASK,
    RX_ID_SHIFT,
    RX_WHOLE,
    RXC_BUFFER,
    RXC_FIRST,
    RXC_ID_SHIFT,
    RXC_L3_BAD,
    RXC_L4_SHIFT,
    RXC_LAST,
    RXC_LENGTH_SHIFT,
    RXC_PHASE_SHIFT,
    RXC_QUEUE_SHIFT,
    TX_COMPLETE,
    TX_FIRST,
    TX_HEADER_SHIFT,
    TX_LAST,
    TX_META,
    TX_OFFLOADS,
    TX_PHASE,
    TX_PHASE_SHIFT,
    TXC_HEAD_SHIFT,
    TXC_PHASE_SHIFT,
    TXC_QUEUE_SHIFT,
    phase_of,
    request_id,
)
from vfwire.datapath.ixgbevf_queues import buffer_address
from vfwire.datapath.plain_frame import (
    IPV4_IN_KEY1,
    KEY1_MASK,
    SHORTEST,
    STREAM_FROM,
    copy_frame,
    count_burst,
    ipv4_status,
    put_frame,
    put_header,
)
from vfwire.datapath.rate import wire_cost
from vfwire.datapath.rss import RSS_IPV4, RSS_IPV4_UDP, toeplitz
from vfwire.datapath.state import QUEUES, RETA_ENTRIES, STAGED, Drop
from vfwire.layouts.ena_io import L3_PROTO_IPV4, L4_PROTO_UDP
from vfwire.layouts.ethernet import ETHERNET_BYTES, IPV4_SOURCE
from vfwire.layouts.ixgbe_descriptors import RXD_ERR_IPE, RXD_PKTTYPE_UDP
from vfwire.memory.compiled import inlined
from vfwire.memory.streaming import LINE, stream_fence
from vfwire.memory.unaligned import read64
from vfwire.memory.words import copy, load64, prefetch, prefetch_write, store64

PLAIN_MASK = TX_META | TX_FIRST | TX_LAST | TX_OFFLOADS
PLAIN = TX_FIRST | TX_LAST
AHEAD = 8  # frames: their lines are asked for before they are needed, for they are in another core's cache
FAR_AHEAD = 32  # descriptors, which say where those frames are
IPV4_HEADERS = 42  # bytes that must lie together for `ipv4_status`
DONE = RXC_FIRST | RXC_LAST | RXC_BUFFER
IPV4 = L3_PROTO_IPV4
DISABLED = int(Drop.RX_DISABLED)
UDP_OVER_IPV4 = L3_PROTO_IPV4 | L4_PROTO_UDP << RXC_L4_SHIFT


@inlined
def receive_slot(state, function, address, is_ipv4, is_udp):  # type: ignore[no-untyped-def]
    """(receive slot, RSS hash) of a plain frame: IPv4 without options, or no IP at all."""
    record = state.functions[function]
    value = 0
    if is_ipv4 and record.rss & (RSS_IPV4 | RSS_IPV4_UDP):
        table = state.toeplitz[function]
        if is_udp and record.rss & RSS_IPV4_UDP:
            value = toeplitz(table, address + ETHERNET_BYTES + IPV4_SOURCE, 12) ^ record.hash_init
        elif record.rss & RSS_IPV4:
            value = toeplitz(table, address + ETHERNET_BYTES + IPV4_SOURCE, 8) ^ record.hash_init
    return state.reta[function, value & (RETA_ENTRIES - 1)], value


@inlined
def _ask_ahead(ring, head, mask, stride, delta):  # type: ignore[no-untyped-def]
    """Ask for what later turns need: a low-latency entry, or a descriptor and the frame of a nearer one."""
    if stride > DESCRIPTOR_BYTES:
        later = ring + ((head + AHEAD) & mask) * stride
        prefetch(later)
        prefetch(later + LINE)
        return
    prefetch(ring + ((head + FAR_AHEAD) & mask) * DESCRIPTOR_BYTES)
    prefetch((load64(ring + ((head + AHEAD) & mask) * DESCRIPTOR_BYTES + 8) & ADDRESS_MASK) + delta)


@inlined
def _protocols(source, whole, front, second):  # type: ignore[no-untyped-def]
    """The protocol bits of an IPv4 frame's completion, or -1 where the general path has to look."""
    if front and front < IPV4_HEADERS:
        return -1
    packet_type, status = ipv4_status(source, whole, second)
    if packet_type < 0:
        return -1
    protocols = UDP_OVER_IPV4 if packet_type & RXD_PKTTYPE_UDP else IPV4
    return protocols | RXC_L3_BAD if status & RXD_ERR_IPE else protocols


@inlined
def _locate(entry, word0, header_at, stride, start, end, delta):  # type: ignore[no-untyped-def]
    """(bytes of the frame, where it begins, bytes pushed into the entry, where the rest is); 0 bytes: not plain.

    header_at: where pushed bytes begin in a low-latency entry of `stride` bytes.
    """
    word1 = load64(entry + 8)
    length, address = word0 & LENGTH_MASK, word1 & ADDRESS_MASK
    if length and (address < start or address > end - length):
        return 0, 0, 0, 0
    address += delta
    if stride == DESCRIPTOR_BYTES:
        return length, address, 0, 0
    front = (word1 >> TX_HEADER_SHIFT) & 0xFF
    if front < SHORTEST or front > stride - header_at:
        return 0, 0, 0, 0
    return front + length, entry + header_at, front, address


@inlined
def _offer(state, to, inbox, place, whole):  # type: ignore[no-untyped-def]
    """(address, request ID) of the buffer offered at `place` (free-running); address 0: it cannot take the frame."""
    ring, mask = inbox.ring, inbox.size - 1
    later = ring + ((place + AHEAD) & mask) * DESCRIPTOR_BYTES
    prefetch(ring + ((place + FAR_AHEAD) & mask) * DESCRIPTOR_BYTES)
    prefetch_write((load64(later + 8) & ADDRESS_MASK) + inbox.map_delta)
    entry = ring + (place & mask) * DESCRIPTOR_BYTES
    offer = load64(entry)
    room = offer & LENGTH_MASK
    if whole > (room if room else RX_WHOLE):
        return 0, 0
    buffer = buffer_address(state, to, inbox, load64(entry + 8) & ADDRESS_MASK, whole, 1)
    return buffer, (offer >> RX_ID_SHIFT) & 0xFFFF


@inlined
def _fill(buffer, source, whole, front, rest, streaming):  # type: ignore[no-untyped-def]
    """Copy a frame; 1 if it went past the caches."""
    if front == 0:
        return put_frame(buffer, source, whole, streaming)
    copy_frame(buffer, source, front)
    if whole > front:
        copy(buffer + front, rest, whole - front)
    return 0


@inlined
def _look_again(state, to, inbox, head):  # type: ignore[no-untyped-def]
    """Up to where the receiver has offered buffers, by its doorbell; less than `head`: a fault stopped it.

    Asked for when those it had offered before are used up: the line that the doorbell lies in is its driver's.
    """
    inbox.head = head
    inbox.tail = head + submitted(state, to, inbox)
    return inbox.tail


@inlined
def _show_to(state, to, inbox, first, end):  # type: ignore[no-untyped-def]
    """Hand the staged frames [first:end] to one receive queue: a completion for each, counted there."""
    ring, size, stride, posted = (
        inbox.completions,
        inbox.completion_size,
        inbox.completion_bytes,
        inbox.completed,
    )
    total = 0
    for at in range(first, end):
        word0 = state.staged[0, at]
        place = ring + (posted & (size - 1)) * stride
        store64(place + 8, state.staged[1, at])
        store64(place, word0 | phase_of(posted, size) << RXC_PHASE_SHIFT)
        total += (word0 >> RXC_LENGTH_SHIFT) & LENGTH_MASK
        posted += 1
    inbox.completed = posted
    inbox.frames += end - first
    inbox.bytes += total
    note_completion(state, to, inbox.vector)


@inlined
def _slot_of(state, at):  # type: ignore[no-untyped-def]
    """The receive queue of a staged frame."""
    return (state.staged[1, at] >> RXC_QUEUE_SHIFT) & (QUEUES - 1)


@inlined
def _show_received(state, to, count, streamed):  # type: ignore[no-untyped-def]
    """Hand the staged frames to their receive queues, behind all that was copied: those in a row together."""
    if streamed:
        stream_fence()
    first = 0
    while first < count:
        slot, end = _slot_of(state, first), first + 1
        while end < count and _slot_of(state, end) == slot:
            end += 1
        _show_to(state, to, state.rx[to * QUEUES + slot], first, end)
        first = end


@inlined
def _show_sent(state, queue, count):  # type: ignore[no-untyped-def]
    """Hand the staged completions to the sender."""
    ring, size, stride, done = (
        queue.completions,
        queue.completion_size,
        queue.completion_bytes,
        queue.completed,
    )
    for at in range(count):
        store64(
            ring + (done & (size - 1)) * stride, state.staged[2, at] | phase_of(done, size) << TXC_PHASE_SHIFT
        )
        done += 1
    queue.completed = done


@inlined
def ena_burst(state, function, number, pending, credit, metered):  # type: ignore[no-untyped-def]
    """Move up to STAGED of `pending` plain frames to one function, while there is credit (bits x 1e9).

    metered: 0 when no rate applies, else 1. Returns (descriptors taken, credit left). Completions are written behind
    the burst: the drivers that wait for them would take their lines away at each.
    """
    queue = state.tx[function * QUEUES + number]
    to = queue.to
    target = state.functions[to]
    key0, key1 = queue.key0, queue.key1
    is_ipv4 = (key1 >> 32) & 0xFFFF == IPV4_IN_KEY1
    ring, head, size = queue.ring, queue.head, queue.size
    stride, header_at = max(queue.llq_bytes, DESCRIPTOR_BYTES), queue.llq_first * DESCRIPTOR_BYTES
    start, end, delta = queue.map_start, queue.map_end, queue.map_delta
    longest = target.max_frame
    slot, value = -1, 0
    inbox = state.rx[to * QUEUES]
    in_head, in_end = 0, 0
    streaming = pending >= STREAM_FROM
    most = min(pending, STAGED)
    taken, moved, told, dropped, total, lost, streamed = 0, 0, 0, 0, 0, 0, 0
    if not target.dma:
        return 0, credit
    while taken < most and credit > 0:
        entry = ring + (head & (size - 1)) * stride
        word0 = load64(entry)
        if word0 & PLAIN_MASK != PLAIN or (word0 & TX_PHASE) >> TX_PHASE_SHIFT != phase_of(head, size):
            break
        _ask_ahead(ring, head, size - 1, stride, delta)
        whole, source, front, rest = _locate(entry, word0, header_at, stride, start, end, delta)
        if whole < SHORTEST or whole > longest:
            break
        first, second = read64(source), read64(source + 8)
        if first != key0 or second & KEY1_MASK != key1:
            break
        protocols = 0
        if is_ipv4:
            protocols = _protocols(source, whole, front, second)
            if protocols < 0:
                break
        wanted = 0
        if target.rss:
            is_udp = protocols & UDP_OVER_IPV4 == UDP_OVER_IPV4
            wanted, value = receive_slot(state, to, source, is_ipv4, is_udp)
        if wanted != slot:
            if not state.rx[to * QUEUES + wanted].on:
                break
            if slot >= 0:
                inbox.head = in_head
            slot = wanted
            inbox = state.rx[to * QUEUES + slot]
            in_head, in_end = inbox.head, inbox.tail
        if in_head >= in_end:
            in_end = _look_again(state, to, inbox, in_head)
            if in_end < in_head:
                break
        if in_head == in_end:
            dropped += 1
            lost += whole
        else:
            buffer, request = _offer(state, to, inbox, in_head, whole)
            if buffer == 0:
                break
            streamed |= _fill(buffer, source, whole, front, rest, streaming)
            put_header(buffer, first, second)
            state.staged[0, moved] = DONE | protocols | whole << RXC_LENGTH_SHIFT | request << RXC_ID_SHIFT
            state.staged[1, moved] = (value & 0xFFFFFFFF) | slot << RXC_QUEUE_SHIFT
            in_head += 1
            moved += 1
            total += whole
        if metered:
            credit -= wire_cost(whole)
        head += 1
        taken += 1
        if word0 & TX_COMPLETE:
            state.staged[2, told] = (
                request_id(word0) | number << TXC_QUEUE_SHIFT | (head & 0xFFFF) << TXC_HEAD_SHIFT
            )
            told += 1
    queue.head = head
    if told:
        _show_sent(state, queue, told)
        note_completion(state, function, queue.vector)
    if moved and target.dma:
        inbox.head = in_head
        _show_received(state, to, moved, streamed)
    elif moved:  # another of its queues had a fault that stopped it: what was copied is never shown
        state.drops[to, DISABLED] += moved
        lost += total
        moved, total = 0, 0
    if taken:
        count_burst(state, function, queue, to, taken, moved, dropped, total, lost)
    return taken, credit
