"""I/O addresses of a guest into addresses here: translated and bounds-checked, each and every one.

A queue keeps the last map that it hit, so the common case is two compares. Addresses with the top bit set are
negative here and in no map.
"""

from vfwire.datapath.state import MAPS, QUEUES
from vfwire.memory.compiled import inlined


@inlined
def hits(queue, start, length):  # type: ignore[no-untyped-def]
    """Is [start, start + length) inside the map that this queue used last?"""
    return queue.map_start <= start and start <= queue.map_end - length


@inlined
def find_map(state, function, queue, start, length, writable):  # type: ignore[no-untyped-def]
    """Find the map that holds [start, start + length) and remember it in the queue. False, counted: none does."""
    first = function * MAPS
    for row in range(first, first + MAPS):
        entry = state.maps[row]
        if entry.start <= start and start <= entry.end - length and (entry.writable or not writable):
            queue.map_start = entry.start
            queue.map_end = entry.end
            queue.map_delta = entry.delta
            return True
    state.functions[function].bad_dma += 1
    return False


@inlined
def stop_function(state, function, cause):  # type: ignore[no-untyped-def]
    """A fault: the function does no more DMA until it is reset. The others do not notice."""
    record = state.functions[function]
    record.fault = cause
    record.dma = 0
    for number in range(QUEUES):
        state.tx[function * QUEUES + number].on = 0
        state.rx[function * QUEUES + number].on = 0
    state.drops[function, cause] += 1
    state.control[0].fault_function = function
