"""A virtualization layer in a thread, netfronts on it, and frames between them."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vfwire.drivers.netfront import Netfront
from vfwire.drivers.verbs import burst
from vfwire.paths.layer import VirtualizationLayer

ETHERTYPE = b"\x88\xb5"
BROADCAST = bytes([255] * 6)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        os.sched_yield()


class Running:
    """A layer in a thread, and netfronts on it."""

    def __init__(self, listen: Path, uplink: Any = None, **options: Any) -> None:
        options.setdefault("cap_bps", None)
        self.layer = VirtualizationLayer(listen, uplink, **options)
        self.fronts: list[Netfront] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self.layer.run, args=(self._ready.set,))
        self._thread.start()
        assert self._ready.wait(120)

    def front(self, **options: Any) -> Netfront:
        pool = Netfront.new_pool(1024)
        try:
            driver = Netfront.open(self.layer.listen, pool, **options)
        except BaseException:
            pool.close()
            raise
        self.fronts.append(driver)
        return driver

    def close_front(self, driver: Netfront) -> None:
        self.fronts.remove(driver)
        driver.close()
        driver.pool.close()

    def stop(self) -> None:
        self.layer.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def close(self) -> None:
        for driver in list(self.fronts):
            self.close_front(driver)
        self.stop()


def send(source: Netfront, to: bytes, payload: bytes = b"", size: int = 60) -> bytes:
    data = (to + source.mac + ETHERTYPE + payload).ljust(size, b"\0")
    frames = burst(1)
    words = source.pool.words[0]
    words.free -= 1
    frames[0].address = source.pool.stack[words.free]
    frames[0].length = len(data)
    source.pool.view(int(frames[0].address), size)[:] = np.frombuffer(data, np.uint8)
    wait_until(lambda: source.transmit(frames, 1) == 1, "room in the ring")
    return data


def receive(driver: Netfront) -> list[bytes]:
    frames = burst(64)
    found = []
    for frame in frames[: driver.receive(frames)]:
        address = int(frame.address)
        found.append(driver.pool.view(address, int(frame.length)).tobytes())
        words = driver.pool.words[0]
        driver.pool.stack[words.free] = address - (address - driver.pool.memory.address) % 4096
        words.free += 1
    return found


def crosses(source: Netfront, to: Netfront) -> None:
    data = send(source, to.mac, os.urandom(8))
    got: list[bytes] = []

    def arrived() -> bool:
        got.extend(receive(to))
        return data in got

    wait_until(arrived, "a frame to arrive")
