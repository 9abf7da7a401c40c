"""What a thread asks of the scheduler: what the kernel says of it afterwards, and that others stay as they were."""

import ctypes
import os
import threading
from pathlib import Path

from vfwire.memory.scheduling import rseq_area, switch_lightly, wake_promptly

_PR_GET_TIMERSLACK = 30
_SLICE_SINCE = (6, 12)


def slack_ns() -> int:
    return int(ctypes.CDLL(None).prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0))


def slice_ns() -> int | None:
    """The thread's slice of time, None where the kernel does not tell."""
    path = Path("/proc/thread-self/sched")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.split()[-1] for line in lines if line.startswith("se.slice")]
    return int(found[0]) if found else None


def test_sleeps_end_when_they_should() -> None:
    before, niceness = slack_ns(), os.nice(0)
    seen: list[tuple[int, int | None, int]] = []

    def work() -> None:
        wake_promptly()
        seen.append((slack_ns(), slice_ns(), os.getpriority(os.PRIO_PROCESS, 0)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ((slack, length, priority),) = seen
    assert slack == 1 and slack_ns() == before
    assert priority == niceness
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release >= _SLICE_SINCE and length is not None:
        assert length == 100_000


def registered_core() -> int | None:
    """The core that the kernel keeps in the thread's struct rseq (cpu_id, at byte 4): negative without one."""
    area = rseq_area()
    return None if area is None else ctypes.c_int32.from_address(area + 4).value


def test_a_switch_has_less_to_write() -> None:
    before = registered_core()
    seen: list[tuple[int | None, int | None, int]] = []

    def work() -> None:
        mine = registered_core()
        switch_lightly()
        switch_lightly()  # nothing left to take back
        seen.append((mine, registered_core(), ctypes.CDLL(None).sched_getcpu()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ((mine, after, core),) = seen
    assert core in os.sched_getaffinity(0)
    if before is not None and before >= 0:
        assert mine is not None and mine >= 0
        assert after is not None and after < 0
        assert registered_core() is not None and registered_core() in os.sched_getaffinity(0)
