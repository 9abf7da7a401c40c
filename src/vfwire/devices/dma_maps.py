"""Guest memory that a function may reach: the ranges that its guest has mapped, as rows for the data path.

The loop knows a range from the moment that `map` returns until `unmap` has parked it: after that nothing in
the state leads to the memory any more, and only then is it unmapped here.
"""

import errno
from bisect import bisect_left, insort
from dataclasses import dataclass

from vfwire.datapath.state import MAPS, QUEUES
from vfwire.datapath.switch import forget_paths
from vfwire.devices.engine import Engine
from vfwire.errors import BadAccess, ProtocolError
from vfwire.memory.shared import SharedMemory

RANGES = 4096  # ranges of one guest, with those that have no descriptor
_LIMIT = 1 << 63  # the data path's addresses are signed


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
        self._function = function
        self._starts: list[int] = []
        self._ranges: dict[int, _Range] = {}

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def entered(self) -> int:
        """How many of the ranges the data path can reach."""
        return sum(item.entered for item in self._ranges.values())

    def map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        """Remember a range; enter it where it has memory that may be read.

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
        item = _Range(iova, size, memory, enter)
        if enter:
            self._enter(item, writable)
        insort(self._starts, iova)
        self._ranges[iova] = item

    def _enter(self, item: _Range, writable: bool) -> None:
        assert item.memory is not None
        with self._engine.parked() as state:
            row = state.maps[self._function * MAPS + self.entered]
            row.start, row.end = item.iova, item.iova + item.size
            row.delta, row.writable = item.memory.address - item.iova, int(writable)

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
        with self._engine.parked() as state:
            first = self._function * MAPS
            state.maps[first : first + MAPS] = 0
            self._forget(range(-(1 << 63), (1 << 63) - 1))
        ranges = list(self._ranges.values())
        self._ranges.clear()
        self._starts.clear()
        for item in ranges:
            if item.memory is not None:
                item.memory.close()

    def _remove(self, item: _Range) -> None:
        """Take the row out; the last one takes its place, so that the rows in use stay together."""
        last = self._function * MAPS + self.entered - 1
        with self._engine.parked() as state:
            for number in range(self._function * MAPS, last + 1):
                if state.maps[number].start == item.iova and state.maps[number].end:
                    state.maps[number] = state.maps[last]
                    state.maps[last] = 0
                    break
            assert item.memory is not None
            start = item.memory.address
            self._forget(range(start, start + item.size))

    def _forget(self, gone: range) -> None:
        """No queue remembers a map of this function, and no ring that lay in `gone` (addresses here) is used
        again.
        """
        state = self._engine.state
        queues = slice(self._function * QUEUES, (self._function + 1) * QUEUES)
        for side in (state.tx, state.rx):
            for queue in side[queues]:
                queue.map_start = queue.map_end = queue.map_delta = 0
                if queue.on and queue.ring < gone.stop and queue.ring + queue.size * 16 > gone.start:
                    queue.on = 0
        forget_paths(state)
