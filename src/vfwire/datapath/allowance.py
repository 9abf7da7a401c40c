"""What EC2 allows an instance: bandwidth each way, packets a second both ways together, tracked connections, and
packets to link-local services for each interface (AWS, "Monitor network performance for ENA settings on your EC2
instance").

What exceeds bandwidth or packets on the way out waits in the sender's ring (queued); on the way in it is dropped; both
are counted as exceeded. Connection tracking and link-local drop. Bits are counted as on the wire, as line rates are.
A function under an allowance takes the general path, frame by frame.
"""

from typing import Any

from vfwire.datapath.conntrack import flow_of, forget_some, track
from vfwire.datapath.packet import KIND_IPV4, parse_prefix
from vfwire.datapath.rate import wire_cost
from vfwire.datapath.state import NOWHERE, CardState, Drop
from vfwire.datapath.switch import forget_paths
from vfwire.layouts.ethernet import IPV4_DESTINATION, IPV4_SOURCE
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read32

HELD_BY_NOTHING, HELD_BY_PPS, HELD_BY_BANDWIDTH = 0, 1, 2
LIMITS = ("bw_in_bps", "bw_out_bps", "burst_bits", "pps", "conntrack_most")
LARGEST_BURST = 4_000_000_000  # bits: credits stay far below 2**63
_PPS_BURST_NS = 1_000_000  # of packets that may pile up
_LONGEST_NS = 10_000_000
_PACKET = 1_000_000_000
_LINK_LOCAL = 0xFEA9  # 169.254.0.0/16, as the little-endian word that a frame begins its address with
_ALLOWANCE = int(Drop.ALLOWANCE)


def set_allowance(
    state: CardState, row: int, functions: list[int], limits: dict[str, int], linklocal_pps: int = 0
) -> None:
    """Make `functions` one instance, row `row`, with LIMITS (0 or missing: none), while the loop is parked.

    linklocal_pps: of each of the functions. No limits at all: the functions are free again.
    """
    instance = state.instances[row]
    for name in instance.dtype.names:
        instance[name] = 0
    for name in LIMITS:
        instance[name] = limits.get(name, 0)
    instance["burst_bits"] = min(int(instance["burst_bits"]), LARGEST_BURST)
    state.connections[row] = 0
    limited = any(limits.values()) or linklocal_pps > 0
    for function in functions:
        record: Any = state.functions[function]
        record.metered, record.instance = int(limited), row if limited else NOWHERE
        record.linklocal_pps, record.linklocal_credit, record.linklocal_exceeded = linklocal_pps, 0, 0
    forget_paths(state)


@inlined
def _refill(credit, rate, passed, most):  # type: ignore[no-untyped-def]
    return min(credit + rate * passed, max(most, _PACKET))


@inlined
def top_up_allowances(state, function, now):  # type: ignore[no-untyped-def]
    """Credits of a metered function and of its instance, once a round for each."""
    record = state.functions[function]
    instance = state.instances[record.instance]
    passed = min(now - instance.now, _LONGEST_NS)
    if passed > 0:
        instance.now = now
        if instance.conntrack_most:
            forget_some(state, record.instance)
        burst = max(instance.burst_bits * _PACKET, 0)
        for_in, for_out = instance.bw_in_bps * 100_000, instance.bw_out_bps * 100_000
        instance.in_credit = _refill(instance.in_credit, instance.bw_in_bps, passed, max(burst, for_in))
        instance.out_credit = _refill(instance.out_credit, instance.bw_out_bps, passed, max(burst, for_out))
        pile = instance.pps * _PPS_BURST_NS
        instance.pps_credit = _refill(instance.pps_credit, instance.pps, passed, pile)
        first = state.cards[record.card].first
        for other in range(first, first + state.cards[record.card].functions):
            near = state.functions[other]
            if near.metered and near.instance == record.instance and near.linklocal_pps:
                pile = near.linklocal_pps * _PPS_BURST_NS * 100
                near.linklocal_credit = _refill(near.linklocal_credit, near.linklocal_pps, passed, pile)


@inlined
def held_by(state, function):  # type: ignore[no-untyped-def]
    """HELD_BY_*: what a metered function's next frame has to wait for."""
    instance = state.instances[state.functions[function].instance]
    if instance.pps and instance.pps_credit <= 0:
        return HELD_BY_PPS
    if instance.bw_out_bps and instance.out_credit <= 0:
        return HELD_BY_BANDWIDTH
    return HELD_BY_NOTHING


@inlined
def count_queued(state, function, queue, taken, sent):  # type: ignore[no-untyped-def]
    """`taken` descriptors are done; if a frame was sent with them that had waited for an allowance, it is counted."""
    if queue.held <= 0:
        return
    queue.held -= taken
    if not sent:
        return
    instance = state.instances[state.functions[function].instance]
    instance.queued += 1
    if queue.held_by == HELD_BY_PPS:
        instance.pps_exceeded += 1
    else:
        instance.bw_out_exceeded += 1


@inlined
def pay_out(state, function, length):  # type: ignore[no-untyped-def]
    """A packet of `length` bytes leaves a metered function."""
    instance = state.instances[state.functions[function].instance]
    instance.pps_credit -= _PACKET
    instance.out_credit -= wire_cost(length)


@inlined
def _refused(state, function):  # type: ignore[no-untyped-def]
    """Whether connection tracking or the link-local limit drops the frame in hand, on its way out or in; counted."""
    hand, record = state.in_hand[0], state.functions[function]
    instance = state.instances[record.instance]
    if not instance.conntrack_most and not record.linklocal_pps:
        return False
    header = hand.header
    kind, l2, l3, _, _, _ = parse_prefix(header, hand.header_length, hand.header_length + hand.count)
    if record.linklocal_pps and kind & KIND_IPV4:
        source = read32(header + l2 + IPV4_SOURCE) & 0xFFFF
        if source == _LINK_LOCAL or read32(header + l2 + IPV4_DESTINATION) & 0xFFFF == _LINK_LOCAL:
            if record.linklocal_credit <= 0:
                record.linklocal_exceeded += 1
                return True
            record.linklocal_credit -= _PACKET
    if instance.conntrack_most:
        key, flags = flow_of(header, kind, l2, l3)
        if key and not track(state, record.instance, key, flags):
            instance.conntrack_exceeded += 1
            return True
    return False


@inlined
def refused_out(state, function):  # type: ignore[no-untyped-def]
    """Whether a metered sender's frame in hand is dropped."""
    if _refused(state, function):
        state.instances[state.functions[function].instance].dropped += 1
        return True
    return False


@inlined
def refused_in(state, function):  # type: ignore[no-untyped-def]
    """Whether the frame in hand is dropped before a metered receiver; what passes is paid for."""
    hand = state.in_hand[0]
    instance = state.instances[state.functions[function].instance]
    cause = 1
    if instance.pps and instance.pps_credit <= 0:
        instance.pps_exceeded += 1
    elif instance.bw_in_bps and instance.in_credit <= 0:
        instance.bw_in_exceeded += 1
    elif not _refused(state, function):
        cause = 0
    if cause:
        instance.dropped += 1
        state.drops[function, _ALLOWANCE] += 1
        return True
    instance.pps_credit -= _PACKET
    instance.in_credit -= wire_cost(hand.header_length + hand.count)
    return False
