"""What every compiled application is told, and the board on which it shows how far it is.

The board is a page that the application shares with whoever started it, another process as a rule.
"""

import numpy as np

from vfwire.datapath.port import buffer_of
from vfwire.memory.compiled import inlined

BURST = 64  # frames that an application asks a driver for at once
BOARD_BYTES = 4096

# Words of the board: byte offsets.
STOP = 0  # written by the starter
PHASE = 8  # 1 while the loop runs, 2 once it has stopped sending, 3 at its end
OFFERED = 16  # frames built for the driver
SENT = 24  # frames that the driver took
FULL = 32  # bursts cut short by a full ring
RECEIVED = 40
RECEIVED_BYTES = 48
MISSING = 56
REORDERED = 64
DUPLICATED = 72
CORRUPTED = 80
FOREIGN = 88
SAMPLES = 96  # ping: round trips measured
TIMEOUTS = 104  # ping: replies that did not come in time
DROPPED = 112  # forward: frames that found the outgoing ring full

RUNNING, STOPPED_SENDING, ENDED = 1, 2, 3

APP = np.dtype(
    [
        ("board", "i8"),
        ("send", "i8"),  # 1: generate
        ("check", "i8"),  # 1: receive and check
        ("full", "i8"),  # 1: write and check every byte
        ("length", "i8"),  # bytes of a probe, without FCS
        ("rate_pps", "i8"),  # 0: as fast as it goes
        ("backlog", "i8"),  # frames that a late sender may still send at once
        ("count", "i8"),  # frames to send, 0: until told to stop
        ("flows", "i8"),  # a power of two
        ("first", "i8"),  # sequence number of the first frame, a multiple of `flows`
        ("spin", "i8"),  # empty rounds before each sched_yield
        ("turn", "i8"),  # frames after which the core is offered to others all the same; 0: never
        ("deadline_ns", "i8"),  # of CLOCK_MONOTONIC; 0 for none
        ("quiet_ns", "i8"),  # a receiver told to stop ends after as long without a frame; 0: only by STOP 2
        ("templates", "i8"),  # address of flows * 64 bytes: what is sent
        ("expected", "i8"),  # the same for what is received
        ("nexts", "i8"),  # address of int64[flows], see probe.py
        ("gaps", "i8"),  # address of int64[GAPS, 2]
        ("packed", "i8"),  # replay: address of the frames, one behind another; 0 for probes
        ("packed_index", "i8"),  # address of int64[n, 2]: offset and length of each
        ("packed_count", "i8"),
        ("window", "i8"),  # replay: frames that may be under way
        ("peer", "i8"),  # replay: the receiver's board, which says how many have arrived
        ("interval_ns", "i8"),  # ping: from one to the next; 0: back to back
        ("timeout_ns", "i8"),  # ping: for one reply; replay: without progress of the receiver
        ("swap", "i8"),  # forward: 1 answers the sender (echo), 0 rewrites the MAC addresses below
        ("from_mac", "i8"),  # as six bytes read little-endian
        ("to_mac", "i8"),
    ],
    align=True,
)


@inlined
def give_all(pool, stack, frames, first, end):  # type: ignore[no-untyped-def]
    """Give back the buffers of frames[first:end]."""
    free = pool.free
    for at in range(first, end):
        stack[free] = buffer_of(pool, frames[at].address)
        free += 1
    pool.free = free
