"""The ENA's fast path: bursts of plain frames from one transmit queue to the ENA that the last frame went to.

Plain: one descriptor, no offload, no tag; in a low-latency queue, one entry. As for the 82599 (ixgbevf_burst.py), the
first 14 bytes are fetched once, compared with those of the last frame that passed every check, and written over the
copy. Each frame costs the descriptors of both sides and a completion to each. Anything else falls out to the general
path (ena_frame.py).
"""

from vfwire.datapath.ena_interrupts import note_completion
from vfwire.datapath.ena_queues import submitted
from vfwire.datapath.ena_words import (
    ADDRESS_MASK,
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
from vfwire.datapath.ixgbevf_burst import IPV4_IN_KEY1, KEY1_MASK, copy_frame, count_burst, ipv4_status
from vfwire.datapath.ixgbevf_queues import buffer_address
from vfwire.datapath.rate import wire_cost
from vfwire.datapath.rss import RSS_IPV4, RSS_IPV4_UDP, toeplitz
from vfwire.datapath.state import QUEUES, RETA_ENTRIES
from vfwire.layouts.ena_io import L3_PROTO_IPV4, L4_PROTO_UDP
from vfwire.layouts.ethernet import ETHERNET_BYTES, IPV4_SOURCE
from vfwire.layouts.ixgbe_descriptors import RXD_ERR_IPE, RXD_PKTTYPE_UDP
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read64, write16, write32, write64
from vfwire.memory.words import copy, load64, prefetch, prefetch_write, store64

PLAIN_MASK = TX_META | TX_FIRST | TX_LAST | TX_OFFLOADS
PLAIN = TX_FIRST | TX_LAST
AHEAD = 8
SHORTEST = 17
IPV4_HEADERS = 42  # bytes that must lie together for `ipv4_status`
DONE = RXC_FIRST | RXC_LAST | RXC_BUFFER
IPV4 = L3_PROTO_IPV4
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
def ena_burst(state, function, number, pending, credit, metered):  # type: ignore[no-untyped-def]
    """Move up to `pending` plain frames to one receive queue, while there is credit (bits x 1e9).

    metered: 0 when no rate applies, else 1. Returns (descriptors taken, credit left).
    """
    queue = state.tx[function * QUEUES + number]
    to = queue.to
    target = state.functions[to]
    key0, key1 = queue.key0, queue.key1
    ring, head, mask, stride = queue.ring, queue.head, queue.size - 1, queue.llq_bytes
    pushed = stride != 0
    header_at = queue.llq_first * 16
    if not pushed:
        stride = 16
    room_for_header = stride - header_at
    start, end, delta = queue.map_start, queue.map_end, queue.map_delta
    sent_ring, sent_mask, sent_stride = queue.completions, queue.completion_size - 1, queue.completion_bytes
    sent = queue.completed
    spread = target.rss
    slot, value = 0, 0
    inbox = state.rx[to * QUEUES]
    in_head, in_end, posted = 0, 0, 0
    longest = target.max_frame
    is_ipv4 = (key1 >> 32) & 0xFFFF == IPV4_IN_KEY1
    chosen = False
    taken, moved, dropped, total, lost, told = 0, 0, 0, 0, 0, 0
    if not target.dma:
        return 0, credit
    while taken < pending and credit > 0:
        entry = ring + (head & mask) * stride
        word0 = load64(entry)
        word1 = load64(entry + 8)
        phase = phase_of(head, mask + 1)
        if word0 & PLAIN_MASK != PLAIN or (word0 & TX_PHASE) >> TX_PHASE_SHIFT != phase:
            break
        length = word0 & LENGTH_MASK
        address = word1 & ADDRESS_MASK
        front = 0
        if pushed:
            front = (word1 >> TX_HEADER_SHIFT) & 0xFF
            if front < SHORTEST or front > room_for_header:
                break
            prefetch(entry + AHEAD * stride)
            prefetch(entry + AHEAD * stride + 64)
        else:
            prefetch((load64(ring + ((head + AHEAD) & mask) * 16 + 8) & ADDRESS_MASK) + delta)
        if length and (address < start or address > end - length):
            break
        address += delta
        whole = front + length
        source = address
        if front:
            source = entry + header_at
        if whole < SHORTEST or whole > longest:
            break
        first, second = read64(source), read64(source + 8)
        if first != key0 or second & KEY1_MASK != key1:
            break
        protocols = 0
        if is_ipv4:
            if front and front < IPV4_HEADERS:
                break
            packet_type, status = ipv4_status(source, whole, second)
            if packet_type < 0:
                break
            protocols = UDP_OVER_IPV4 if packet_type & RXD_PKTTYPE_UDP else IPV4
            if status & RXD_ERR_IPE:
                protocols |= RXC_L3_BAD
        if spread:
            wanted, value = receive_slot(
                state, to, source, is_ipv4, protocols & UDP_OVER_IPV4 == UDP_OVER_IPV4
            )
            if chosen and wanted != slot:
                break
            slot = wanted
        if not chosen:
            chosen = True
            inbox = state.rx[to * QUEUES + slot]
            if not inbox.on:
                break
            in_head, posted = inbox.head, inbox.completed
            in_end = in_head
        if in_head == in_end:
            inbox.head = in_head
            room = submitted(state, to, inbox)
            if room < 0:
                break
            in_end = in_head + room
        if in_head == in_end:
            dropped += 1
            lost += whole
        else:
            in_ring, in_mask = inbox.ring, inbox.size - 1
            in_entry = in_ring + (in_head & in_mask) * 16
            prefetch_write(
                (load64(in_ring + ((in_head + AHEAD) & in_mask) * 16 + 8) & ADDRESS_MASK) + inbox.map_delta
            )
            offer = load64(in_entry)
            room = offer & LENGTH_MASK
            if room == 0:
                room = RX_WHOLE
            if whole > room:
                break
            buffer = buffer_address(state, to, inbox, load64(in_entry + 8) & ADDRESS_MASK, whole, 1)
            if buffer == 0:
                break
            if front:
                copy_frame(buffer, source, front)
                if length:
                    copy(buffer + front, address, length)
            else:
                copy_frame(buffer, source, whole)
            write64(buffer, first)
            write32(buffer + 8, second)
            write16(buffer + 12, second >> 32)
            place = inbox.completions + (posted & (inbox.completion_size - 1)) * inbox.completion_bytes
            lap = phase_of(posted, inbox.completion_size)
            store64(place + 8, (value & 0xFFFFFFFF) | slot << RXC_QUEUE_SHIFT)
            ident = (offer >> RX_ID_SHIFT) & 0xFFFF
            store64(
                place,
                DONE | protocols | lap << RXC_PHASE_SHIFT | whole << RXC_LENGTH_SHIFT | ident << RXC_ID_SHIFT,
            )
            posted += 1
            in_head += 1
            moved += 1
            total += whole
        if metered:
            credit -= wire_cost(whole)
        head += 1
        taken += 1
        if word0 & TX_COMPLETE:
            lap = phase_of(sent, sent_mask + 1)
            store64(
                sent_ring + (sent & sent_mask) * sent_stride,
                request_id(word0)
                | lap << TXC_PHASE_SHIFT
                | number << TXC_QUEUE_SHIFT
                | (head & 0xFFFF) << TXC_HEAD_SHIFT,
            )
            sent += 1
            told = 1
    queue.head = head
    queue.completed = sent
    if told:
        note_completion(state, function, queue.vector)
    if chosen and inbox.on:
        inbox.head = in_head
        inbox.completed = posted
        if moved:
            note_completion(state, to, inbox.vector)
    if taken:
        count_burst(state, function, queue, to, inbox, taken, moved, dropped, total, lost)
    return taken, credit
