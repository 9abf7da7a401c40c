"""What every driver's compiled loops share: frames, queues and the pool of buffers.

A port is `(rx, tx, pool, stack)`: one-dimensional record arrays of QUEUE, one POOL record array of length 1, and the
pool's stack of free buffer addresses (int64). Each driver fills the same records; `verbs.py` picks the loop by `kind`.
All addresses are virtual addresses of this process. One thread at a time uses a port and its pool.
"""

import numpy as np

from vfwire.memory.compiled import inlined

IXGBEVF = 1
NETFRONT = 2
ENA = 3

FRAME = np.dtype(
    [
        ("address", "i8"),  # of the frame's first byte, inside a buffer of the pool
        ("length", "i4"),  # bytes, without FCS
        ("flags", "i4"),  # RX_* on receive, TX_* on transmit
        ("vlan", "i4"),  # tag control information where a flag says that there is one
        ("hash", "i4"),  # RSS hash where a flag says that there is one
        ("header", "i4"),  # TX_*: L2 length | L3 length << 8 | L4 length << 16, where an offload is asked for
        ("segment", "i4"),  # TX_SEGMENT: the maximum segment size in bytes
    ],
    align=True,
)

RX_MORE = 1 << 0  # the frame goes on in the next entry
RX_IP_GOOD = 1 << 1
RX_L4_GOOD = 1 << 2
RX_CHECKSUM_BAD = 1 << 3
RX_VLAN = 1 << 4
RX_HASH = 1 << 5

TX_MORE = 1 << 0  # the frame goes on in the next entry
TX_IP_CHECKSUM = 1 << 1
TX_TCP_CHECKSUM = 1 << 2
TX_UDP_CHECKSUM = 1 << 3
TX_VLAN = 1 << 4
TX_SEGMENT = 1 << 5
TX_IPV6 = 1 << 6

QUEUE = np.dtype(
    [
        ("kind", "i8"),  # IXGBEVF, NETFRONT, ENA
        ("ring", "i8"),  # descriptors, or Xen's shared ring page
        ("size", "i8"),  # entries, a power of two
        ("head", "i8"),  # next entry to complete (free-running)
        ("tail", "i8"),  # next entry to fill (free-running)
        ("doorbell", "i8"),  # where the tail is announced
        ("slots", "i8"),  # int64[size]: the buffer that each entry holds
        ("delta", "i8"),  # I/O address minus virtual address
        ("context", "i8"),  # the driver's own: netfront's grant references
        ("event", "i8"),  # eventfd that wakes the other side, -1 for none
        ("mark", "i8"),  # the driver's own: entries since the last completion request
        ("frames", "i8"),
        ("bytes", "i8"),
        ("errors", "i8"),
        ("notified", "i8"),  # event notifications sent
        ("full", "i8"),  # times a burst was cut short by a full ring
        ("completions", "i8"),  # ENA: the completion ring ...
        ("completion_size", "i8"),  # ... its entries ...
        ("completed", "i8"),  # ... and those that have been taken (free-running)
        ("llq_bytes", "i8"),  # ENA: of one entry of a ring in the device's memory; 0: it lies in ours
        ("llq_header", "i8"),  # where a frame's header begins in such an entry
        ("llq_burst", "i8"),  # entries that such a ring takes between two doorbells, 0 for no limit
        ("doorbells", "i8"),  # ENA: that announced what is to be sent
        ("invalid", "i8"),  # ENA: completions of what was never submitted: the device wants a reset
    ],
    align=True,
)

POOL = np.dtype(
    [
        ("free", "i8"),  # entries on the stack
        ("buffers", "i8"),  # all there are
        ("buffer_bytes", "i8"),  # that a frame and its headroom may take
        ("stride", "i8"),  # from one buffer to the next
        ("reciprocal", "i8"),  # of the stride: see `buffer_of`
        ("headroom", "i8"),  # bytes before a received frame's first byte
        ("first", "i8"),  # address of buffer 0 (a field named "base" would be hidden by NumPy's own)
        ("failed", "i8"),  # allocations that found the pool empty
    ],
    align=True,
)


@inlined
def take(pool, stack):  # type: ignore[no-untyped-def]
    """The address of a free buffer's first byte, or 0 when the pool is empty. Check `pool.free` first in bursts."""
    free = pool.free
    if free == 0:
        pool.failed += 1
        return 0
    pool.free = free - 1
    return stack[free - 1]


RECIPROCAL_SHIFT = 40
LARGEST_POOL = 1 << 29  # bytes, so that `buffer_of` is exact


def reciprocal_of(stride: int) -> int:
    """2**40 / stride, rounded up: times an offset below LARGEST_POOL, shifted down, it is the offset // stride."""
    return -(-(1 << RECIPROCAL_SHIFT) // stride)


@inlined
def buffer_of(pool, address):  # type: ignore[no-untyped-def]
    """The first byte of the buffer that `address` lies in: a division, by a multiplication."""
    return pool.first + (((address - pool.first) * pool.reciprocal) >> RECIPROCAL_SHIFT) * pool.stride


@inlined
def give(pool, stack, address):  # type: ignore[no-untyped-def]
    """Give back the buffer that holds `address` (any address inside it)."""
    stack[pool.free] = buffer_of(pool, address)
    pool.free += 1
