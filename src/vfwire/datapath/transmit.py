"""One frame in hand, whatever model sent it: may it go, where to, and with which checksums and in which segments.

A model's general path (ixgbevf_frame.py, ena_frame.py) reads descriptors and takes the frame in hand with the offloads
that they ask for (state.IN_HAND); from there on all models are alike.
"""

from vfwire.datapath.allowance import refused_out
from vfwire.datapath.checksum_status import IP_GOOD, L4_GOOD
from vfwire.datapath.in_hand import VLAN_TYPE
from vfwire.datapath.rate import wire_cost
from vfwire.datapath.recorder import RECORD_FRAMES
from vfwire.datapath.route import MAC_MASK, choose_targets, hand_out
from vfwire.datapath.segment import (
    CANNOT,
    FILLED,
    fill_checksums,
    segment_fields,
    segment_header,
    segment_seed,
    valid_offload,
)
from vfwire.datapath.state import MODEL_82599, Drop
from vfwire.datapath.switch import pools_of_mac
from vfwire.layouts.ethernet import ETHERNET_TYPE, VLAN_BYTES, VLAN_ID_MASK
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read16, read32, read64

BAD_DESCRIPTOR = int(Drop.BAD_DESCRIPTOR)
ALLOWANCE = int(Drop.ALLOWANCE)
SPOOF = int(Drop.SPOOF)
VLAN = int(Drop.VLAN)
LINK_IS_DOWN = int(Drop.LINK_DOWN)
MOST_COPIES = 1 << 15  # of one descriptor's segments, all receivers together: all wait for the loop meanwhile
IPV6_TYPE = 0xDD86  # EtherType 0x86DD as a little-endian word


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
def _remember(state, function, queue):  # type: ignore[no-untyped-def]
    """If this plain frame has one receiver that wants nothing special, the next like it takes the fast path."""
    hand = state.in_hand[0]
    to = state.targets[0]
    target = state.functions[to]
    if target.metered or state.functions[function].metered:
        return
    if hand.targets != 1 or target.port_vlan or not target.link_up or not target.dma:
        return
    if target.model != state.functions[function].model or (target.rss and target.model == MODEL_82599):
        return
    if (target.recorded | state.functions[function].recorded) & RECORD_FRAMES:
        return  # the fast path takes no notes
    if target.hash_left_out:
        return  # it hashes whole addresses and ports
    if read16(hand.header + ETHERNET_TYPE) == IPV6_TYPE:  # its checksums are looked at here only
        return
    if read64(hand.header) & 1 or (hand.link and state.cards[target.card].ring_out):
        return
    queue.key0 = read64(hand.header)
    queue.key1 = read64(hand.header + 8) & MAC_MASK
    queue.to = to


@inlined
def _fill(state):  # type: ignore[no-untyped-def]
    """Fill in the checksums that the frame in hand asks for. False where its lengths make no sense."""
    hand = state.in_hand[0]
    if not valid_offload(hand.l2, hand.l3, 0, 0, hand.header_length, hand.header_length + hand.count):
        return False
    done = fill_checksums(
        hand.header,
        hand.header_length,
        hand.l2,
        hand.l3,
        hand.is_ipv6 != 0,
        hand.protocol,
        hand.fill_l3 != 0,
        hand.fill_l4 != 0,
        hand.seeded != 0,
        state.gather[0],
        state.gather[1],
        hand.entries,
        hand.offset,
        hand.count,
    )
    if done == FILLED and hand.fill_l4:
        hand.good = L4_GOOD | (IP_GOOD if hand.fill_l3 else 0)
    return done != CANNOT


@inlined
def _hand_out_segments(state, function):  # type: ignore[no-untyped-def]
    """Send the frame in hand: as it is, or as TCP segments, each with a header of its own made in place.

    Returns (wire cost, cause or -1). One loop for both, so that the machine code of all that follows exists once.
    """
    hand = state.in_hand[0]
    header, start, payload, part = hand.header, hand.offset, hand.count, hand.count
    l2, l3, l4, fields, seed = hand.l2, hand.l3, hand.l4, 0, 0
    if hand.mss:
        part = hand.mss
        total = hand.header_length + hand.count
        if not valid_offload(l2, l3, l4, part, hand.header_length, total):
            return 0, BAD_DESCRIPTOR
        fields = segment_fields(header, l2, l3, hand.is_ipv6 != 0)
        if fields < 0:
            return 0, BAD_DESCRIPTOR
        seed, right = segment_seed(header, l2, l3, fields, hand.seeded != 0)
        start -= hand.header_length - l2 - l3 - l4
        hand.header_length = l2 + l3 + l4
        payload = total - hand.header_length
        if (payload // part) * hand.targets > MOST_COPIES:
            return 0, BAD_DESCRIPTOR
        if right:
            hand.good = L4_GOOD | (0 if hand.is_ipv6 else IP_GOOD)
    sent, number, cost = 0, 0, 0
    tag_bytes = VLAN_BYTES if hand.tag else 0
    while True:
        hand.count = min(part, payload - sent)
        if hand.mss:
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
def transmit(state, function, queue, tagged, plain, link_credit):  # type: ignore[no-untyped-def]
    """The frame in hand, with its offloads, to all who get it.

    tagged: it has a tag of the sender's. plain: without offloads, and another like it may take the fast path.
    Returns (wire cost, 1 if it has to wait for the link, cause or -1).
    """
    record, hand = state.functions[function], state.in_hand[0]
    cause = _allowed(state, function, tagged)
    if cause >= 0:
        return 0, 0, cause
    if record.port_vlan:
        hand.tag = record.port_vlan
    if record.metered and refused_out(state, function):
        return 0, 0, ALLOWANCE
    choose_targets(state, record.card, record.pool)
    if hand.link and link_credit <= 0:
        return 0, 1, -1
    if plain and hand.tag == 0:
        _remember(state, function, queue)
    elif hand.asked and hand.mss == 0 and not _fill(state):
        return 0, 0, BAD_DESCRIPTOR
    cost, cause = _hand_out_segments(state, function)
    return cost, 0, cause
