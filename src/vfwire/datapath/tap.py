"""The loop between a driver and a tap: bounded bursts each way, one system call a frame on the tap's side.

A frame that the kernel hands over may be a TCP segment of 64 KiB: it is read straight into as many of the pool's
buffers as it takes, and the driver has it cut. What comes the other way is written from the buffer it came in.
"""

import errno

import numpy as np

from vfwire.datapath.application import give_all
from vfwire.datapath.port import RX_L4_GOOD, RX_MORE, TX_MORE
from vfwire.datapath.tap_frame import ask_offloads
from vfwire.datapath.verbs import receive, transmit
from vfwire.layouts.ethernet import MINIMUM_FRAME_BYTES
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.files import IOVEC_BYTES, read_into, write_from
from vfwire.memory.words import clock_ns, store8, store64, yield_core

BURST = 64
PIECES = 40  # buffers of one frame: what an 82599 takes (82599 datasheet 7.2.1.1)

TAP = np.dtype(
    [
        ("fd", "i8"),  # non-blocking
        ("iovecs", "i8"),  # address of struct iovec[1 + PIECES]
        ("header_bytes", "i8"),  # before each frame, 0 without offloads
        ("header", "i8"),  # address for that of a frame which is read
        ("plain", "i8"),  # address of the one before a frame that is written
        ("valid", "i8"),  # the same where its checksum was found right
        ("pieces", "i8"),  # buffers that a frame which is read may take, up to PIECES
        ("start", "i8"),  # staged[start:end] was read, and not yet taken by the driver
        ("end", "i8"),
        ("chain", "i8"),  # the rest of a received frame in several buffers is still to come
        ("error", "i8"),  # errno that ended the loop
        ("to_tap", "i8"),
        ("to_tap_bytes", "i8"),
        ("to_tap_dropped", "i8"),  # the kernel took no frame: interface down, no memory
        ("from_tap", "i8"),
        ("from_tap_bytes", "i8"),
        ("from_tap_dropped", "i8"),  # frames that the driver cannot send
    ],
    align=True,
)

# What `run_tap` comes back with.
AGAIN = 0  # its time is up
IDLE = 1  # nothing to do for as long as it was told to look
FAILED = 2  # the tap is gone: `error`

_AGAIN = -errno.EAGAIN
_GONE = (-errno.EBADF, -errno.EBADFD, -errno.ENODEV, -errno.ENXIO)


@inlined
def _is_gone(result):  # type: ignore[no-untyped-def]
    return result == _GONE[0] or result == _GONE[1] or result == _GONE[2] or result == _GONE[3]


@inlined
def _write_frame(tap, frame):  # type: ignore[no-untyped-def]
    iovecs = tap.iovecs
    if tap.header_bytes:
        store64(iovecs, tap.valid if frame.flags & RX_L4_GOOD else tap.plain)
        store64(iovecs + 8, tap.header_bytes)
    store64(iovecs + IOVEC_BYTES, frame.address)
    store64(iovecs + IOVEC_BYTES + 8, frame.length)
    if tap.header_bytes:
        return write_from(tap.fd, iovecs, 2)
    return write_from(tap.fd, iovecs + IOVEC_BYTES, 1)


@inlined
def _to_tap(rx, pool, stack, frames, tap):  # type: ignore[no-untyped-def]
    """One burst of each receive queue to the kernel; returns how many frames came."""
    total = 0
    for which in range(len(rx)):
        count = receive(rx[which], pool, stack, frames, BURST)
        for at in range(count):
            frame = frames[at]
            more = frame.flags & RX_MORE
            if more or tap.chain:  # longer than the MTU
                tap.chain = more
                tap.to_tap_dropped += 1
                continue
            done = _write_frame(tap, frame)
            if done >= 0:
                tap.to_tap += 1
                tap.to_tap_bytes += frame.length
            else:
                tap.to_tap_dropped += 1
                if _is_gone(done):
                    tap.error = -done
        give_all(pool, stack, frames, 0, count)
        total += count
    return total


@inlined
def _stage(pool, stack, frames, tap, length):  # type: ignore[no-untyped-def]
    """The frame that was just read, as entries of the burst. Its buffers are taken only when it can be sent."""
    size, first = pool.buffer_bytes, pool.free - 1
    if length < MINIMUM_FRAME_BYTES:
        for at in range(length, MINIMUM_FRAME_BYTES):
            store8(stack[first] + at, 0)
        length = MINIMUM_FRAME_BYTES
    entries = (length + size - 1) // size
    left = length
    for at in range(entries):
        frame = frames[tap.end + at]
        frame.address = stack[first - at]
        frame.length = min(left, size)
        frame.flags = TX_MORE if left > size else 0
        frame.vlan, frame.hash, frame.header, frame.segment = 0, 0, 0, 0
        left -= size
    head = frames[tap.end]
    if tap.header_bytes and not ask_offloads(head, tap.header, head.length, entries == 1):
        tap.from_tap_dropped += 1
        return
    pool.free -= entries
    tap.end += entries
    tap.from_tap += 1
    tap.from_tap_bytes += length


@inlined
def _read_burst(tx, pool, stack, frames, tap):  # type: ignore[no-untyped-def]
    """Read frames from the kernel until a burst is full, none is left, or the pool runs low."""
    pieces, iovecs, size = tap.pieces, tap.iovecs, pool.buffer_bytes
    if pool.free < BURST + pieces:
        transmit(tx, pool, stack, frames, 0, 0)
    reads = 0
    while reads < BURST and tap.end < BURST and pool.free >= pieces:
        reads += 1
        top = pool.free - 1
        for at in range(pieces):
            store64(iovecs + (1 + at) * IOVEC_BYTES, stack[top - at])
            store64(iovecs + (1 + at) * IOVEC_BYTES + 8, size)
        if tap.header_bytes:
            store64(iovecs, tap.header)
            store64(iovecs + 8, tap.header_bytes)
            done = read_into(tap.fd, iovecs, pieces + 1)
        else:
            done = read_into(tap.fd, iovecs + IOVEC_BYTES, pieces)
        if done < 0:
            if done != _AGAIN:
                tap.error = -done
            return
        length = done - tap.header_bytes
        if length > 0:
            _stage(pool, stack, frames, tap, length)


@inlined
def _from_tap(tx, pool, stack, frames, tap):  # type: ignore[no-untyped-def]
    """One turn of the way out. Nothing more is read before the driver has taken what was: the kernel queues, and
    slows its senders down. Returns how many entries the driver took.
    """
    if tap.start == tap.end:
        tap.start = tap.end = 0
        _read_burst(tx, pool, stack, frames, tap)
    if tap.start == tap.end:
        return 0
    taken = transmit(tx, pool, stack, frames, tap.start, tap.end - tap.start)
    tap.start += taken
    return taken


@compiled
def run_tap(rx, tx, pools, stack, received, staged, taps, until_ns, spin_ns):  # type: ignore[no-untyped-def]
    """Move frames both ways until `until_ns`, or until nothing has come for `spin_ns`. One round at the least.

    rx, tx: QUEUE[n] (frames go out on tx[0]); received: FRAME[BURST]; staged: FRAME[BURST + PIECES]; taps: TAP[1].
    """
    tap, pool = taps[0], pools[0]
    busy_ns = clock_ns()
    while True:
        moved = _to_tap(rx, pool, stack, received, tap)
        moved += _from_tap(tx[0], pool, stack, staged, tap)
        if tap.error:
            return FAILED
        now = clock_ns()
        if moved:
            busy_ns = now
        elif now - busy_ns >= spin_ns:
            return IDLE
        else:
            yield_core()
        if now >= until_ns:
            return AGAIN


@compiled
def drop_staged(pools, stack, staged, taps):  # type: ignore[no-untyped-def]
    """Give back what was read and never taken."""
    tap = taps[0]
    give_all(pools[0], stack, staged, tap.start, tap.end)
    tap.start = tap.end = 0
