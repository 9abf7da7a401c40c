"""The frame in hand into an ENA's receive ring: the queue by RSS, as many buffers as it takes, a completion for each.

(amzn-drivers, ena_eth_io_defs.h, rx_desc and rx_cdesc_base.) Tags stay in line. A full or disabled ring is a counted
drop, never a wait; only a buffer outside of the guest's maps stops the function.
"""

from vfwire.datapath.checksum_status import IP_GOOD, L4_BAD, L4_GOOD
from vfwire.datapath.dma import stop_function
from vfwire.datapath.ena_interrupts import note_completion
from vfwire.datapath.ena_queues import next_completion, submitted
from vfwire.datapath.ena_words import (
    ADDRESS_MASK,
    LENGTH_MASK,
    RX_ID_SHIFT,
    RX_WHOLE,
    RXC_BUFFER,
    RXC_FIRST,
    RXC_FRAGMENT,
    RXC_ID_SHIFT,
    RXC_L3_BAD,
    RXC_L4_BAD,
    RXC_L4_CHECKED,
    RXC_L4_SHIFT,
    RXC_LAST,
    RXC_LENGTH_SHIFT,
    RXC_PHASE_SHIFT,
    RXC_QUEUE_SHIFT,
)
from vfwire.datapath.in_hand import checksums, copy_range, tag_put_back
from vfwire.datapath.ixgbevf_queues import buffer_address
from vfwire.datapath.packet import KIND_FRAGMENT, KIND_IPV4, KIND_IPV6, KIND_TCP, KIND_UDP, parse_prefix
from vfwire.datapath.rss import left_out_of_hash, rss_hash
from vfwire.datapath.state import QUEUES, RETA_ENTRIES, Drop
from vfwire.layouts.ena_io import L3_PROTO_IPV4, L3_PROTO_IPV6, L4_PROTO_TCP, L4_PROTO_UDP
from vfwire.layouts.ethernet import VLAN_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read64
from vfwire.memory.words import load64, store64

MOST_BUFFERS = 16  # of one frame, as the device attributes say (max_packet_rx_descs)
NO_ROOM = int(Drop.NO_RX_DESCRIPTOR)
DISABLED = int(Drop.RX_DISABLED)
LINK_IS_DOWN = int(Drop.LINK_DOWN)
TOO_LONG = int(Drop.TOO_LONG)
BAD_DMA = int(Drop.BAD_DMA)


@inlined
def _slot_and_hash(state, function, header, kind, l2, l3):  # type: ignore[no-untyped-def]
    """(receive slot, hash) as the function's RSS has it; what is not hashed has hash 0."""
    record = state.functions[function]
    if not record.rss:
        return 0, 0
    table = state.toeplitz[function]
    value, rss_type = rss_hash(table, header, kind, l2, l3, record.rss)
    if record.hash_left_out and rss_type:
        value ^= left_out_of_hash(table, header, kind, l2, l3, record.hash_left_out)
    value = value ^ record.hash_init if rss_type else 0
    return state.reta[function, value & (RETA_ENTRIES - 1)] & (QUEUES - 1), value


@inlined
def _protocols(kind, found):  # type: ignore[no-untyped-def]
    """Status bits of a completion: protocols and checksum results (verify.py's flags in `found`)."""
    status = 0
    if kind & KIND_IPV4:
        status = L3_PROTO_IPV4
        if not found & IP_GOOD:
            status |= RXC_L3_BAD
        if kind & KIND_FRAGMENT:
            status |= RXC_FRAGMENT
    elif kind & KIND_IPV6:
        status = L3_PROTO_IPV6
    if kind & KIND_TCP:
        status |= L4_PROTO_TCP << RXC_L4_SHIFT
    elif kind & KIND_UDP:
        status |= L4_PROTO_UDP << RXC_L4_SHIFT
    if kind & (KIND_TCP | KIND_UDP) and found & (L4_GOOD | L4_BAD):
        status |= RXC_L4_CHECKED
        if found & L4_BAD:
            status |= RXC_L4_BAD
    return status


@inlined
def _offered(inbox, place):  # type: ignore[no-untyped-def]
    """(address of the descriptor, bytes of its buffer) at `place` (free-running)."""
    entry = inbox.ring + (place & (inbox.size - 1)) * 16
    length = load64(entry) & LENGTH_MASK
    return entry, length if length else RX_WHOLE


@inlined
def _buffers_for(inbox, room, total):  # type: ignore[no-untyped-def]
    """How many of the `room` offered buffers the frame takes; 0: more than there are, -1: more than a frame may."""
    left = total
    for step in range(MOST_BUFFERS):
        if step == room:
            return 0
        _, length = _offered(inbox, inbox.head + step)
        left -= length
        if left <= 0:
            return step + 1
    return -1


@inlined
def _fill(state, function, slot, inbox, header, header_length, total, buffers, status, value):  # type: ignore[no-untyped-def]
    """Write the frame into its buffers, a completion for each. False: a bad address stopped the receiver.

    A guest that shortens a descriptor meanwhile gets a frame cut short, in its own last buffer.
    """
    position = 0
    for step in range(buffers):
        entry, length = _offered(inbox, inbox.head)
        part = min(length, total - position)
        buffer = buffer_address(state, function, inbox, load64(entry + 8) & ADDRESS_MASK, part, 1)
        if buffer == 0:
            stop_function(state, function, BAD_DMA)
            return False
        copy_range(state, buffer, header, header_length, position, part)
        position += part
        request = (load64(entry) >> RX_ID_SHIFT) & 0xFFFF
        inbox.head += 1
        place, phase = next_completion(inbox)
        word0 = status | RXC_BUFFER | phase << RXC_PHASE_SHIFT | part << RXC_LENGTH_SHIFT
        if step == 0:
            word0 |= RXC_FIRST
        if step == buffers - 1:
            word0 |= RXC_LAST
        store64(place + 8, value | slot << RXC_QUEUE_SHIFT)
        store64(place, word0 | request << RXC_ID_SHIFT)
    return True


@inlined
def ena_deliver(state, function):  # type: ignore[no-untyped-def]
    """Copy the frame in hand (state.IN_HAND) to an ENA `function`, or count why not."""
    hand, record = state.in_hand[0], state.functions[function]
    if not record.link_up or record.dma == 0:
        state.drops[function, DISABLED if record.link_up else LINK_IS_DOWN] += 1
        return
    header, header_length, longest = hand.header, hand.header_length, record.max_frame
    kind, l2, l3, _, protocol, l4_bytes = parse_prefix(header, header_length, header_length + hand.count)
    slot, value = _slot_and_hash(state, function, header, kind, l2, l3)
    inbox = state.rx[function * QUEUES + slot]
    room = submitted(state, function, inbox) if inbox.on else -1
    if room < 0:
        state.drops[function, DISABLED] += 1
        return
    group = read64(header) & 1
    status = _protocols(kind, checksums(state, kind, l2, l3, protocol, l4_bytes))
    if hand.tag and not record.port_vlan:
        header = tag_put_back(header, header_length, hand.tag)
        header_length += VLAN_BYTES
        longest += VLAN_BYTES
    total = header_length + hand.count
    buffers = _buffers_for(inbox, room, total)
    if total > longest or buffers <= 0:
        state.drops[function, NO_ROOM if buffers == 0 and total <= longest else TOO_LONG] += 1
        return
    if not _fill(state, function, slot, inbox, header, header_length, total, buffers, status, value):
        return
    inbox.frames += 1
    inbox.bytes += total
    record.rx_frames += 1
    record.rx_bytes += total
    record.copied += total
    record.rx_multicast += group
    note_completion(state, function, inbox.vector)
