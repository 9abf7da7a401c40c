"""Rings of an ENA function: opened and closed by its control side, read by the loop (amzn-drivers, ena_eth_io_defs.h).

An admin command creates each queue, so the loop has nothing to look for: control code opens a queue while the loop is
parked. A submission queue has one completion queue of its own, whose fields lie in the same record. Tails run freely
(16 bits of the doorbell word); the phase of an entry says in which lap of its ring it was written: 1 in the first.

A completion is posted only for a descriptor that the driver has submitted, and each descriptor has one at the most, so
a driver that keeps to its rings is never overrun; one that does not overwrites what is its own.
"""

from typing import Any

from vfwire.datapath.dma import stop_function
from vfwire.datapath.ena_words import phase_of
from vfwire.datapath.state import NOWHERE, QUEUES, VECTORS, CardState, Drop
from vfwire.memory.compiled import inlined
from vfwire.memory.words import load32

DOORBELL_MASK = 0xFFFF
BAD_DESCRIPTOR = int(Drop.BAD_DESCRIPTOR)


def _open(queue: Any, ring: int, size: int, doorbell: int, completions: int) -> None:
    if size & (size - 1) or not 0 < size <= DOORBELL_MASK:
        raise ValueError(f"a ring of {size} entries: a power of two below 65,536 is wanted")
    queue.ring, queue.size, queue.doorbell, queue.completions = ring, size, doorbell, completions
    queue.head = queue.completed = queue.frames = queue.bytes = 0
    queue.map_start = queue.map_end = queue.map_delta = 0


def _count_queues(state: CardState, function: int) -> None:
    """How many of its rows the loop looks at: up to the last open one."""
    record = state.functions[function]
    rows = slice(function * QUEUES, (function + 1) * QUEUES)
    record.tx_queues = max((n + 1 for n in range(QUEUES) if state.tx.on[rows][n]), default=0)
    record.rx_queues = max((n + 1 for n in range(QUEUES) if state.rx.on[rows][n]), default=0)


def open_tx(
    state: CardState,
    function: int,
    slot: int,
    *,
    ring: int,
    size: int,
    doorbell: int,
    completions: int,
    completion_size: int,
    completion_bytes: int = 8,
    vector: int = -1,
    llq_bytes: int = 0,
    llq_first: int = 0,
    llq_more: int = 0,
) -> None:
    """Open transmit queue `slot`, while the loop is parked. ring, doorbell, completions: addresses in this process.

    The caller has checked that both rings lie wholly in memory that the guest may use (completions: writable) and
    stays mapped; `size` and `completion_size` are entries. llq_bytes: of one low-latency-queue entry, 0 for a ring in
    the guest's memory; llq_first: descriptors before the header; llq_more: descriptors of each further entry.
    """
    queue = state.tx[function * QUEUES + slot]
    _open(queue, ring, size, doorbell, completions)
    queue.completion_size, queue.completion_bytes, queue.vector = completion_size, completion_bytes, vector
    queue.llq_bytes, queue.llq_first, queue.llq_more = llq_bytes, llq_first, llq_more
    queue.meta_l2 = queue.meta_l3 = queue.meta_l4 = queue.meta_mss = 0
    queue.to, queue.key0, queue.key1 = NOWHERE, 0, 0
    queue.held = queue.held_by = 0
    queue.on = 1
    _count_queues(state, function)


def open_rx(
    state: CardState,
    function: int,
    slot: int,
    *,
    ring: int,
    size: int,
    doorbell: int,
    completions: int,
    completion_size: int,
    completion_bytes: int = 16,
    vector: int = -1,
) -> None:
    """Open receive queue `slot`, while the loop is parked. Arguments as of `open_tx`."""
    queue = state.rx[function * QUEUES + slot]
    _open(queue, ring, size, doorbell, completions)
    queue.completion_size, queue.completion_bytes, queue.vector = completion_size, completion_bytes, vector
    queue.tail = 0
    queue.on = 1
    _count_queues(state, function)


def close_tx(state: CardState, function: int, slot: int) -> None:
    """Close transmit queue `slot`, while the loop is parked. What was submitted and not yet sent is lost."""
    state.tx[function * QUEUES + slot].on = 0
    _count_queues(state, function)


def close_rx(state: CardState, function: int, slot: int) -> None:
    """Close receive queue `slot`, while the loop is parked."""
    state.rx[function * QUEUES + slot].on = 0
    _count_queues(state, function)


def close_all(state: CardState, function: int) -> None:
    """Close all queues of a function and forget who waits for interrupts: a reset, while the loop is parked."""
    rows = slice(function * QUEUES, (function + 1) * QUEUES)
    state.tx.on[rows] = 0
    state.rx.on[rows] = 0
    vectors = slice(function * VECTORS, (function + 1) * VECTORS)
    for name in ("armed", "interval_ns", "next_ns"):
        state.vectors[name][vectors] = 0
    state.functions[function].posted = 0
    _count_queues(state, function)


@inlined
def submitted(state, function, queue):  # type: ignore[no-untyped-def]
    """How many descriptors (or low-latency entries) the driver has submitted and the loop not taken; -1: a fault.

    A tail further ahead than the ring is long stops the function.
    """
    pending = (load32(queue.doorbell) - queue.head) & DOORBELL_MASK
    if pending > queue.size:
        stop_function(state, function, BAD_DESCRIPTOR)
        return -1
    return pending


@inlined
def next_completion(queue):  # type: ignore[no-untyped-def]
    """(address, phase) of the completion entry to be written next. Steps on: the caller must write it."""
    place = queue.completed & (queue.completion_size - 1)
    phase = phase_of(queue.completed, queue.completion_size)
    queue.completed += 1
    return queue.completions + place * queue.completion_bytes, phase
