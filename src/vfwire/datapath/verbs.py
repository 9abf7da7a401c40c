"""The two verbs of a data path, for compiled applications that run on any driver.

A newcomer's driver is one more branch here: a branch a burst, predicted, and the machine code stays cacheable
(Numba cannot cache a function that takes functions).
"""

from vfwire.datapath.ena_driver import ena_receive, ena_transmit
from vfwire.datapath.ixgbevf_driver import ixgbevf_receive, ixgbevf_transmit
from vfwire.datapath.netfront import netfront_receive, netfront_transmit
from vfwire.datapath.port import ENA, IXGBEVF
from vfwire.memory.compiled import inlined


@inlined
def receive(queue, pool, stack, frames, limit):  # type: ignore[no-untyped-def]
    """Take up to `limit` received frames into `frames`; the caller owns their buffers, and gives back or sends each.

    Returns how many. Never waits. The ring is refilled from the pool on the way.
    """
    if queue.kind == IXGBEVF:
        return ixgbevf_receive(queue, pool, stack, frames, limit)
    if queue.kind == ENA:
        return ena_receive(queue, pool, stack, frames, limit)
    return netfront_receive(queue, pool, stack, frames, limit)


@inlined
def transmit(queue, pool, stack, frames, start, count):  # type: ignore[no-untyped-def]
    """Send frames[start:start + count]; returns how many were taken. Buffers taken come back to the pool when sent.

    Never waits: a full ring takes fewer. Buffers not taken stay the caller's. count 0 only collects what has been sent.
    """
    if queue.kind == IXGBEVF:
        return ixgbevf_transmit(queue, pool, stack, frames, start, count)
    if queue.kind == ENA:
        return ena_transmit(queue, pool, stack, frames, start, count)
    return netfront_transmit(queue, pool, stack, frames, start, count)
