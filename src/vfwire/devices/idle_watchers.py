"""The threads that look at doorbells on idle cores (datapath/idle_watch.py), for drivers that wait for interrupts."""

import contextlib
import logging
import os
import threading
import time

import numpy as np

from vfwire.datapath.control_record import WATCHERS
from vfwire.datapath.control_words import field_address, store_word
from vfwire.datapath.idle_watch import run_watch
from vfwire.datapath.state import CardState
from vfwire.errors import WaitTimeout

_log = logging.getLogger(__name__)

_POLLIN = 1
_END_SECONDS = 5.0
_JOIN_SECONDS = 0.02  # then it is raised again: it may have been on its way into the lowest class


class IdleWatchers:
    """The watchers of one engine's loop. cores: those that they may watch on.

    Where these are not more than the watchers, each has one of its own: a thread of the lowest class that waits for its
    core is not moved to another that has become idle.
    """

    def __init__(self, state: CardState, cores: set[int]) -> None:
        self._state = state
        self._cores = sorted(cores)
        count = min(WATCHERS, len(self._cores))
        self._wakes = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(count)]
        self._threads: list[threading.Thread] = []
        state.control[0].watcher_wake[:count] = self._wakes

    def start(self) -> None:
        self._state.control[0].watchers = len(self._wakes)
        for number in range(len(self._wakes)):
            thread = threading.Thread(
                target=self._run, args=(number,), name=f"vfwire-idle{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def _run(self, number: int) -> None:
        if len(self._cores) <= WATCHERS:
            os.sched_setaffinity(0, {self._cores[number]})
        # struct pollfd: fd, events, revents
        pollfd = np.array([self._wakes[number] | _POLLIN << 32], np.int64)
        told = np.full(len(self._state.tx), -1, np.int64)
        if run_watch(self._state, number, pollfd.ctypes.data, told):
            _log.warning("the kernel refuses SCHED_IDLE: no idle core looks at doorbells, naps stay short")

    def end(self) -> None:
        """End the threads, before memory that they look at goes. Safe to call twice. Raises WaitTimeout."""
        store_word(field_address(self._state.control, 0, "watchers"), 0)
        for wake in self._wakes:
            os.eventfd_write(wake, 1)
        deadline = time.monotonic() + _END_SECONDS
        for thread in self._threads:
            while thread.is_alive():
                if time.monotonic() > deadline:
                    raise WaitTimeout(f"{thread.name} got no core to end on in {_END_SECONDS:g} s")
                if thread.native_id is not None:
                    with contextlib.suppress(OSError):  # not allowed: then it ends when a core is idle
                        os.sched_setscheduler(thread.native_id, os.SCHED_OTHER, os.sched_param(0))
                thread.join(_JOIN_SECONDS)
        self._threads.clear()

    def close(self) -> None:
        """End, and give back the eventfds. Safe to call twice."""
        self.end()
        while self._wakes:
            os.close(self._wakes.pop())


def warm_up_watch(state: CardState) -> None:
    """Compile what a watcher runs, or load it from the cache: `state` is a throw-away one, and wants no watchers."""
    run_watch(state, 0, 0, np.zeros(len(state.tx), np.int64))
