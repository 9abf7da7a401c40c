"""A trace: each access of a guest that traps, each message between function and card, each interrupt, by name and time.

    0.481203  card0/0  write      VFMAILBOX                0x00000001  REQ
    0.481214  card0/0  mailbox    VF to PF  VF_API_NEGOTIATE  00000008 00000008
    0.481530  card0/0  interrupt  2

Or JSON Lines, an object for each. Accesses to pages that a guest maps are not seen; with `--exact` none is mapped.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfwire.datapath.recorder import RECORD_INTERRUPTS
from vfwire.devices.card import Card
from vfwire.devices.recorder import Event, Recorder, open_file
from vfwire.memory.shared import SharedMemory
from vfwire.pci.endpoint import Endpoint, Region, RegionIndex
from vfwire.pci.naming import RegisterNames

_LONGEST_VALUE = 8  # bytes; of longer accesses the length is told


class TraceFile:
    """Writes events to `path`: text, or JSON Lines where its name ends in .jsonl. Raises as `open_file` does."""

    wants = RECORD_INTERRUPTS

    def __init__(self, card: Card, path: Path) -> None:
        self.path = path
        self._file = open_file(path, "trace")
        self._json = path.suffix == ".jsonl"
        self._start_ns = time.monotonic_ns()
        self._names = {function.port.function: (function.name, function.names) for function in card.functions}
        begun = {"event": "trace", "card": card.name, "model": card.model, "unix_time": round(time.time(), 6)}
        self._line(
            begun, f"# {card.name}, {card.model}, begun at {time.strftime('%F %T %z')}; times in seconds"
        )
        self._file.flush()

    def __str__(self) -> str:
        return str(self.path)

    def _line(self, record: dict[str, Any], text: str) -> None:
        self._file.write((json.dumps(record) if self._json else text).encode() + b"\n")

    def write(self, event: Event) -> None:
        if event.kind == "frame":
            return
        function, names = self._names[event.function]
        seconds = (event.time_ns - self._start_ns) / 1e9
        details, text = _describe(event, names)
        record = {"time": round(seconds, 9), "function": function, "event": event.kind, **details}
        self._line(record, f"{seconds:12.6f}  {function}  {event.kind:9}  {text}".rstrip())

    def flush(self) -> None:
        self._file.flush()

    def close(self, lost: int) -> None:
        with self._file:
            self._line({"event": "end", "lost": lost}, f"# end; {lost} events lost")


def _describe(event: Event, names: RegisterNames) -> tuple[dict[str, Any], str]:
    """An event's own part of the line, as JSON and as text."""
    if event.kind in ("read", "write"):
        region, offset, data = event.what
        return _access(names, region, offset, data)
    if event.kind == "interrupt":
        return {"vector": event.what[0]}, str(event.what[0])
    if event.kind == "dma map":
        iova, size, access = event.what
        return {"iova": iova, "size": size, "access": access}, f"{iova:#x} + {size:#x}  {access}"
    if event.kind == "dma unmap":
        iova, size = event.what
        return {"iova": iova, "size": size}, f"{iova:#x} + {size:#x}"
    if event.kind == "irqs":
        start, count = event.what
        return {"start": start, "count": count}, f"vectors {start} to {start + count - 1}"
    if len(event.what) == 3:
        direction, message, words = event.what
        shown = " ".join(f"{word:08x}" for word in words)
        details = {"direction": direction, "message": message, "words": list(words)}
        return details, f"{direction}  {message}  {shown}"
    return {}, ""


def _access(names: RegisterNames, region: int, offset: int, data: bytes) -> tuple[dict[str, Any], str]:
    place = RegionIndex(region).name if region in RegionIndex.__members__.values() else str(region)
    name = names.name(region, offset)
    details: dict[str, Any] = {"region": place, "offset": offset, "register": name, "bytes": len(data)}
    label = name or f"{place}+{offset:#06x}"
    if len(data) > _LONGEST_VALUE:
        return details, f"{label:<22}  {len(data)} bytes"
    value = int.from_bytes(data, "little")
    bits = names.bits(name, value)
    details |= {"value": value, "bits": bits}
    return details, f"{label:<22}  {value:#0{2 + 2 * len(data)}x}  {' '.join(bits)}".rstrip()


class TracedFunction:
    """A function that tells a recorder what is asked of it: what a transport serves in its place (pci/endpoint.py)."""

    def __init__(self, function: Any, recorder: Recorder) -> None:
        self.name: str = function.name
        self._function: Endpoint = function
        self._number: int = function.port.function
        self._recorder = recorder
        function.watch_messages(self._message)

    def _note(self, kind: str, *what: Any) -> None:
        self._recorder.note(self._number, kind, *what)

    def _message(self, channel: str, direction: str, name: str, words: Sequence[int]) -> None:
        self._note(channel, direction, name, tuple(words))

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._function.regions

    @property
    def irq_counts(self) -> tuple[int, ...]:
        return self._function.irq_counts

    def attach(self) -> None:
        self._note("attach")
        self._function.attach()

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        data = self._function.region_read(index, offset, count)
        self._note("read", index, offset, data)
        return data

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        self._note("write", index, offset, data)  # first, for what it brings about
        self._function.region_write(index, offset, data)

    def dma_map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        access = ("r" if readable else "") + ("w" if writable else "") + ("" if memory else ", no descriptor")
        self._note("dma map", iova, size, access)
        self._function.dma_map(iova, size, memory, readable=readable, writable=writable)

    def dma_unmap(self, iova: int, size: int) -> int:
        self._note("dma unmap", iova, size)
        return self._function.dma_unmap(iova, size)

    def dma_unmap_all(self) -> None:
        self._note("dma unmap all")
        self._function.dma_unmap_all()

    def set_irqs(self, index: int, start: int, eventfds: list[int]) -> None:
        self._note("irqs", start, len(eventfds))
        self._function.set_irqs(index, start, eventfds)

    def disable_irqs(self, index: int) -> None:
        self._note("irqs off")
        self._function.disable_irqs(index)

    def trigger_irqs(self, index: int, start: int, flags: list[bool]) -> None:
        self._function.trigger_irqs(index, start, flags)

    def reset(self) -> None:
        self._note("reset")
        self._function.reset()

    def detach(self) -> None:
        self._function.detach()
        self._note("detach")
