"""Watches a card for those who write drivers: a trace of what its guests do, a capture of their frames.

Two sources: the card's loop notes frames and interrupts in a ring (datapath/recorder.py), the control side appends to a
queue. Both are bounded and neither waits: what finds no room is lost, and counted. A thread takes from both and writes
to files; a file that cannot be written any more ends the watching, not the card.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from vfwire.datapath import recorder as ring
from vfwire.datapath.control_words import load_word, store_word
from vfwire.datapath.switch import forget_paths
from vfwire.devices.card import Card
from vfwire.errors import PermissionDenied, UsageError

_log = logging.getLogger(__name__)

_LONGEST_QUEUE = 1 << 16  # events of the control side that wait to be written
_PERIOD_SECONDS = 0.02
_SETTLE_NS = 5_000_000  # an event younger than this waits: an older one of the other source may still come
_STOP_SECONDS = 10.0


class Event(NamedTuple):
    """Something that happened to a function. time_ns: CLOCK_MONOTONIC. kind: what it is, `what`: all else of it."""

    time_ns: int
    function: int
    kind: str
    what: tuple[Any, ...]


class Sink(Protocol):
    """A file that events go to."""

    wants: int  # RECORD_* bits: what the loop shall note for it

    def write(self, event: Event) -> None:
        """Write it, or leave it alone. Raises OSError."""
        ...

    def flush(self) -> None:
        """What was written can be read now. Raises OSError."""
        ...

    def close(self, lost: int) -> None:
        """No more events; `lost` found no room. Raises OSError."""
        ...


def open_file(path: Path, what: str) -> Any:
    """Open a file to write bytes. Raises PermissionDenied, UsageError."""
    try:
        return path.open("wb")
    except PermissionError as error:
        raise PermissionDenied(f"the {what} cannot be written to {path}: {error.strerror}") from error
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be written to {path}: {error.strerror}", "give another file"
        ) from error


class Recorder:
    """Watches `card` from now until `close`, for the sinks given. A sink that fails is given up, and raises nothing."""

    def __init__(self, card: Card, sinks: list[Sink]) -> None:
        self.card = card
        self.written = 0
        self._sinks = list(sinks)
        self._all = list(sinks)
        self._queue: deque[Event] = deque()
        self._queue_lost = 0
        self._memory = np.zeros(ring.RECORDER_MEMORY, np.uint8)
        self._address = int(self._memory.ctypes.data)
        self._waiting: list[Event] = []
        self._end = threading.Event()
        self._watch(self._address, sum({sink.wants for sink in sinks}))
        self._thread = threading.Thread(target=self._run, name="vfwire-recorder", daemon=True)
        self._thread.start()

    def _watch(self, address: int, wants: int) -> None:
        with self.card.engine.parked() as state:
            state.control[0].recorder = address
            for function in self.card.functions:
                state.functions[function.port.function].recorded = wants
            forget_paths(state)

    @property
    def lost(self) -> int:
        """Events that found no room."""
        return self._queue_lost + int(load_word(self._address + ring.LOST))

    def counters(self) -> dict[str, int]:
        return {"written": self.written, "lost": self.lost}

    def note(self, function: int, kind: str, *what: Any) -> None:
        """From the control side's threads: takes a microsecond, never waits."""
        if len(self._queue) < _LONGEST_QUEUE:
            self._queue.append(Event(time.monotonic_ns(), function, kind, what))
        else:
            self._queue_lost += 1

    def _run(self) -> None:
        while not self._end.wait(_PERIOD_SECONDS):
            self._move(time.monotonic_ns() - _SETTLE_NS)
        self._move(time.monotonic_ns())

    def _move(self, until_ns: int) -> None:
        """Write all events up to a time, in the order of their times."""
        self._waiting += self._from_ring()
        for _ in range(len(self._queue)):
            self._waiting.append(self._queue.popleft())
        self._waiting.sort(key=lambda event: event.time_ns)
        count = sum(1 for event in self._waiting if event.time_ns <= until_ns)
        for event in self._waiting[:count]:
            self.written += 1
            self._each(lambda sink, event=event: sink.write(event))  # type: ignore[misc]
        if count:
            self._each(lambda sink: sink.flush())
        del self._waiting[:count]

    def _from_ring(self) -> Iterator[Event]:
        write = load_word(self._address + ring.WRITE)
        read = load_word(self._address + ring.READ)
        while read < write:
            place = read & (ring.RECORDER_BYTES - 1)
            head = self._memory[ring.DATA + place : ring.DATA + place + ring.HEAD].tobytes()
            size = int.from_bytes(head[:4], "little")
            if size == ring.SKIP:
                read += ring.RECORDER_BYTES - place
                continue
            yield self._decode(place, head)
            read += size
            store_word(self._address + ring.READ, read)

    def _decode(self, place: int, head: bytes) -> Event:
        kind, function, number = (
            int.from_bytes(head[at : at + 4], "little")
            for at in (ring.AT_KIND, ring.AT_FUNCTION, ring.AT_NUMBER)
        )
        time_ns = int.from_bytes(head[ring.AT_TIME : ring.AT_TIME + 8], "little")
        if kind == ring.INTERRUPT:
            return Event(time_ns, function, "interrupt", (number,))
        start = ring.DATA + place + ring.HEAD
        frame = self._memory[start : start + number].tobytes()
        return Event(time_ns, function, "frame", (kind == ring.SENT, frame))

    def _each(self, do: Callable[[Sink], None]) -> None:
        for sink in list(self._sinks):
            try:
                do(sink)
            except OSError as error:
                self._sinks.remove(sink)
                _log.warning("%s: nothing more is recorded there: %s", sink, error.strerror)

    def close(self) -> None:
        """Stop watching, write what is left. Safe to call twice."""
        if self._end.is_set():
            return
        self._watch(0, 0)
        self._end.set()
        self._thread.join(_STOP_SECONDS)
        if self.lost:
            _log.warning("%s: %d events found no room and are not recorded", self.card.name, self.lost)
        for sink in self._all:
            with contextlib.suppress(OSError):
                sink.close(self.lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
