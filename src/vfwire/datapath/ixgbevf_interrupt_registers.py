"""The registers of an 82599 VF that a driver writes for each interrupt: mask and moderation (datasheet 8.3.5.2).

Linux's ixgbevf writes VTEIMS to have its interrupt back, and VTEITR before it whenever its adaptive moderation is not
where it wants to be. Its guest stands still until each is answered, so both are served in compiled code (trapped.py).
"""

from vfwire.datapath.interrupts import CAUSES_AT, MASK_AT
from vfwire.datapath.state import VECTORS
from vfwire.layouts.ixgbevf import (
    EICR_MASK,
    EITR_CNT_WDIS,
    EITR_COUNTER_MASK,
    EITR_INTERVAL_MASK,
    EITR_INTERVAL_SHIFT,
    EITR_LL_CREDIT_MASK,
    EITR_LLI_MOD,
    EITR_UNIT_NS,
    MSIX_VECTORS,
    VTEIMC,
    VTEIMS,
    VTEITR,
)
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import fetch_and64, fetch_or64, load64, signal_eventfd

_EITR_MASK = EITR_INTERVAL_MASK | EITR_LLI_MOD | EITR_LL_CREDIT_MASK | EITR_COUNTER_MASK


@inlined
def _moderate(vector, value):  # type: ignore[no-untyped-def]
    """Single stores that the loop reads once each: a new interval counts from the next interrupt."""
    vector.written = value & _EITR_MASK
    vector.interval_ns = ((value & EITR_INTERVAL_MASK) >> EITR_INTERVAL_SHIFT) * EITR_UNIT_NS
    if not value & EITR_CNT_WDIS:
        vector.next_ns = 0


@inlined
def write_quickly(state, function, offset, value):  # type: ignore[no-untyped-def]
    """Write one of these registers; 0 for any other offset. Writing the same twice changes nothing more."""
    record = state.functions[function].address
    if offset == VTEIMS:
        fetch_or64(record + MASK_AT, value & EICR_MASK)
        if load64(record + CAUSES_AT) & load64(record + MASK_AT):
            signal_eventfd(state.control[0].kick)
        return 1
    if offset == VTEIMC:
        fetch_and64(record + MASK_AT, ~(value & EICR_MASK))
        return 1
    number = (offset - VTEITR) >> 2
    if number >= 0 and number < MSIX_VECTORS and offset & 3 == 0:
        _moderate(state.vectors[function * VECTORS + number], value)
        return 1
    return 0


@compiled
def write_interrupt_register(state, function, offset, value):  # type: ignore[no-untyped-def]
    """`write_quickly` for the control side. value: 0 to 2**32 - 1."""
    return write_quickly(state, function, offset, value)
