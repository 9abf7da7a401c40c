"""How the kernel schedules the calling thread: woken when its time is up, and soon."""

import ctypes
import os
import struct

_PR_SET_TIMERSLACK = 29  # prctl(2): by how much a sleep may be longer than asked for; 50 us by default
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # asm/unistd.h
_SCHED_ATTR = struct.Struct("<IIQiIQQQII")  # linux/sched/types.h struct sched_attr
_SLICE_NS = 100_000

_libc = ctypes.CDLL(None, use_errno=True)


def wake_promptly() -> None:
    """Have the calling thread's naps end when they should.

    A short slice of time (Linux 6.12 and later: sched_runtime of an ordinary thread) lets a thread that wakes run
    before one that has the core. An older kernel ignores it, and one that refuses changes nothing.
    """
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is not None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_OTHER, 0, nice, 0, _SLICE_NS, 0, 0, 0, 0)
        _libc.syscall(number, 0, attributes, 0)
