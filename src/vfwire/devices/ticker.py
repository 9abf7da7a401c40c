"""A thread that calls something again and again until it is closed: a card's clock."""

import logging
import threading
from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)
_STOP_SECONDS = 5.0


class Ticker:
    """Calls each of `calls` every `seconds`. One that fails is logged, and called again the next time."""

    def __init__(self, seconds: float, calls: Sequence[Callable[[], None]]) -> None:
        self._seconds = seconds
        self._calls = calls
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vfwire-clock", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            for call in self._calls:
                try:
                    call()
                except Exception:
                    _log.exception("a function's clock failed")

    def close(self) -> None:
        """No call is under way when this returns. Safe to call twice."""
        self._end.set()
        self._thread.join(_STOP_SECONDS)
