"""A card on sockets with two well-behaved neighbours under traffic, and a client that drives its function raw."""

import os
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.datapath.state import DROP_NAMES, Drop
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import Pool, burst
from vfwire.errors import VfwireError
from vfwire.layouts import ixgbe_descriptors as d
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts import pci
from vfwire.memory.shared import SharedMemory

SECONDS = 20.0
PLAIN = d.TXD_DTYP_DATA | d.TXD_DCMD_DEXT | d.TXD_DCMD_EOP | d.TXD_DCMD_IFCS
MEMORY = 1 << 20
IOVA = 0x10_0000_0000
TX_RING, RX_RING, TX_BUFFERS, RX_BUFFERS = 0x0, 0x8000, 0x10000, 0x80000
RING = 256
ETHERTYPE = b"\x88\xb5"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.0005)


class Neighbours:
    """Two drivers on one card; each sends numbered frames to the other, never more on their way than a ring takes.

    Every frame has to arrive, in order, unchanged: whatever is not there in time is a frame lost.
    """

    def __init__(self, one: Ixgbevf, two: Ixgbevf) -> None:
        self.nics = (one, two)
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

    def _send(self, side: int, nic: Ixgbevf, other: Ixgbevf, count: int) -> None:
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

    def _receive(self, side: int, nic: Ixgbevf, other: Ixgbevf) -> None:
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
        if self._failure is not None:
            raise self._failure
        assert self.received == self.sent[::-1], f"sent {self.sent}, received {self.received}"
        assert self.wrong == 0


class Scene:
    """The card, its engine, and a way in for the hostile one on VF 2 (VF 3 is for an accomplice, or a witness)."""

    def __init__(self, engine: Engine, card: Card, directory: Path, neighbours: Neighbours) -> None:
        self.engine, self.card, self.directory, self.neighbours = engine, card, directory, neighbours
        self.record = engine.state.functions[2]
        self.control = engine.state.control[0]

    def drops(self, cause: Drop) -> int:
        return int(self.engine.state.drops[2, cause])

    def wait_drops(self, cause: Drop, count: int = 1) -> None:
        wait_until(lambda: self.drops(cause) >= count, f"{count} times {DROP_NAMES[cause]!r}")

    def wait_rounds(self, rounds: int = 200) -> None:
        """The loop goes round."""
        before = int(self.control.rounds)
        wait_until(lambda: int(self.control.rounds) >= before + rounds, f"{rounds} rounds of the loop")

    def wait_fault(self, *causes: Drop) -> None:
        wait_until(lambda: int(self.record.fault) >= 0, "the function's stop")
        assert int(self.record.fault) in causes

    @contextmanager
    def hostile(self, vf: int = 2) -> Iterator["Hostile"]:
        """A client on a VF, reset and with its rings running; gone at the end, and the card has noticed."""
        client = Hostile(self, vf)
        try:
            client.reset()
            client.rings()
            yield client
        finally:
            client.close()
            wait_until(lambda: not self.card.vfs[vf].attached, "the card's notice that a client has gone")


class Hostile:
    """A guest with a megabyte of sealed memory at IOVA, that writes registers and descriptors as it likes."""

    def __init__(self, scene: Scene, vf: int) -> None:
        self.scene = scene
        self.record = scene.engine.state.functions[vf]
        self.function = VfioUserFunction(scene.directory / str(vf), timeout=SECONDS)
        self.memory = SharedMemory.create("hostile", MEMORY)
        self.tail = 0
        self.become_master()
        self.function.dma_map(self.memory, IOVA)
        self.mac = b""

    def become_master(self) -> None:
        self.function.config_write(pci.COMMAND, pci.COMMAND_MASTER | pci.COMMAND_MEMORY, 2)

    def write(self, offset: int, value: int) -> None:
        self.function.write32(0, offset, value)

    def read(self, offset: int) -> int:
        return self.function.read32(0, offset)

    def put(self, offset: int, data: bytes) -> int:
        self.memory.array[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        return IOVA + offset

    def reset(self) -> None:
        """As a driver: reset, ask for the MAC, agree on the API."""
        self.write(regs.VFCTRL, regs.CTRL_RST)
        answer = self.ask([msg.VF_RESET], 3)
        self.mac = struct.pack("<II", answer[1], answer[2])[:6]
        self.tail = 0

    def ask(self, words: list[int], count: int = 1) -> list[int]:
        self.write(regs.VFMAILBOX, regs.MAILBOX_VFU)
        for index, word in enumerate(words):
            self.write(regs.VFMBMEM + 4 * index, word)
        self.write(regs.VFMAILBOX, regs.MAILBOX_REQ)
        answer = [self.read(regs.VFMBMEM + 4 * index) for index in range(count)]
        self.write(regs.VFMAILBOX, regs.MAILBOX_ACK)
        return answer

    def rings(self, *, tx: int = IOVA + TX_RING, rx: int = IOVA + RX_RING, length: int = RING * 16) -> None:
        """Write and enable both rings of queue 0, receive buffers offered."""
        self.tail = 0
        for place in range(RING):
            self.put(RX_RING + 16 * place, struct.pack("<QQ", IOVA + RX_BUFFERS + 2048 * (place % 64), 0))
        for block, base in ((regs.VFRDBAL, rx), (regs.VFTDBAL, tx)):
            self.write(block, base & 0xFFFFFFFF)
            self.write(block + 4, base >> 32)
            self.write(block + 8, length)
            self.write(block + 0x10, 0)
            self.write(block + 0x18, 0)
        self.write(regs.VFSRRCTL, 2 | regs.SRRCTL_DESCTYPE_ADV_ONEBUF)
        self.write(regs.VFRXDCTL, regs.RXDCTL_ENABLE)
        self.write(regs.VFTXDCTL, regs.TXDCTL_ENABLE)
        self.write(regs.VFRDT, RING - 1)

    def descriptor(self, word0: int, word1: int) -> None:
        self.put(TX_RING + 16 * self.tail, struct.pack("<QQ", word0 & (1 << 64) - 1, word1 & (1 << 64) - 1))
        self.tail = (self.tail + 1) % RING

    def doorbell(self) -> None:
        self.write(regs.VFTDT, self.tail)

    def wait_taken(self) -> None:
        """All descriptors so far were looked at."""
        wait_until(lambda: self.read(regs.VFTDH) == self.tail, "the card's look at every descriptor")

    def frame(self, to: bytes, source: bytes | None = None, payload: bytes = bytes(46)) -> bytes:
        return to + (self.mac if source is None else source) + ETHERTYPE + payload

    def send(self, data: bytes, extra: int = 0) -> None:
        """One plain frame from the first transmit buffer."""
        at = self.put(TX_BUFFERS + 2048 * (self.tail % 64), data)
        self.descriptor(at, len(data) | PLAIN | extra)
        self.doorbell()

    def works(self) -> None:
        """After a reset this function is a good one again: a broadcast of it goes out."""
        self.reset()
        self.rings()
        before = int(self.record.tx_frames)
        self.send(self.frame(b"\xff" * 6))
        wait_until(lambda: int(self.record.tx_frames) > before, "a good frame after a reset")

    def close(self) -> None:
        with suppress(VfwireError):
            self.function.close()
        self.memory.close()


@contextmanager
def scene() -> Iterator[Scene]:
    """A card of four VFs; neighbours on 0 and 1 under traffic. At the end not a frame of theirs may be missing."""
    Engine.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(4)])
        stack.callback(engine.close)
        card = Card(engine, 0, "card", 4, line_rate_bps=None, rss_key=bytes(range(40)))
        stack.callback(card.close)
        engine.start()
        for vf, function in enumerate(card.functions):
            server = Server(function, directory / str(vf))
            server.start()
            stack.callback(server.stop)
        nics = []
        for vf in range(2):
            pool = stack.enter_context(Pool(1024))
            nic = Ixgbevf.open(VfioUserFunction(directory / str(vf), timeout=SECONDS), pool, ring_size=512)
            nics.append(stack.enter_context(nic))
            nic.wait_link_up()
        neighbours = Neighbours(nics[0], nics[1])
        try:
            found = Scene(engine, card, directory, neighbours)
            neighbours.wait_progress()
            yield found
            found.wait_rounds()
            neighbours.wait_progress()
        finally:
            neighbours.stop()
            lost = engine.state.drops[:2]
            assert not lost.any(), f"neighbours' drops: {lost.tolist()}"


def held_by_us() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def mapped_by_us() -> int:
    """How many memfd mappings this process has."""
    return Path("/proc/self/maps").read_text().count("/memfd:")
