"""Guest memory that a function may reach: the ranges that its guest has mapped, as rows for the data path.

Under an IOMMU of its own (QEMU's) a guest maps page by page, and what lies side by side in I/O addresses comes from
all over its memory. So ranges are mapped into windows: addresses set aside here in which they lie as they lie in I/O
addresses. Ranges that touch are one row, and rings and frames may cross from one into the next.

The loop knows a range from the moment that `map` returns until `unmap` has parked it: after that nothing in
the state leads to the memory any more, and only then is it unmapped here.
"""

import contextlib
import errno
import resource
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from vfwire.datapath.state import MAPS, QUEUES
from vfwire.datapath.switch import forget_paths
from vfwire.devices.engine import Engine
from vfwire.errors import BadAccess, ProtocolError
from vfwire.layouts.ixgbevf import DESCRIPTOR_SIZE
from vfwire.memory.shared import SharedMemory
from vfwire.memory.window import Window

RANGES = 16384  # of one guest, with those that have no descriptor: 64 MiB page by page
_ALL_RANGES = 32768  # of all guests: half of the mappings that Linux lets a process have (vm.max_map_count)
_LIMIT = 1 << 63  # the data path's addresses are signed
_BEFORE, _BEHIND = 1 << 29, 1 << 30  # room of a window around its first range: a pool has 512 MiB at the most


def allow_descriptors() -> None:
    """Let this process have as many descriptors as it may: guests hand in eventfds and memory, and what one guest
    uses up must not be missing for the others.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(eq=False, slots=True)
class _Block:
    """I/O addresses [start, end) and the window that shows them here."""

    start: int
    end: int
    window: Window
    ranges: int = 0


@dataclass(frozen=True, slots=True)
class _Range:
    """What the guest has mapped. block None: the data path cannot use it."""

    iova: int
    end: int
    block: _Block | None
    writable: bool


@dataclass(eq=False, slots=True)
class _Run:
    """Ranges of one block that touch: one row of the data path."""

    start: int
    end: int
    block: _Block
    writable: bool
    row: int

    @property
    def entry(self) -> tuple[int, int, int, int]:
        return self.start, self.end, self.block.window.address - self.block.start, int(self.writable)


_START = attrgetter("start")
_IOVA = attrgetter("iova")


class DmaMaps:
    """The maps of one function."""

    def __init__(self, engine: Engine, function: int) -> None:
        self._engine = engine
        rows = slice(function * QUEUES, (function + 1) * QUEUES)
        self._queues = [side.view(np.ndarray)[rows] for side in (engine.state.tx, engine.state.rx)]
        self._rows = engine.state.maps.view(np.ndarray)[function * MAPS : (function + 1) * MAPS]
        self._most = min(RANGES, _ALL_RANGES // len(engine.state.functions))
        self._ranges: list[_Range] = []  # by I/O address, as the next
        self._runs: list[_Run] = []
        self._blocks: list[_Block] = []

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def entered(self) -> int:
        """How many rows the data path has."""
        return len(self._runs)

    def map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        """Remember a range; enter it where it has memory that may be read. The memory is closed when this returns:
        the window holds what it needs of it.

        Raises ProtocolError: EEXIST for a range that overlaps one, ENOSPC when there are too many, EINVAL, ENOMEM.
        The memory is the caller's still when it raises.
        """
        if size <= 0 or iova < 0 or iova + size > _LIMIT:
            raise ProtocolError("DMA range is empty or too high", errno=errno.EINVAL)
        end = iova + size
        place = bisect_left(self._ranges, end, key=_IOVA)
        if place and self._ranges[place - 1].end > iova:
            raise ProtocolError("DMA range overlaps another", errno=errno.EEXIST)
        if len(self._ranges) >= self._most:
            raise ProtocolError("too many DMA ranges", errno=errno.ENOSPC)
        block = None
        if memory is not None and readable:
            block = self._enter(iova, end, memory, writable)
        if memory is not None:
            memory.close()
        self._ranges.insert(place, _Range(iova, end, block, writable))

    def _enter(self, iova: int, end: int, memory: SharedMemory, writable: bool) -> _Block:
        block = next((one for one in self._blocks if one.start <= iova and end <= one.end), None)
        left, right = self._neighbours(iova, end, block, writable)
        if left is None and right is None and len(self._runs) >= MAPS:
            raise ProtocolError("too many separate DMA ranges", errno=errno.ENOSPC)
        try:
            if block is None:
                block = _new_block(iova, end)
                self._blocks.append(block)
            block.window.place(iova - block.start, end - iova, memory.fd, memory.offset, writable=writable)
        except OSError as error:
            self._drop_empty_blocks()
            raise ProtocolError(
                f"DMA range cannot be mapped: {error.strerror}", errno=errno.ENOMEM
            ) from error
        try:
            self._show(iova, end, block, writable, left, right)
        except BaseException:
            self._drop_empty_blocks()
            raise
        block.ranges += 1
        return block

    def _show(
        self, iova: int, end: int, block: _Block, writable: bool, left: _Run | None, right: _Run | None
    ) -> None:
        """Let the data path know of a range, by itself or with the runs that it prolongs."""
        with self._engine.parked():
            if left is not None and right is not None:
                self._resize(left, left.start, right.end)
                self._take_out(right)
            elif left is not None:
                self._resize(left, left.start, end)
            elif right is not None:
                self._resize(right, iova, right.end)
            else:
                self._put_in(iova, end, block, writable)

    def _neighbours(
        self, iova: int, end: int, block: _Block | None, writable: bool
    ) -> tuple[_Run | None, _Run | None]:
        """The runs that a new range would prolong, to its left and to its right."""
        at = bisect_left(self._runs, iova, key=_START)
        found: list[_Run | None] = [None, None]
        for side, (place, edge) in enumerate(((at - 1, iova), (at, end))):
            if block is not None and 0 <= place < len(self._runs):
                run = self._runs[place]
                touches = (run.end if side == 0 else run.start) == edge
                if touches and run.block is block and run.writable == writable:
                    found[side] = run
        return found[0], found[1]

    def address_of(self, iova: int, size: int, *, writable: bool) -> int | None:
        """Where [iova, iova + size) lies in this process; None where no one run has all of it, or it is read-only."""
        for run in self._runs_in(iova, iova + size):
            if run.start <= iova and iova + size <= run.end and (run.writable or not writable):
                return iova + run.block.window.address - run.block.start
        return None

    def unmap(self, iova: int, size: int) -> int:
        """The ranges in [iova, iova + size) go: usually one, exactly; an IOMMU that is turned off names them
        all at once. Returns how many, when the data path has let go.

        Raises BadAccess (ENOENT) where there is none, or where one would have to be cut; ENOSPC when what is left
        around them has no row.
        """
        end = iova + size
        first, last = (bisect_left(self._ranges, edge, key=_IOVA) for edge in (iova, end))
        gone = self._ranges[first:last]
        cut = (first and self._ranges[first - 1].end > iova) or (gone and gone[-1].end > end)
        if not gone or cut:
            raise BadAccess("no such DMA range", errno=errno.ENOENT)
        runs = [run for run in self._runs_in(iova, end) if run.start < end and run.end > iova]
        if len(runs) == 1 and runs[0].start < iova and runs[0].end > end and len(self._runs) >= MAPS:
            raise ProtocolError("too many separate DMA ranges", errno=errno.ENOSPC)
        if runs:
            with self._engine.parked():
                for run in runs:
                    self._cut(run, max(iova, run.start), min(end, run.end))
        del self._ranges[first:last]
        self._release(gone)
        return len(gone)

    def _runs_in(self, iova: int, end: int) -> list[_Run]:
        first = max(0, bisect_right(self._runs, iova, key=_START) - 1)
        return self._runs[first : bisect_left(self._runs, end, key=_START)]

    def _cut(self, run: _Run, start: int, end: int) -> None:
        """Take [start, end) out of a run. The loop stands still."""
        delta = run.block.window.address - run.block.start
        self._forget(start + delta, end + delta)
        run_end = run.end
        if run.start < start:
            self._resize(run, run.start, start)
        else:
            self._take_out(run)
        if end < run_end:
            self._put_in(end, run_end, run.block, run.writable)

    def _release(self, gone: list[_Range]) -> None:
        """Nothing leads to these any more: unmap them here."""
        for item in gone:
            if item.block is not None:
                with contextlib.suppress(
                    OSError
                ):  # too many mappings to split one: it stays until its window goes
                    item.block.window.clear(item.iova - item.block.start, item.end - item.iova)
                item.block.ranges -= 1
        self._drop_empty_blocks()

    def _drop_empty_blocks(self) -> None:
        for block in [block for block in self._blocks if block.ranges == 0]:
            self._blocks.remove(block)
            block.window.close()

    def unmap_all(self) -> None:
        """All go. The loop stands still once for all of them."""
        with self._engine.parked():
            self._rows[:] = 0
            self._forget(0, _LIMIT - 1)
        self._ranges.clear()
        self._runs.clear()
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            block.window.close()

    # --- Rows, while the loop stands still ------------------------------------------------------------------

    def _put_in(self, start: int, end: int, block: _Block, writable: bool) -> None:
        run = _Run(start, end, block, writable, len(self._runs))
        insort(self._runs, run, key=_START)
        self._rows[run.row] = run.entry

    def _resize(self, run: _Run, start: int, end: int) -> None:
        run.start, run.end = start, end
        self._rows[run.row] = run.entry
        self._forget_maps()

    def _take_out(self, run: _Run) -> None:
        """The last row takes its place, so that the rows in use stay together."""
        last = max(self._runs, key=attrgetter("row"))
        self._runs.remove(run)
        self._rows[last.row] = 0
        if last is not run:
            last.row = run.row
            self._rows[last.row] = last.entry
        self._forget_maps()

    def _forget_maps(self) -> None:
        """No queue remembers a map of this function."""
        for queues in self._queues:
            for name in ("map_start", "map_end", "map_delta"):
                queues[name] = 0

    def _forget(self, start: int, end: int) -> None:
        """No map is remembered, and no ring that lay in [start, end) (addresses here) is used again."""
        self._forget_maps()
        for queues in self._queues:
            for ring, size in (
                (queues["ring"], queues["size"] * DESCRIPTOR_SIZE),
                (queues["completions"], queues["completion_size"] * queues["completion_bytes"]),
            ):
                queues["on"][(ring < end) & (ring + size > start)] = 0
        forget_paths(self._engine.state)


def _new_block(iova: int, end: int) -> _Block:
    """A window with room before and behind, where the next ranges of the same pool are expected."""
    start, stop = max(0, iova - _BEFORE), min(_LIMIT, end + _BEHIND)
    return _Block(start, stop, Window(stop - start))
