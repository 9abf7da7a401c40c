"""Guest memory that a function may reach: the ranges that its guest has mapped, as rows for the data path.

The loop knows a range from the moment that `map` returns until `unmap` has parked it: after that nothing in
the state leads to the memory any more, and only then is it unmapped here.
"""

import errno
import resource
from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from vfwire.datapath.state import MAPS, QUEUES
from vfwire.datapath.switch import forget_paths
from vfwire.devices.engine import Engine
from vfwire.errors import BadAccess, ProtocolError
from vfwire.layouts.ixgbevf import DESCRIPTOR_SIZE
from vfwire.memory.shared import SharedMemory

RANGES = 4096  # ranges of one guest, with those that have no descriptor
_LIMIT = 1 << 63  # the data path's addresses are signed


def allow_descriptors() -> None:
    """Let this process have as many descriptors as it may: each range of each guest takes two, and what one guest
    uses up must not be missing for the others.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True, slots=True)
class _Range:
    iova: int
    size: int
    memory: SharedMemory | None
    entered: bool


class DmaMaps:
    """The maps of one function. Owns the memory of each range until it is unmapped."""

    def __init__(self, engine: Engine, function: int) -> None:
        self._engine = engine
        rows = slice(function * QUEUES, (function + 1) * QUEUES)
        self._queues = [side.view(np.ndarray)[rows] for side in (engine.state.tx, engine.state.rx)]
        self._rows = engine.state.maps.view(np.ndarray)[function * MAPS : (function + 1) * MAPS]
        self._starts: list[int] = []
        self._ranges: dict[int, _Range] = {}
        self._entered = 0

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def entered(self) -> int:
        """How many of the ranges the data path can reach."""
        return self._entered

    def map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        """Remember a range; enter it where it has memory that may be read.

        Memory that the data path cannot use is closed at once: descriptors and mappings are the whole card's.
        Raises ProtocolError: EEXIST for a range that overlaps one, ENOSPC when there are too many, EINVAL.
        The memory is the caller's still when it raises.
        """
        if size <= 0 or iova < 0 or iova + size > _LIMIT:
            raise ProtocolError("DMA range is empty or too high", errno=errno.EINVAL)
        place = bisect_left(self._starts, iova + size)
        if place and self._starts[place - 1] + self._ranges[self._starts[place - 1]].size > iova:
            raise ProtocolError("DMA range overlaps another", errno=errno.EEXIST)
        enter = memory is not None and readable
        if len(self._ranges) >= RANGES or (enter and self.entered >= MAPS):
            raise ProtocolError("too many DMA ranges", errno=errno.ENOSPC)
        item = _Range(iova, size, memory if enter else None, enter)
        if enter:
            self._enter(item, writable)
        elif memory is not None:
            memory.close()
        insort(self._starts, iova)
        self._ranges[iova] = item

    def _enter(self, item: _Range, writable: bool) -> None:
        assert item.memory is not None
        with self._engine.parked():
            self._rows[self._entered] = (
                item.iova,
                item.iova + item.size,
                item.memory.address - item.iova,
                int(writable),
            )
        self._entered += 1

    def unmap(self, iova: int, size: int) -> None:
        """Exactly one range goes. Returns when the data path has let go. Raises BadAccess (ENOENT) where
        there is none.
        """
        item = self._ranges.get(iova)
        if item is None or item.size != size:
            raise BadAccess("no such DMA range", errno=errno.ENOENT)
        if item.entered:
            self._remove(item)
        del self._ranges[iova]
        self._starts.pop(bisect_left(self._starts, iova))
        if item.memory is not None:
            item.memory.close()

    def unmap_all(self) -> None:
        """All go. The loop stands still once for all of them."""
        with self._engine.parked():
            self._rows[: self._entered] = 0
            self._forget(0, (1 << 63) - 1)
        self._entered = 0
        ranges = list(self._ranges.values())
        self._ranges.clear()
        self._starts.clear()
        for item in ranges:
            if item.memory is not None:
                item.memory.close()

    def _remove(self, item: _Range) -> None:
        """Take the row out; the last one takes its place, so that the rows in use stay together."""
        assert item.memory is not None
        start, last = item.memory.address, self._entered - 1
        with self._engine.parked():
            place = int(np.flatnonzero(self._rows["start"][: self._entered] == item.iova)[0])
            self._rows[place] = self._rows[last]
            self._rows[last] = 0
            self._forget(start, start + item.size)
        self._entered = last

    def _forget(self, start: int, end: int) -> None:
        """No queue remembers a map of this function, and no ring that lay in [start, end) (addresses here) is
        used again.
        """
        for queues in self._queues:
            for name in ("map_start", "map_end", "map_delta"):
                queues[name] = 0
            ring = queues["ring"]
            queues["on"][(ring < end) & (ring + queues["size"] * DESCRIPTOR_SIZE > start)] = 0
        forget_paths(self._engine.state)
