"""Waiting for a condition in tests: bounded, and it says what did not happen."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], what: str = "it", seconds: float = 20.0) -> None:
    """Look every millisecond. A thread of the lowest class has what cores others leave: it may take its time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.001)
