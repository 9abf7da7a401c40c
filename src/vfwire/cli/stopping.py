"""SIGINT and SIGTERM for commands that run until they are stopped."""

import contextlib
import signal
from collections.abc import Callable, Iterator


class Stop:
    """Set by a signal. Until `arm` gives it something to call, a signal interrupts what is done (compiling takes
    its time).
    """

    def __init__(self) -> None:
        self._call: Callable[[], None] | None = None

    def arm(self, call: Callable[[], None]) -> None:
        """From now on a signal calls this, and no exception breaks in."""
        self._call = call

    def disarm(self) -> None:
        """What was to be called is gone: a signal does nothing any more."""
        self._call = _nothing

    def by_signal(self, _number: int, _frame: object) -> None:
        if self._call is None:
            raise KeyboardInterrupt
        self._call()


def _nothing() -> None:
    return


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """A `Stop` that the signals reach; the handlers before are put back."""
    stop = Stop()
    before = {number: signal.signal(number, stop.by_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
