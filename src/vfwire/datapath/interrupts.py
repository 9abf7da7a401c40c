"""Interrupts of an 82599 VF: causes, masks, auto-clear and auto-mask, moderation (82599 datasheet 7.3.1, 8.3.5.2).

`causes` and `mask` are changed by two threads (the loop, and the control side when the guest writes VTEICS, VTEIMS …),
so both use atomic operations. The loop looks at every function with a cause that is not masked once a round: a
cause that comes while the mask is set is found when the mask is cleared, so none is lost.
"""

from vfwire.datapath.recorder import RECORD_INTERRUPTS, record_interrupt
from vfwire.datapath.state import FUNCTION, IXGBEVF_VECTORS, VECTORS
from vfwire.memory.compiled import inlined
from vfwire.memory.words import fetch_and64, fetch_or64, load64, signal_eventfd

assert FUNCTION.fields is not None
CAUSES_AT = FUNCTION.fields["causes"][1]
MASK_AT = FUNCTION.fields["mask"][1]


@inlined
def note_cause(state, function, vector):  # type: ignore[no-untyped-def]
    """Something happened that `vector` stands for; -1 (no vector) is nothing. The loop raises it within this round."""
    if vector >= 0:
        fetch_or64(state.functions[function].address + CAUSES_AT, 1 << vector)


@inlined
def raise_due(state, function, now):  # type: ignore[no-untyped-def]
    """Send every interrupt that is caused, not masked and not held back by moderation. Returns how many were sent."""
    record = state.functions[function]
    address = record.address
    due = load64(address + CAUSES_AT) & load64(address + MASK_AT)
    sent = 0
    held = 0
    for number in range(IXGBEVF_VECTORS):
        bit = 1 << number
        if not due & bit:
            continue
        vector = state.vectors[function * VECTORS + number]
        if vector.eventfd < 0:  # nobody listens yet: the cause stays until somebody does, or reads it
            continue
        if now < vector.next_ns:
            held |= bit
            state.control[0].due = 1
            continue
        vector.next_ns = now + vector.interval_ns
        if record.auto_clear & bit:
            fetch_and64(address + CAUSES_AT, ~bit)
        if record.auto_mask & bit:
            fetch_and64(address + MASK_AT, ~bit)
        elif not record.auto_clear & bit:
            fetch_and64(address + CAUSES_AT, ~bit)
        if record.recorded & RECORD_INTERRUPTS:
            record_interrupt(state, function, number)
        signal_eventfd(vector.eventfd)
        vector.raised += 1
        sent += 1
    record.pending = held
    record.interrupts += sent
    return sent
