"""Line rates and VF rates: credit in bits x 1e9, topped up by the clock.

Ethernet counts the frame, its FCS, preamble and gap (layouts/ethernet.py). A sender out of credit waits in its
ring, as at a hardware scheduler; nothing is dropped. The credit that can pile up while nothing is sent is bounded by
BURST_NS; at low rates by BURST_BITS, or a loop that has to share its core would lose most of a rate of some Mbps. A
frame is sent while there is any credit, so one that is long at a low rate leaves a debt: all the time that passes pays
it off.

A line goes on while the loop is kept from its core, or is busy with others. So that time counts whole: frames that
waited are sent as fast as it goes. What is left of it when nobody is short of credit any more is lost, as on a line.
"""

from vfwire.layouts.ethernet import WIRE_OVERHEAD_BYTES
from vfwire.memory.compiled import inlined

BURST_NS = 50_000
BURST_BITS = 500_000  # what a line of 10 Gbps sends in that time
LONGEST_NS, LONGEST_FAST_NS = (
    10_000_000,
    2_000_000,
)  # of time that counts at once: credits stay far below 2**63
FAST_BPS = 400_000_000_000  # beyond it, up to MOST_BPS, the second of them
MOST_BPS = 1_000_000_000_000
PLENTY = 1 << 62


@inlined
def _pile(record):  # type: ignore[no-untyped-def]
    return max(record.rate_bps * BURST_NS, BURST_BITS * 1_000_000_000)


@inlined
def top_up(record, now, away):  # type: ignore[no-untyped-def]
    """Credit of a card's uplink or of a function at time `now`; PLENTY when its rate is lifted.

    away: ns for which the loop did not look, though it should have.
    """
    rate = record.rate_bps
    if rate == 0:
        return PLENTY
    passed, before = now - record.credit_ns, record.credit
    record.credit_ns = now
    if before < 0:
        paying = min(passed, -before // rate)
        before += paying * rate
        passed -= paying
    longest = LONGEST_NS if rate <= FAST_BPS else LONGEST_FAST_NS
    most = max(_pile(record), rate * min(away, longest), before)
    record.credit = min(before + min(passed, longest) * rate, most)
    return record.credit


@inlined
def keep(record, credit, short):  # type: ignore[no-untyped-def]
    """Note what a turn has left of the credit. short: with more it would have gone on."""
    if record.rate_bps:
        record.credit = credit
        if short:
            record.short = 1


@inlined
def settle(record):  # type: ignore[no-untyped-def]
    """After a round: who was short of credit may use it in the next; otherwise no more is left than piles up."""
    if record.rate_bps and not record.short:
        record.credit = min(record.credit, _pile(record))


@inlined
def wire_cost(length):  # type: ignore[no-untyped-def]
    """What a frame of `length` bytes (without FCS) takes from the credit."""
    return (length + WIRE_OVERHEAD_BYTES) * 8_000_000_000
