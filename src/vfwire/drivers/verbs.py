"""What every driver offers: a short table of verbs, and the pool of buffers they share."""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.port import FRAME, LARGEST_POOL, POOL, QUEUE, reciprocal_of
from vfwire.memory.shared import PAGE, SharedMemory


def burst(entries: int) -> Any:
    """An empty array of FRAME records for `entries` frames (datapath/port.py), as compiled loops and verbs take it."""
    return np.zeros(entries, FRAME).view(np.recarray)


def queue_records(count: int) -> Any:
    """An array of `count` QUEUE records (datapath/port.py), as drivers keep them."""
    return np.zeros(count, QUEUE).view(np.recarray)


SPREAD_BYTES = 64


class Pool:
    """A system's memory for frames: `count` buffers of `buffer_bytes` in one sealed memfd.

    `memory` also has room for a driver's rings: `reserve` takes aligned bytes off its end.
    spread: put a cache line between buffers. At a stride of 2 KiB the first lines of all buffers fall into a
    thirty-second of a cache's sets and push each other out; a line more spreads them.
    Drivers that grant whole pages want them unspread, two to a page.
    """

    def __init__(
        self,
        count: int = 8192,
        buffer_bytes: int = 2048,
        headroom: int = 0,
        rings: int = 1 << 20,
        *,
        spread: bool = True,
    ) -> None:
        stride = buffer_bytes + (SPREAD_BYTES if spread else 0)
        buffers = -(-count * stride // PAGE) * PAGE
        if count < 1 or buffer_bytes < 1024 or not 0 <= headroom < buffer_bytes or buffers > LARGEST_POOL:
            raise ValueError("a pool wants 1 buffer or more, of 1,024 bytes or more, in 512 MiB at the most")
        self.memory = SharedMemory.create("vfwire-pool", buffers + rings)
        self.words: Any = np.zeros(1, POOL).view(np.recarray)
        self.stack: NDArray[np.int64] = self.memory.address + np.arange(count, dtype=np.int64)[::-1] * stride
        words = self.words[0]
        words.free = words.buffers = count
        words.buffer_bytes, words.stride, words.headroom = buffer_bytes, stride, headroom
        words.reciprocal = reciprocal_of(stride)
        words.first = self.memory.address
        self.buffer_bytes = buffer_bytes
        self.stride = stride
        self._reserved = buffers

    def reserve(self, size: int, alignment: int = 4096) -> int:
        """The address of `size` zeroed bytes in this memory that are no buffer's. Raises MemoryError when full."""
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

    def views(self, frames: Any) -> list[NDArray[np.uint8]]:
        """The bytes of each entry of a burst (uint8[length]), without a copy: write to change what is sent."""
        return [
            self.view(address, length)
            for address, length in zip(frames.address.tolist(), frames.length.tolist(), strict=True)
        ]

    def take(self, frames: Any, length: int) -> int:
        """Have entries of a burst point to free buffers, as frames of `length` bytes (what lies there is old).

        Returns how many: fewer than len(frames) when the pool runs low. They are the caller's, to send or give.
        """
        words = self.words[0]
        if not 0 < length <= self.buffer_bytes - int(words.headroom):
            raise ValueError(f"a frame of {length} bytes does not fit into a buffer")
        free = int(words.free)
        count = min(len(frames), free)
        taken = frames[:count]
        taken[:] = np.zeros((), FRAME)
        taken.address = self.stack[free - count : free][::-1] + int(words.headroom)
        taken.length = length
        words.free = free - count
        return count

    def give(self, frames: Any) -> None:
        """Give the buffers of a burst's entries back: those received and not sent, or not taken by `transmit`."""
        words = self.words[0]
        free = int(words.free)
        base = int(words.first)
        self.stack[free : free + len(frames)] = (frames.address - base) // self.stride * self.stride + base
        words.free = free + len(frames)

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


class WakingDriver(Driver, Protocol):
    """A driver that an application can sleep on: arm, look once more (`receive`), poll `event_fds`, disarm."""

    @property
    def event_fds(self) -> list[int]:
        """Readable when a frame has come since `arm`, or whoever is behind the driver has something to say."""
        ...

    def arm(self) -> bool:
        """Ask for an event with the next frame. True when one is there already; False promises nothing."""
        ...

    def disarm(self) -> None:
        """Awake again: no more events are wanted."""
        ...

    def check(self) -> None:
        """Raises PeerGone when the card or the layer has gone."""
        ...

    def link_up(self) -> bool: ...

    def must_restart(self) -> bool:
        """Whether whoever is behind the driver wants a `restart`, as a PF does after it changed a setting."""
        ...

    def restart(self) -> None:
        """Start again; the MAC may be another afterwards."""
        ...

    def listen(self, groups: list[bytes]) -> None:
        """Receive these multicast MAC addresses."""
        ...
