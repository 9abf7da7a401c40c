"""The verbs as Python calls them: one burst a call, for applications that are not compiled."""

from vfwire.datapath.verbs import receive, transmit
from vfwire.memory.compiled import compiled


@compiled
def receive_burst(queues, number, pool, stack, frames, limit):  # type: ignore[no-untyped-def]
    """verbs.receive on queues[number]; `pool` is the record array of length 1."""
    return receive(queues[number], pool[0], stack, frames, limit)


@compiled
def transmit_burst(queues, number, pool, stack, frames, start, count):  # type: ignore[no-untyped-def]
    """verbs.transmit on queues[number]; `pool` is the record array of length 1."""
    return transmit(queues[number], pool[0], stack, frames, start, count)
