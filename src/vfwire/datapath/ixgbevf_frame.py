"""The general path: one frame, or one context, off an 82599 VF's transmit ring (82599 datasheet 7.2.3, 7.2.4).

Frames of several buffers, offloads, tags, segmentation, and the first plain frame of every flow of frames: it goes
through every check, and what it found is remembered for the fast path (ixgbevf_burst.py).
"""

from vfwire.datapath.dma import find_map, stop_function
from vfwire.datapath.ixgbevf_queues import buffer_address
from vfwire.datapath.rate import wire_cost
from vfwire.datapath.route import (
    HEADER_BYTES,
    MAC_MASK,
    VLAN_TYPE,
    choose_targets,
    hand_out,
    pick_up,
    take_tag_out,
)
from vfwire.datapath.segment import (
    CANNOT,
    FILLED,
    fill_checksums,
    segment_fields,
    segment_header,
    segment_seed,
    valid_offload,
)
from vfwire.datapath.state import GATHER, QUEUES, Drop
from vfwire.datapath.switch import pools_of_mac
from vfwire.layouts.ethernet import (
    ETHERNET_BYTES,
    ETHERNET_TYPE,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    VLAN_BYTES,
    VLAN_ID_MASK,
)
from vfwire.layouts.ixgbe_descriptors import (
    CTXD_IPLEN_MASK,
    CTXD_MACLEN_MASK,
    CTXD_MACLEN_SHIFT,
    CTXD_TUCMD_IPV4,
    CTXD_TUCMD_L4T_MASK,
    CTXD_TUCMD_L4T_SCTP,
    CTXD_TUCMD_L4T_TCP,
    RXD_STAT_IPCS,
    RXD_STAT_L4CS,
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
from vfwire.memory.unaligned import read16, read32, read64
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
def _allowed(state, function, tagged):  # type: ignore[no-untyped-def]
    """-1, or the cause for which the sender may not send this: link, VLAN, spoof check (82599 datasheet 7.10.3.9)."""
    hand, record = state.in_hand[0], state.functions[function]
    if not record.link_up:
        return LINK_IS_DOWN
    if record.port_vlan and tagged:
        return VLAN
    if hand.tag == 0 and read16(hand.header + ETHERNET_TYPE) == VLAN_TYPE:
        return VLAN  # a tag of zeros before another one, or one that is cut off: it would pass as untagged
    if record.spoof_check:
        source = read32(hand.header + 6) | (read16(hand.header + 10) << 32)
        if not (pools_of_mac(state, record.card, source) >> record.pool) & 1:
            return SPOOF
        vlan = hand.tag & VLAN_ID_MASK
        if tagged and vlan and record.vlans and not (state.vlan_pools[record.card, vlan] >> record.pool) & 1:
            return VLAN
    return -1


@inlined
def _remember(state, queue):  # type: ignore[no-untyped-def]
    """If this plain frame has one receiver that wants nothing special, the next like it takes the fast path."""
    hand = state.in_hand[0]
    to = state.targets[0]
    target = state.functions[to]
    if hand.targets != 1 or target.port_vlan or target.rss or not target.link_up or not target.dma:
        return
    if queue.head_iova:  # the fast path knows DD only
        return
    if read16(hand.header + ETHERNET_TYPE) == IPV6_TYPE:  # its checksums are looked at here only
        return
    if read64(hand.header) & 1 or (hand.link and state.cards[target.card].ring_out):
        return
    queue.key0 = read64(hand.header)
    queue.key1 = read64(hand.header + 8) & MAC_MASK
    queue.to = to


@inlined
def _offload(state, queue, index, word, l2, l3):  # type: ignore[no-untyped-def]
    """IXSM and TXSM: fill in the checksums that the frame in hand asks for. False where its lengths make no sense."""
    hand = state.in_hand[0]
    if not valid_offload(l2, l3, 0, 0, hand.header_length, hand.header_length + hand.count):
        return False
    command = queue.context_tucmd[index]
    is_ipv4 = command & CTXD_TUCMD_IPV4 != 0
    kind, protocol = command & CTXD_TUCMD_L4T_MASK, PROTOCOL_UDP
    if kind == CTXD_TUCMD_L4T_TCP:
        protocol = PROTOCOL_TCP
    elif kind == CTXD_TUCMD_L4T_SCTP:
        protocol = PROTOCOL_SCTP
    want_ip, want_l4 = is_ipv4 and word & TXD_Q1_IXSM != 0, word & TXD_Q1_TXSM != 0
    done = fill_checksums(
        hand.header,
        hand.header_length,
        l2,
        l3,
        not is_ipv4,
        protocol,
        want_ip,
        want_l4,
        True,
        state.gather[0],
        state.gather[1],
        hand.entries,
        hand.offset,
        hand.count,
    )
    if done == FILLED and want_l4:
        hand.good = RXD_STAT_L4CS | (RXD_STAT_IPCS if want_ip else 0)
    return done != CANNOT


@inlined
def _hand_out_segments(state, function, queue, index, l2, l3):  # type: ignore[no-untyped-def]
    """Send the frame in hand: as it is (index -1), or as TCP segments, each with a header of its own made in place.

    Returns (wire cost, cause or -1). One loop for both, so that the machine code of all that follows exists once.
    """
    hand = state.in_hand[0]
    header, start, payload, part = hand.header, hand.offset, hand.count, hand.count
    l4, fields, seed = 0, 0, 0
    if index >= 0:
        part, l4 = queue.context_mss[index] >> 16, (queue.context_mss[index] >> 8) & 0xFF
        total = hand.header_length + hand.count
        is_ipv6 = queue.context_tucmd[index] & CTXD_TUCMD_IPV4 == 0
        if part == 0 or not valid_offload(l2, l3, l4, part, hand.header_length, total):
            return 0, BAD_DESCRIPTOR
        fields = segment_fields(header, l2, l3, is_ipv6)
        if fields < 0:
            return 0, BAD_DESCRIPTOR
        seed, right = segment_seed(header, l2, l3, fields, True)
        start -= hand.header_length - l2 - l3 - l4
        hand.header_length = l2 + l3 + l4
        payload = total - hand.header_length
        if right:
            hand.good = RXD_STAT_L4CS | (0 if is_ipv6 else RXD_STAT_IPCS)
    sent, number, cost = 0, 0, 0
    tag_bytes = VLAN_BYTES if hand.tag else 0
    while True:
        hand.count = min(part, payload - sent)
        if index >= 0:
            addresses, lengths = state.gather[0], state.gather[1]
            segment_header(
                header, l2, l3, l4, fields, seed, number, sent, hand.count, payload, addresses, lengths,
                hand.entries, start,
            )  # fmt: skip
        hand.offset = start + sent
        hand_out(state, function)
        cost += wire_cost(hand.header_length + hand.count + tag_bytes)
        sent += hand.count
        number += 1
        if sent >= payload:
            return cost, -1


@inlined
def _transmit(state, function, queue, word, entries, total, link_credit):  # type: ignore[no-untyped-def]
    """One whole frame. Returns (wire cost, 1 if it has to wait for the link, cause or -1)."""
    record, hand = state.functions[function], state.in_hand[0]
    advanced = word & TXD_DCMD_DEXT != 0
    segmented = advanced and word & TXD_DCMD_TSE != 0
    if total < ETHERNET_BYTES:
        return 0, 0, TOO_SHORT
    if total > (LONGEST_SEGMENTED if segmented else LONGEST_FRAME):
        return 0, 0, TOO_LONG
    pick_up(state, entries, total)
    index = (word >> TXD_Q1_IDX_SHIFT) & 1
    lengths = queue.context_vlan[index]
    l2, l3 = (lengths & CTXD_MACLEN_MASK) >> CTXD_MACLEN_SHIFT, lengths & CTXD_IPLEN_MASK
    tagged = word & TXD_DCMD_VLE != 0
    if tagged:
        hand.tag = lengths >> 16 if advanced else (word >> 48) & 0xFFFF
    elif take_tag_out(state):
        tagged = True
        l2 -= VLAN_BYTES
    cause = _allowed(state, function, tagged)
    if cause >= 0:
        return 0, 0, cause
    if record.port_vlan:
        hand.tag = record.port_vlan
    choose_targets(state, record.card, record.pool)
    if hand.link and link_credit <= 0:
        return 0, 1, -1
    if not segmented:
        if advanced and word & (TXD_Q1_IXSM | TXD_Q1_TXSM):
            if not _offload(state, queue, index, word, l2, l3):
                return 0, 0, BAD_DESCRIPTOR
        elif hand.tag == 0 and entries == 1:
            _remember(state, queue)
        index = -1
    cost, cause = _hand_out_segments(state, function, queue, index, l2, l3)
    return cost, 0, cause


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
