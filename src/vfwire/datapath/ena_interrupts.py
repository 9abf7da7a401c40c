"""Interrupts of an ENA: one for each time that its driver asks, told apart by vector (ena_eth_io_defs.h, intr_reg).

A driver asks by writing the unmask word of a vector, in a page that it maps. The loop takes the word by an atomic
exchange, so that the same value written twice counts, and only when the vector has a completion that no interrupt has
told of: until then the word keeps the wish. Whatever order the two sides' writes fall into, a completion that was
posted since the last interrupt is found with the wish beside it: a spurious interrupt is possible, a lost one is not.
"""

from vfwire.datapath.recorder import RECORD_INTERRUPTS, record_interrupt
from vfwire.datapath.state import VECTORS
from vfwire.layouts.ena_io import (
    INTR_REG_INTR_UNMASK_MASK,
    INTR_REG_NO_MODERATION_UPDATE_MASK,
    INTR_REG_RX_INTR_DELAY_MASK,
    INTR_REG_TX_INTR_DELAY_MASK,
    INTR_REG_TX_INTR_DELAY_SHIFT,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.words import exchange64, load64, signal_eventfd


@inlined
def note_completion(state, function, vector):  # type: ignore[no-untyped-def]
    """A completion was posted in a queue of `vector`; -1 (no vector) is nothing. The loop alone writes the mask."""
    if vector >= 0:
        state.functions[function].posted |= 1 << vector


@inlined
def _take_wish(vector):  # type: ignore[no-untyped-def]
    """Take what the driver has written to the unmask word: whether it wants an interrupt, and how often at most."""
    word = exchange64(vector.unmask, 0)
    if not word & INTR_REG_INTR_UNMASK_MASK:
        return
    vector.armed = 1
    if not word & INTR_REG_NO_MODERATION_UPDATE_MASK:
        sent = (word & INTR_REG_TX_INTR_DELAY_MASK) >> INTR_REG_TX_INTR_DELAY_SHIFT
        delay = max(word & INTR_REG_RX_INTR_DELAY_MASK, sent)
        vector.interval_ns = delay * vector.moderation_ns


@inlined
def wishes(state, function):  # type: ignore[no-untyped-def]
    """Whether the driver has asked for an interrupt that the loop owes it. Takes nothing: what a watcher looks at."""
    posted = state.functions[function].posted
    for number in range(VECTORS):
        if (posted >> number) & 1:
            unmask = state.vectors[function * VECTORS + number].unmask
            if unmask and load64(unmask) & INTR_REG_INTR_UNMASK_MASK:
                return True
    return False


@inlined
def raise_posted(state, function, now):  # type: ignore[no-untyped-def]
    """Send each interrupt that is due: posted, asked for, not held back by moderation. Returns how many were sent."""
    record = state.functions[function]
    posted, sent = record.posted, 0
    for number in range(VECTORS):
        if not (posted >> number) & 1:
            continue
        vector = state.vectors[function * VECTORS + number]
        if not vector.armed and vector.unmask:
            _take_wish(vector)
        if not vector.armed or vector.eventfd < 0:
            continue
        if now < vector.next_ns:
            state.control[0].due = 1
            continue
        vector.armed = 0
        vector.next_ns = now + vector.interval_ns
        record.posted &= ~(1 << number)
        if record.recorded & RECORD_INTERRUPTS:
            record_interrupt(state, function, number)
        signal_eventfd(vector.eventfd)
        vector.raised += 1
        sent += 1
    record.interrupts += sent
    return sent
