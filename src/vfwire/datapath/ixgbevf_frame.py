"""The general path: one frame, or one context, off an 82599 VF's transmit ring (82599 datasheet 7.2.3, 7.2.4).

Frames of several buffers, offloads, tags, segmentation, and the first plain frame of every flow of frames: it goes
through every check, and what it found is remembered for the fast path (ixgbevf_burst.py).
"""

from vfwire.datapath.dma import find_map, stop_function
from vfwire.datapath.ixgbevf_queues import buffer_address
from vfwire.datapath.route import (
    HEADER_BYTES,
    pick_up,
    take_tag_out,
)
from vfwire.datapath.state import GATHER, QUEUES, Drop
from vfwire.datapath.transmit import transmit
from vfwire.layouts.ethernet import (
    ETHERNET_BYTES,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    VLAN_BYTES,
)
from vfwire.layouts.ixgbe_descriptors import (
    CTXD_IPLEN_MASK,
    CTXD_MACLEN_MASK,
    CTXD_MACLEN_SHIFT,
    CTXD_TUCMD_IPV4,
    CTXD_TUCMD_L4T_MASK,
    CTXD_TUCMD_L4T_SCTP,
    CTXD_TUCMD_L4T_TCP,
    TXD_DCMD_DEXT,
    TXD_DCMD_EOP,
    TXD_DCMD_RS,
    TXD_DCMD_TSE,
    TXD_DCMD_VLE,
    TXD_DTALEN_MASK,
    TXD_DTYP_CTXT,
    TXD_DTYP_MASK,
    TXD_Q1_DD,
    TXD_Q1_IDX_SHIFT,
    TXD_Q1_IXSM,
    TXD_Q1_TXSM,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.words import load64, store32, store64

LONGEST_FRAME = 15_872  # bytes: what an 82599 sends without segmentation (15.5 KB, datasheet 1.3)
LONGEST_SEGMENTED = 0x3FFFF + HEADER_BYTES  # PAYLEN's 18 bits
CHAIN_TOO_LONG = int(Drop.CHAIN_TOO_LONG)
BAD_DMA = int(Drop.BAD_DMA)
BAD_DESCRIPTOR = int(Drop.BAD_DESCRIPTOR)
TOO_SHORT = int(Drop.TOO_SHORT)
TOO_LONG = int(Drop.TOO_LONG)
SPOOF = int(Drop.SPOOF)
VLAN = int(Drop.VLAN)
LINK_IS_DOWN = int(Drop.LINK_DOWN)
NOTHING = (0, 0, 0, 0)
IPV6_TYPE = 0xDD86  # EtherType 0x86DD as a little-endian word


@inlined
def _next(queue, place):  # type: ignore[no-untyped-def]
    return place + 1 if place + 1 < queue.size else 0


@inlined
def _gather(state, function, queue, pending):  # type: ignore[no-untyped-def]
    """Collect a frame's buffers. Returns (descriptors, entries, total bytes, first qword1, cause or -1).

    descriptors 0: the frame's end is not there yet. A chain longer than any frame stops the function.
    """
    place, entries, total, cause = queue.head, 0, 0, -1
    first = 0
    for step in range(min(pending, GATHER)):
        entry = queue.ring + place * 16
        word1 = load64(entry + 8)
        if step == 0:
            first = word1
        length = word1 & TXD_DTALEN_MASK
        if length:
            address = buffer_address(state, function, queue, load64(entry), length, 0)
            if address == 0:
                cause = BAD_DMA
            state.gather[0, entries] = address
            state.gather[1, entries] = length
            entries += 1
            total += length
        if word1 & TXD_DCMD_EOP:
            return step + 1, entries, total, first, cause
        place = _next(queue, place)
    if pending >= GATHER or pending >= queue.size - 1:
        stop_function(state, function, CHAIN_TOO_LONG)
    return 0, 0, 0, 0, -1


@inlined
def _write_head_back(state, function, queue):  # type: ignore[no-untyped-def]
    """The head into the guest's memory, where VFTDWBAL and VFTDWBAH say, if that may be written."""
    if find_map(state, function, queue, queue.head_iova, 4, 1):
        store32(queue.head_iova + queue.map_delta, queue.head)


@inlined
def _finish(state, function, queue, descriptors):  # type: ignore[no-untyped-def]
    """Step over the frame's descriptors and report where it was asked for (RS): DD in the descriptor, or the head.
    Returns 1 if it was."""
    asked = 0
    for _ in range(descriptors):
        entry = queue.ring + queue.head * 16
        if load64(entry + 8) & TXD_DCMD_RS:
            if not queue.head_iova:
                store64(entry + 8, TXD_Q1_DD)
            asked = 1
        queue.head = _next(queue, queue.head)
    if asked and queue.head_iova:
        _write_head_back(state, function, queue)
    return asked


@inlined
def _take_context(queue, word1):  # type: ignore[no-untyped-def]
    """Keep a context descriptor under its index; an 82599 queue has two (datasheet 7.2.3.2.3)."""
    word0 = load64(queue.ring + queue.head * 16)
    index = (word1 >> TXD_Q1_IDX_SHIFT) & 1
    queue.context_vlan[index] = word0 & 0xFFFFFFFF
    queue.context_tucmd[index] = word1 & 0xFFFFFFFF
    queue.context_mss[index] = (word1 >> 32) & 0xFFFFFFFF


@inlined
def _ask(queue, hand, word, l2, l3):  # type: ignore[no-untyped-def]
    """What an advanced descriptor and its context ask for, in the frame in hand's terms. Returns whether anything."""
    segmented = word & TXD_DCMD_TSE != 0
    hand.asked = 1 if segmented or word & (TXD_Q1_IXSM | TXD_Q1_TXSM) else 0
    if not hand.asked:
        return False
    index = (word >> TXD_Q1_IDX_SHIFT) & 1
    command, sizes = queue.context_tucmd[index], queue.context_mss[index]
    hand.l2, hand.l3, hand.l4 = l2, l3, (sizes >> 8) & 0xFF
    hand.mss = max(sizes >> 16, 1) if segmented else 0
    hand.is_ipv6 = 0 if command & CTXD_TUCMD_IPV4 else 1
    kind, hand.protocol = command & CTXD_TUCMD_L4T_MASK, PROTOCOL_UDP
    if kind == CTXD_TUCMD_L4T_TCP:
        hand.protocol = PROTOCOL_TCP
    elif kind == CTXD_TUCMD_L4T_SCTP:
        hand.protocol = PROTOCOL_SCTP
    hand.fill_l3 = 1 if word & TXD_Q1_IXSM and not hand.is_ipv6 else 0
    hand.fill_l4 = 1 if word & TXD_Q1_TXSM else 0
    hand.seeded = 1
    return True


@inlined
def _transmit(state, function, queue, word, entries, total, link_credit):  # type: ignore[no-untyped-def]
    """One whole frame. Returns (wire cost, 1 if it has to wait for the link, cause or -1)."""
    hand = state.in_hand[0]
    advanced = word & TXD_DCMD_DEXT != 0
    if total < ETHERNET_BYTES:
        return 0, 0, TOO_SHORT
    if total > (LONGEST_SEGMENTED if advanced and word & TXD_DCMD_TSE else LONGEST_FRAME):
        return 0, 0, TOO_LONG
    pick_up(state, entries, total)
    lengths = queue.context_vlan[(word >> TXD_Q1_IDX_SHIFT) & 1]
    l2, l3 = (lengths & CTXD_MACLEN_MASK) >> CTXD_MACLEN_SHIFT, lengths & CTXD_IPLEN_MASK
    tagged = word & TXD_DCMD_VLE != 0
    if tagged:
        hand.tag = lengths >> 16 if advanced else (word >> 48) & 0xFFFF
    elif take_tag_out(state):
        tagged = True
        l2 -= VLAN_BYTES
    asked = advanced and _ask(queue, hand, word, l2, l3)
    plain = not asked and entries == 1 and not queue.head_iova  # the fast path knows DD only
    return transmit(state, function, queue, tagged, plain, link_credit)


@inlined
def take_descriptors(state, function, number, pending, link_credit):  # type: ignore[no-untyped-def]
    """One context or frame off the ring. Returns (descriptors taken, wire cost, cost on the link, completion asked).

    0 taken: the frame is not whole yet, the link has no credit for it, or the function was stopped.
    """
    queue = state.tx[function * QUEUES + number]
    word1 = load64(queue.ring + queue.head * 16 + 8)
    if word1 & TXD_DCMD_DEXT and word1 & TXD_DTYP_MASK == TXD_DTYP_CTXT:
        _take_context(queue, word1)
        return 1, 0, 0, _finish(state, function, queue, 1)
    descriptors, entries, total, first, cause = _gather(state, function, queue, pending)
    if descriptors == 0:
        return NOTHING
    cost, wait = 0, 0
    if cause < 0:
        cost, wait, cause = _transmit(state, function, queue, first, entries, total, link_credit)
        if wait:
            return NOTHING
    if cause >= 0:
        state.drops[function, cause] += 1
    else:
        queue.frames += 1
        queue.bytes += total
    asked = _finish(state, function, queue, descriptors)
    return descriptors, cost, cost if state.in_hand[0].link else 0, asked
