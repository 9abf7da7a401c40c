"""How the kernel schedules the calling thread: woken when its time is up, and soon; switched to with less to do."""

import ctypes
import os
import struct

_PR_SET_TIMERSLACK = 29  # prctl(2): by how much a sleep may be longer than asked for; 50 us by default
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # asm/unistd.h
_SCHED_ATTR = struct.Struct("<IIQiIQQQII")  # linux/sched/types.h struct sched_attr
_SLICE_NS = 100_000
_RSEQ, _RSEQ_SIGNATURE = 334, 0x53053053  # on x86-64: asm/unistd_64.h, glibc's sys/rseq.h
_RSEQ_BYTES = 32  # linux/rseq.h struct rseq, as glibc registers it
_RSEQ_FLAG_UNREGISTER = 1

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


def switch_lightly() -> None:
    """Take the calling thread's restartable sequences (rseq(2)) back: nothing here uses them.

    glibc registers them for each thread from 2.35 on, and the kernel then writes the core's number into the thread's
    memory each time that it gets one: tried, a fifteenth of the 1.1 us in which a core goes to another process.
    sched_getcpu asks the kernel from then on. Where there is nothing to take back, nothing changes.
    """
    area = rseq_area()
    if area is not None:
        signature = ctypes.c_uint(_RSEQ_SIGNATURE)
        _libc.syscall(_RSEQ, ctypes.c_void_p(area), _RSEQ_BYTES, _RSEQ_FLAG_UNREGISTER, signature)


def rseq_area() -> int | None:
    """The address of the calling thread's struct rseq; None off x86-64, and with a C library that registers none."""
    if os.uname().machine != "x86_64":
        return None  # glibc counts from the thread pointer, which is what pthread_self gives on x86-64 only
    try:
        offset = ctypes.c_ssize_t.in_dll(_libc, "__rseq_offset").value
        size = ctypes.c_uint.in_dll(_libc, "__rseq_size").value
    except ValueError:
        return None
    thread = ctypes.CFUNCTYPE(ctypes.c_void_p)(("pthread_self", _libc))()
    return thread + offset if size and thread else None
