"""The engine of a card process: it owns the state of all its cards, and the thread in which their compiled
loop runs.

Control code changes the state inside `parked()` only: the loop then stands still between two frames, for the
few microseconds that a change takes, and has let go of everything it knew by address.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from vfwire.datapath.card import run_card
from vfwire.datapath.control_words import field_address, load_word, store_word, warm_up_words
from vfwire.datapath.ixgbevf_interrupt_registers import write_interrupt_register
from vfwire.datapath.state import DROP_NAMES, HEADER_SCRATCH, CardState, Drop, new_state
from vfwire.datapath.trapped import serve_trapped
from vfwire.devices.idle_watchers import IdleWatchers, warm_up_watch
from vfwire.devices.watchdog import StuckLoop
from vfwire.errors import UsageError, VfwireError, WaitTimeout
from vfwire.memory.scheduling import switch_lightly, wake_promptly

_log = logging.getLogger(__name__)

SPIN_NS = 200_000
NAP_NS = 4_000_000
QUIET_ROUNDS = 64
_POLLIN = 1
_PARK_SECONDS = 2.0  # the loop answers between two frames; only a starved core takes longer than microseconds
_STOP_SECONDS = 5.0
_WATCH_SECONDS = 0.02  # a guest can hold the loop for as long
_IDLE_WATCH_SECONDS = 0.06  # where nothing moved: waking a thread that often takes a hundredth of a core
_REPORT_SECONDS = 0.24
_BLOCKER_SECONDS = 10.0  # for which who did that gets no interrupts
_EAGER_TRIES = 2000
_REST = 3  # times as long as it stood still, the loop then runs: guests that ask for changes without end get no more
_LONGEST_REST_NS = 20_000_000


class Engine:
    """The loop of all cards of one process, as a thread that holds no lock of the interpreter.

    functions_per_card: how many functions each card has. pin: the core of the loop's thread, None for any.
    spin_ns: how long the loop polls without work before it naps; nap_ns: its longest nap. quiet_rounds: empty
    rounds before it offers its core to others: few where it shares the core with those who wait for it. polled: drivers
    wait by polling; otherwise by interrupts: the loop naps as soon as nothing moves, and idle cores look for it.
    """

    def __init__(
        self,
        functions_per_card: list[int],
        *,
        pin: int | None = None,
        spin_ns: int = SPIN_NS,
        nap_ns: int = NAP_NS,
        quiet_rounds: int = QUIET_ROUNDS,
        polled: bool = True,
    ) -> None:
        if pin is not None and pin not in os.sched_getaffinity(0):
            raise UsageError(f"core {pin} cannot be had", f"choose among {sorted(os.sched_getaffinity(0))}")
        self.pin = pin
        self.state: CardState = new_state(functions_per_card)
        self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pollfd = np.array([self._kick | _POLLIN << 32], np.int64)  # struct pollfd: fd, events, revents
        self._header = np.zeros(HEADER_SCRATCH, np.uint8)
        control = self.state.control[0]
        control.kick = self._kick
        control.pollfd = self._pollfd.ctypes.data
        control.header = self._header.ctypes.data
        control.spin_ns = spin_ns
        control.nap_ns = nap_ns
        control.quiet_rounds = quiet_rounds
        control.polled = int(polled)
        self._request = self._field("request")
        self._acknowledged = self._field("acknowledged")
        self._lock = threading.RLock()
        self._depth = 0
        self._parked_ns = self._rest_until_ns = 0
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        cores = os.sched_getaffinity(0) if pin is None else {pin}
        self._idle_watchers = None if polled else IdleWatchers(self.state, cores)
        self._watch_end = threading.Event()
        self._watcher: threading.Thread | None = None
        self._reported: dict[int, int] = {}
        self._blockers: dict[int, float] = {}

    def _field(self, name: str) -> int:
        return field_address(self.state.control, 0, name)

    @staticmethod
    def warm_up(progress: Callable[[str], None] | None = None) -> None:
        """Compile all that a running card needs (or load it from the cache), so that no client ever waits for
        it.
        """
        if progress is not None:
            progress("the card's loop")
        warm_up_words(np.zeros(1, np.int64))
        with _EngineForWarmUp() as engine:
            engine.state.control[0].stop = 1
            run_card(engine.state)
            write_interrupt_register(engine.state, 0, 0, 0)
            serve_trapped(engine.state, 0, 0, 0, 0, 0, 0)
            warm_up_watch(engine.state)

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Run the loop in its thread. Compile first (`warm_up`). Raises VfwireError when it runs already."""
        with self._lock:
            if self.running:
                raise VfwireError("the engine runs already")
            self.state.control[0].stop = 0
            self._failure = None
            self._watch_end.clear()
            self._thread = threading.Thread(target=self._run, name="vfwire-card", daemon=True)
            self._thread.start()
            if self._idle_watchers is not None:
                self._idle_watchers.start()
            self._watcher = threading.Thread(target=self._watch, name="vfwire-watch", daemon=True)
            self._watcher.start()

    def _run(self) -> None:
        try:
            if self.pin is not None:
                os.sched_setaffinity(0, {self.pin})
            switch_lightly()
            if not self.state.control[0].polled:
                wake_promptly()
            run_card(self.state)
        except BaseException as error:
            self._failure = error
            _log.exception("the card's loop ended by an error")

    def _watch(self) -> None:
        stuck = StuckLoop(self.state)
        taken: list[int] = []
        due = 0.0
        while not self._watch_end.wait(_IDLE_WATCH_SECONDS if stuck.idle else _WATCH_SECONDS):
            report = time.monotonic() >= due
            if report:
                due = time.monotonic() + _REPORT_SECONDS
                self.report_faults()
            if stuck.standing_still() or report:  # a thread of the control side can be held, too
                taken += self._free(stuck)
            if taken:
                taken = self._close_parked(taken)
        self._close_parked(taken)

    def _free(self, stuck: StuckLoop) -> list[int]:
        found = stuck.free()
        for function, _ in found:
            self._blockers[function] = time.monotonic() + _BLOCKER_SECONDS
        return [fd for _, fd in found]

    def _close_parked(self, fds: list[int]) -> list[int]:
        """Close what the loop may be writing to. Returns what is still open: another try is needed."""
        try:
            with self.parked():
                for fd in fds:
                    os.close(fd)
        except WaitTimeout:
            _log.warning("the card's loop still stands still", exc_info=True)
            return fds
        return []

    def blocked_lately(self, function: int) -> bool:
        """Whether this function's guest has just held the loop by an eventfd: it may not hand in others so
        soon.
        """
        return time.monotonic() < self._blockers.get(function, 0.0)

    def report_faults(self) -> list[int]:
        """Log each function that the loop has stopped, once for each fault; returns the newly found ones."""
        found = []
        for number, cause in enumerate(self.state.functions.fault.tolist()):
            if cause < 0:
                self._reported.pop(number, None)
            elif self._reported.get(number) != cause:
                self._reported[number] = cause
                record = self.state.functions[number]
                name = DROP_NAMES[Drop(cause)] if cause in DROP_NAMES else f"cause {cause}"
                _log.warning(
                    "card %d VF %d stopped until its driver resets it: %s", record.card, record.pool, name
                )
                found.append(number)
        return found

    def kick(self) -> None:
        """End the loop's nap, if it takes one."""
        if self._kick >= 0:
            os.eventfd_write(self._kick, 1)

    @contextmanager
    def parked(self) -> Iterator[CardState]:
        """The loop stands still while this holds; state may be changed. Reentrant, and harmless when no loop
        runs.

        Raises WaitTimeout when the loop does not answer in time. Do not take a function's own lock inside.
        """
        with self._lock:
            self._depth += 1
            try:
                if self._depth == 1:
                    self._park()
                yield self.state
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._unpark()

    def _park(self) -> None:
        if not self.running:
            return
        self._rest()
        request = load_word(self._request) + 1
        self._parked_ns = time.monotonic_ns()
        store_word(self._request, request)
        self.kick()
        self.wait_acknowledged(request)

    def _rest(self) -> None:
        """Let the loop have its share of the time before it is made to stand still again."""
        rest = self._rest_until_ns - time.monotonic_ns()
        if rest > 0:
            time.sleep(rest / 1e9)

    def _unpark(self) -> None:
        request = load_word(self._request)
        if request & 1:
            store_word(self._request, request + 1)
            now = time.monotonic_ns()
            self._rest_until_ns = now + min(_REST * (now - self._parked_ns), _LONGEST_REST_NS)

    def wait_acknowledged(self, request: int, seconds: float = _PARK_SECONDS) -> None:
        """Wait until the loop has seen this request to stand still (or has ended). Raises WaitTimeout."""
        deadline = time.monotonic() + seconds
        tries = 0
        while (seen := load_word(self._acknowledged)) != request:
            if not self.running:
                return
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    f"the card's loop did not stand still in {seconds:g} s (asked {request}, seen {seen})",
                    "give its core more time, or pin it to a free one",
                )
            tries += 1
            time.sleep(0 if tries < _EAGER_TRIES else 0.000_05)

    def end_idle_watch(self) -> None:
        """Have no idle core look at doorbells any more: their memory is about to go. Safe to call twice."""
        if self._idle_watchers is not None:
            self._idle_watchers.end()

    def stop(self) -> None:
        """End the loop's thread. Safe to call twice. Raises WaitTimeout when it does not end."""
        self.end_idle_watch()
        self._watch_end.set()
        with self._lock:
            thread = self._thread
            if thread is not None:
                store_word(self._field("stop"), 1)
                self.kick()
                thread.join(_STOP_SECONDS)
                if thread.is_alive():
                    raise WaitTimeout(f"the card's loop did not end in {_STOP_SECONDS:g} s")
                self._thread = None
        if self._watcher is not None:
            self._watcher.join(_STOP_SECONDS)
            self._watcher = None

    def close(self) -> None:
        """Stop, and give back the eventfds. Safe to call twice."""
        self.stop()
        if self._idle_watchers is not None:
            self._idle_watchers.close()
        if self._kick >= 0:
            os.close(self._kick)
            self._kick = -1


class _EngineForWarmUp:
    """A throw-away engine of one function, so that compiling never touches live state."""

    def __enter__(self) -> Engine:
        self._engine = Engine([1])
        return self._engine

    def __exit__(self, *_: object) -> None:
        self._engine.close()
