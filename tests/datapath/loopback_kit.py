"""A wire without a card: a driver's transmit ring is moved to a receive ring by plain Python, descriptor by descriptor.

What the card does is retyped here from the datasheet's layouts (7.1.6, 7.2.3), so that compiled applications run on the
82599 driver's own loops, compiled or not, in one thread or in several.
"""

import ctypes
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vfwire.datapath.ixgbevf_driver import ixgbevf_start
from vfwire.datapath.port import IXGBEVF, QUEUE
from vfwire.drivers.verbs import DriverInfo, Pool

RING = 128
TX_DONE, RX_DONE, RX_END = 1 << 32, 1 << 0, 1 << 1
CONTEXT_TYPE, TYPE_MASK = 2 << 20, 0xF << 20


def load64(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def store64(address: int, value: int) -> None:
    ctypes.c_int64.from_address(address).value = value


@dataclass
class LoopDriver:
    """What an application needs of a driver: its queues, its pool, its name."""

    mac: bytes
    pool: Pool = field(default_factory=lambda: Pool(1024))
    info: DriverInfo = field(default_factory=lambda: DriverInfo("ixgbevf", "0", "loop"))
    mtu: int = 1500

    def __post_init__(self) -> None:
        self.kept: list[Any] = []
        self.rx, self.tx = self._queue(), self._queue()
        ixgbevf_start(self.rx, self.tx, self.pool.words, self.pool.stack)

    def _queue(self) -> Any:
        queue = np.zeros(1, QUEUE).view(np.recarray)
        slots = np.zeros(RING, np.int64)
        doorbell = np.zeros(1, np.int64)
        self.kept += [slots, doorbell]
        queue["kind"], queue["size"], queue["event"] = IXGBEVF, RING, -1
        queue["ring"] = self.pool.reserve(RING * 16)
        queue["slots"], queue["doorbell"] = slots.ctypes.data, doorbell.ctypes.data
        return queue


class Wire:
    """One way, from a driver's transmit ring to another's receive ring. What finds no descriptor is counted as lost."""

    def __init__(self, source: LoopDriver, to: LoopDriver) -> None:
        self._tx, self._rx = source.tx, to.rx
        self._sent = self._received = 0
        self.lost = 0

    def move(self) -> int:
        """All that has been announced; returns how many frames that were."""
        moved = 0
        tail = load64(int(self._tx["doorbell"][0])) & 0xFFFF_FFFF
        while self._sent % RING != tail:
            entry = int(self._tx["ring"][0]) + self._sent % RING * 16
            word = load64(entry + 8)
            if word & TYPE_MASK != CONTEXT_TYPE:
                self._deliver(load64(entry), word & 0xFFFF)
                moved += 1
            store64(entry + 8, TX_DONE)
            self._sent += 1
        return moved

    def _deliver(self, address: int, length: int) -> None:
        tail = load64(int(self._rx["doorbell"][0])) & 0xFFFF_FFFF
        if self._received % RING == tail:
            self.lost += 1
            return
        entry = int(self._rx["ring"][0]) + self._received % RING * 16
        ctypes.memmove(load64(entry), address, length)
        store64(entry, 0)
        store64(entry + 8, RX_DONE | RX_END | length << 32)
        self._received += 1


class Pump:
    """Wires that move by themselves, in a thread, until the end of the block."""

    def __init__(self, *wires: Wire) -> None:
        self._wires = wires
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.is_set():
            if not sum(wire.move() for wire in self._wires):
                self._end.wait(0.0001)

    def __enter__(self) -> "Pump":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)
