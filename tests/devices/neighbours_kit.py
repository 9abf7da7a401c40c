"""Two well-behaved drivers on a card, whatever their model, under traffic: each frame has to arrive."""

import struct
import threading
import time

import numpy as np

from tests.waiting import wait_until
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.verbs import burst

SECONDS = 20.0
ETHERTYPE = b"\x88\xb5"


class Neighbours:
    """Two drivers on one card; each sends numbered frames to the other, never more on their way than a ring takes.

    Every frame has to arrive, in order, unchanged: whatever is not there in time is a frame lost.
    """

    def __init__(self, one: FunctionDriver, two: FunctionDriver) -> None:
        self.nics: tuple[FunctionDriver, ...] = (one, two)
        self.sent, self.received, self.wrong = [0, 0], [0, 0], 0
        self._frames = burst(64)
        self._end = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="neighbours")
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                self._step(sending=True)
                time.sleep(0)
            deadline = time.monotonic() + SECONDS
            while self.received != self.sent[::-1] and time.monotonic() < deadline:
                self._step(sending=False)
                time.sleep(0.0002)
        except BaseException as error:
            self._failure = error

    def _step(self, *, sending: bool) -> None:
        for side, nic in enumerate(self.nics):
            other = self.nics[1 - side]
            self._receive(side, nic, other)
            room = 128 - (self.sent[side] - self.received[1 - side])
            if sending and room >= 8:
                self._send(side, nic, other, 8)
            else:
                nic.transmit(self._frames, 0)

    def _send(self, side: int, nic: FunctionDriver, other: FunctionDriver, count: int) -> None:
        words, frames = nic.pool.words[0], self._frames
        count = min(count, int(words.free))
        for place in range(count):
            words.free -= 1
            address = int(nic.pool.stack[words.free])
            number = self.sent[side] + place
            data = other.mac + nic.mac + ETHERTYPE + struct.pack("<Q", number) * 6
            nic.pool.view(address, len(data))[:] = np.frombuffer(data, np.uint8)
            frames[place].address, frames[place].length, frames[place].flags = address, len(data), 0
        taken = nic.transmit(frames, count)
        for place in range(taken, count):
            nic.pool.stack[words.free] = frames[place].address
            words.free += 1
        self.sent[side] += taken

    def _receive(self, side: int, nic: FunctionDriver, other: FunctionDriver) -> None:
        frames, words = self._frames, nic.pool.words[0]
        for place in range(nic.receive(frames)):
            data = nic.pool.view(int(frames[place].address), int(frames[place].length)).tobytes()
            if data[6:12] == other.mac:  # all else comes from the hostile one
                expected = nic.mac + other.mac + ETHERTYPE + struct.pack("<Q", self.received[side]) * 6
                self.wrong += data != expected
                self.received[side] += 1
            nic.pool.stack[words.free] = int(frames[place].address)
            words.free += 1

    def wait_progress(self, frames: int = 50) -> None:
        """Traffic goes on: both sides receive that many more."""
        before = list(self.received)
        wait_until(
            lambda: (
                all(now >= then + frames for now, then in zip(self.received, before, strict=True))
                or self._failure is not None
            ),
            f"{frames} more frames between the neighbours (received {before})",
        )

    def stop(self) -> None:
        """Stop sending; all that was sent has to arrive."""
        self._end.set()
        self._thread.join(2 * SECONDS)
        self.nics = ()  # an ENA's driver has views of its pool, which keep that open
        if self._failure is not None:
            raise self._failure
        assert self.received == self.sent[::-1], f"sent {self.sent}, received {self.received}"
        assert self.wrong == 0
