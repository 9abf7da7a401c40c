"""Line rates and VF rates: credit in bits x 1e9, topped up by the clock.

Ethernet counts the frame, its FCS, preamble and gap (layouts/ethernet.py). A sender out of credit waits in its
ring, as at a hardware scheduler; nothing is dropped. The credit that can pile up while nothing is sent is bounded by
BURST_NS, which is also how long the loop may be away from its core before a line at full rate loses time; at low rates
by BURST_BITS, or a loop that has to share its core would lose most of a rate of some Mbps. A frame is sent while there
is any credit, so one that is long at a low rate leaves a debt: all the time that passes pays it off.
"""

from vfwire.layouts.ethernet import WIRE_OVERHEAD_BYTES
from vfwire.memory.compiled import inlined

BURST_NS = 50_000
BURST_BITS = 500_000  # what a line of 10 Gbps sends in that time
LONGEST_NS = 10_000_000  # of time that counts at once: with rates of up to 400 Gbps it stays far below 2**63
PLENTY = 1 << 62


@inlined
def top_up(record, now):  # type: ignore[no-untyped-def]
    """Credit of a card's uplink or of a function at time `now`; PLENTY when its rate is lifted."""
    if record.rate_bps == 0:
        return PLENTY
    passed = now - record.credit_ns
    record.credit_ns = now
    most = max(record.rate_bps * BURST_NS, BURST_BITS * 1_000_000_000)
    if passed > LONGEST_NS:
        passed = LONGEST_NS
    credit = record.credit + passed * record.rate_bps
    if credit > most:
        credit = most
    record.credit = credit
    return credit


@inlined
def wire_cost(length):  # type: ignore[no-untyped-def]
    """What a frame of `length` bytes (without FCS) takes from the credit."""
    return (length + WIRE_OVERHEAD_BYTES) * 8_000_000_000
