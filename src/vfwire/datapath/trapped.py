"""Writes that trap, answered where they arrive: REGION_WRITE (vfio-user) of a register that drivers write all the time.

A guest stands still until its write is answered. The interpreter took 50 to 100 us for that, and as much of a core
that an emulated guest could use; this takes a few. What is not such a write, whole and first in the stream, is left
where it is: the server (bus/vfio_user/server.py) reads it as if nobody had looked.
"""

from vfwire.datapath.ixgbevf_interrupt_registers import write_quickly
from vfwire.layouts.vfio_user import HEADER, NO_REPLY, REGION_ACCESS, TYPE_REPLY, Command
from vfwire.memory.compiled import compiled
from vfwire.memory.sockets import peek, send, take, wait_first
from vfwire.memory.words import load32, load64, store64

REQUEST_BYTES = HEADER.size + REGION_ACCESS.size + 4
REPLY_BYTES = HEADER.size + REGION_ACCESS.size
SCRATCH_BYTES = 64  # the request; its reply is written over it ...
ANSWERED = 56  # ... and behind it, how many were answered so far
_WRITE = int(Command.REGION_WRITE)
_FOUR_BYTES_OF_BAR0 = 4 << 32


@compiled
def serve_trapped(state, function, entries, count, fd, header, scratch):  # type: ignore[no-untyped-def]
    """Wait for messages on `fd` and answer those, until anything else is to be done.

    entries: `count` poll_entries, fd's first; without any it returns at once. header: a message_header for the
    REQUEST_BYTES at `scratch`.
    """
    while count and wait_first(entries, count):
        if peek(fd, header) != REQUEST_BYTES:
            break
        first, second = load64(scratch), load64(scratch + 8)
        flags = second & 0xFFFFFFFF
        if first >> 16 & 0xFFFF != _WRITE or first >> 32 != REQUEST_BYTES or flags & ~NO_REPLY:
            break
        if load64(scratch + 24) != _FOUR_BYTES_OF_BAR0:
            break
        if not write_quickly(state, function, load64(scratch + 16), load32(scratch + 32)):
            break
        if not flags:
            store64(scratch, first & 0xFFFFFFFF | REPLY_BYTES << 32)
            store64(scratch + 8, TYPE_REPLY)
            if send(fd, scratch, REPLY_BYTES) != REPLY_BYTES:
                break  # no room: the server does it all again, and waits for room
        take(fd, scratch, REQUEST_BYTES)
        store64(scratch + ANSWERED, load64(scratch + ANSWERED) + 1)
