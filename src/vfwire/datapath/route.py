"""From one frame to its receivers: through the switch, over the link, with tags as each side wants them.

The frame in hand (state.IN_HAND) is a private header without any 802.1Q tag, a tag, and the rest of it as a range of
the gather list, still in the sender's memory. It is copied once, into each receiver.
"""

from vfwire.datapath.allowance import pay_out, refused_in
from vfwire.datapath.deliver import deliver
from vfwire.datapath.ena_deliver import ena_deliver
from vfwire.datapath.in_hand import VLAN_TYPE
from vfwire.datapath.link import link_peek, link_push, link_release
from vfwire.datapath.recorder import RECEIVED, RECORD_FRAMES, SENT, record_frame
from vfwire.datapath.segment import gather_copy
from vfwire.datapath.state import MODEL_ENA, Drop
from vfwire.datapath.switch import destinations
from vfwire.layouts.ethernet import ETHERNET_BYTES, VLAN_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read16, read32, read64, write32, write64

MAC_MASK = (1 << 48) - 1
HEADER_BYTES = 192  # of a frame that are copied privately: every header that offloads touch, and more
TAG_ROOM = 64  # the scratch begins here, so that a tag's removal can move the addresses up
FROM_UPLINK = -1
LINK_IS_DOWN = int(Drop.LINK_DOWN)
LINK_IS_FULL = int(Drop.LINK_FULL)
NO_DESTINATION = int(Drop.NO_DESTINATION)
LINK_BURST = 64


@inlined
def pick_up(state, entries, total):  # type: ignore[no-untyped-def]
    """Take the gather list's frame in hand: copy its first bytes to the scratch, out of the sender's reach."""
    hand = state.in_hand[0]
    hand.header = state.control[0].header + TAG_ROOM
    hand.header_length = min(total, HEADER_BYTES)
    hand.entries = entries
    hand.offset = hand.header_length
    hand.count = total - hand.header_length
    hand.tag = 0
    hand.good = 0
    hand.asked = 0
    hand.mss = 0
    gather_copy(hand.header, state.gather[0], state.gather[1], entries, 0, hand.header_length)


@inlined
def take_tag_out(state):  # type: ignore[no-untyped-def]
    """If the header has an 802.1Q tag, move the addresses over it and keep it apart. Returns whether it had one."""
    hand = state.in_hand[0]
    header = hand.header
    if hand.header_length < ETHERNET_BYTES + VLAN_BYTES or read16(header + 12) != VLAN_TYPE:
        return False
    tag = read16(header + 14)
    first, second = read64(header), read32(header + 8)
    write64(header + VLAN_BYTES, first)
    write32(header + VLAN_BYTES + 8, second)
    hand.tag = ((tag & 0xFF) << 8) | (tag >> 8)
    hand.header = header + VLAN_BYTES
    hand.header_length -= VLAN_BYTES
    return True


@inlined
def _add_targets(state, card, pools):  # type: ignore[no-untyped-def]
    hand = state.in_hand[0]
    record = state.cards[card]
    for pool in range(record.functions):
        if (pools >> pool) & 1:
            state.targets[hand.targets] = record.first + pool
            hand.targets += 1


@inlined
def choose_targets(state, card, pool):  # type: ignore[no-untyped-def]
    """List the functions that the frame in hand goes to. pool: the sender's on `card`, FROM_UPLINK for the link."""
    hand = state.in_hand[0]
    hand.targets = 0
    hand.link = 0
    to = read64(hand.header) & MAC_MASK
    pools, known = destinations(state, card, pool, to, hand.tag)
    _add_targets(state, card, pools)
    record = state.cards[card]
    if pool == FROM_UPLINK:
        if pools == 0:
            record.unknown += 1
        return
    if not known and (record.peer >= 0 or record.ring_out):
        hand.link = 1
        if record.peer >= 0 and record.link_up:
            pools, _ = destinations(state, record.peer, FROM_UPLINK, to, hand.tag)
            _add_targets(state, record.peer, pools)


@inlined
def hand_out(state, function):  # type: ignore[no-untyped-def]
    """Copy the frame in hand to all targets, and to the link's other process. function: the sender, -1 for the link."""
    hand = state.in_hand[0]
    for number in range(hand.targets):
        to = state.targets[number]
        if state.functions[to].metered and refused_in(state, to):
            continue
        target = state.functions[to]
        before = target.rx_frames
        if target.model == MODEL_ENA:
            ena_deliver(state, to)
        else:
            deliver(state, to)
        if target.recorded & RECORD_FRAMES and target.rx_frames != before:
            record_frame(state, RECEIVED, to)
    if function < 0:
        return
    record = state.functions[function]
    length = hand.header_length + hand.count
    if record.metered:
        pay_out(state, function, length)
    record.tx_frames += 1
    record.tx_bytes += length
    if record.recorded & RECORD_FRAMES:
        record_frame(state, SENT, function)
    card = state.cards[record.card]
    if hand.link == 0:
        card.loopback += 1
    elif not card.link_up:
        state.drops[function, LINK_IS_DOWN] += 1
        return
    else:
        card.link_frames += 1
        card.link_bytes += length
        if card.ring_out:
            if link_push(state, card.ring_out):
                record.copied += length
            else:
                state.drops[function, LINK_IS_FULL] += 1
            return
        state.cards[card.peer].link_in_frames += 1
    if hand.targets == 0:
        state.drops[function, NO_DESTINATION] += 1


@inlined
def from_link(state, card):  # type: ignore[no-untyped-def]
    """Take the next frame of another process's card in hand. Returns the ring's read position behind it, -1 for none.

    A ring that makes no sense takes the link down.
    """
    record = state.cards[card]
    address, length, tag, after = link_peek(record.ring_in)
    if length < 0:
        record.ring_in = 0
        record.link_up = 0
    if length <= 0:
        return -1
    state.gather[0, 0] = address
    state.gather[1, 0] = length
    pick_up(state, 1, length)
    if tag or not take_tag_out(state):
        state.in_hand[0].tag = tag
    choose_targets(state, card, FROM_UPLINK)
    record.link_in_frames += 1
    return after


@inlined
def receive_from_link(state, card):  # type: ignore[no-untyped-def]
    """Take up to LINK_BURST frames from another process's card."""
    taken = 0
    while taken < LINK_BURST and state.cards[card].ring_in:
        after = from_link(state, card)
        if after < 0:
            return taken
        hand_out(state, -1)
        link_release(state.cards[card].ring_in, after)
        taken += 1
    return taken
