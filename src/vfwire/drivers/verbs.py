"""What every driver offers: a short table of verbs, and the pool of buffers they share."""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.port import FRAME, POOL
from vfwire.memory.shared import SharedMemory


def burst(entries: int) -> Any:
    """An empty array of FRAME records for `entries` frames (datapath/port.py), as compiled loops and verbs take it."""
    return np.zeros(entries, FRAME).view(np.recarray)


class Pool:
    """A system's memory for frames: `count` buffers of `buffer_bytes` (a power of two) in one sealed memfd.

    `memory` also has room for a driver's rings: `reserve` takes aligned bytes off its end.
    """

    def __init__(self, count: int = 8192, buffer_bytes: int = 2048, headroom: int = 0, rings: int = 1 << 20) -> None:
        if count < 1 or buffer_bytes & (buffer_bytes - 1) or not 0 <= headroom < buffer_bytes:
            raise ValueError("a pool wants at least one buffer, of a size that is a power of two")
        self.memory = SharedMemory.create("vfwire-pool", count * buffer_bytes + rings)
        self.words: Any = np.zeros(1, POOL).view(np.recarray)
        self.stack: NDArray[np.int64] = self.memory.address + np.arange(count, dtype=np.int64)[::-1] * buffer_bytes
        self.words[0].free = count
        self.words[0].buffers = count
        self.words[0].buffer_bytes = buffer_bytes
        self.words[0].headroom = headroom
        self.words[0].base = self.memory.address
        self.buffer_bytes = buffer_bytes
        self._reserved = count * buffer_bytes

    def reserve(self, size: int, alignment: int = 4096) -> int:
        """The address of `size` zeroed bytes in this memory that are no buffer's. Raises MemoryError when it is full."""
        start = -(-self._reserved // alignment) * alignment
        if start + size > self.memory.size:
            raise MemoryError("the pool has no room for more rings")
        self._reserved = start + size
        return self.memory.address + start

    def view(self, address: int, length: int) -> NDArray[np.uint8]:
        """The bytes at `address`, which must lie in this memory, without a copy."""
        offset = address - self.memory.address
        if offset < 0 or offset + length > self.memory.size:
            raise ValueError("address outside the pool")
        return self.memory.array[offset : offset + length]

    def close(self) -> None:
        self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """What `ethtool -i` would say."""

    driver: str
    version: str
    bus_info: str


class Driver(Protocol):
    """A started driver. `rx`, `tx`: record arrays of QUEUE; `pool`: where its buffers live."""

    info: DriverInfo
    mac: bytes
    mtu: int
    rx: Any
    tx: Any
    pool: Pool

    def receive(self, frames: Any, limit: int = 0, queue: int = 0) -> int:
        """Fill `frames` (see `burst`) with up to `limit` frames (0: as many as fit); the caller owns their buffers."""
        ...

    def transmit(self, frames: Any, count: int, queue: int = 0) -> int:
        """Send the first `count`; returns how many were taken."""
        ...

    def stats(self) -> dict[str, int]:
        """Counters by the names that `ethtool -S` shows."""
        ...

    def stop(self) -> None: ...

    def close(self) -> None: ...
