"""A card on sockets with two well-behaved neighbours under traffic, and a client that drives its function raw."""

import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from neighbours_kit import ETHERTYPE, SECONDS, Neighbours

from tests.waiting import wait_until
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.datapath.state import DROP_NAMES, Drop
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool
from vfwire.errors import VfwireError
from vfwire.layouts import ixgbe_descriptors as d
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts import pci
from vfwire.memory.shared import SharedMemory

PLAIN = d.TXD_DTYP_DATA | d.TXD_DCMD_DEXT | d.TXD_DCMD_EOP | d.TXD_DCMD_IFCS
MEMORY = 1 << 20
IOVA = 0x10_0000_0000
TX_RING, RX_RING, TX_BUFFERS, RX_BUFFERS = 0x0, 0x8000, 0x10000, 0x80000
RING = 256


class Scene:
    """The card, its engine, and a way in for the hostile one on VF 2 (VF 3 is for an accomplice, or a witness)."""

    def __init__(
        self, engine: Engine, card: Card, directory: Path, neighbours: Neighbours, kind: "type[Client]"
    ) -> None:
        self.engine, self.card, self.directory, self.neighbours = engine, card, directory, neighbours
        self.kind = kind
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
    def hostile(self, vf: int = 2) -> Iterator[Any]:
        """A client on a VF, reset and with its rings running; gone at the end, and the card has noticed."""
        client = self.kind(self, vf)
        try:
            client.start()
            client.rings()
            yield client
        finally:
            client.close()
            wait_until(lambda: not self.card.vfs[vf].attached, "the card's notice that a client has gone")


class Client:
    """A guest with sealed memory at `iova` that writes registers and descriptors as it likes; a kind for each model."""

    model: ClassVar[str]
    iova: ClassVar[int] = IOVA
    tx_buffers: ClassVar[int] = TX_BUFFERS  # offset of 64 buffers of 2,048 bytes
    vectors: ClassVar[int]

    def __init__(self, scene: Scene, vf: int, memory: int = MEMORY) -> None:
        self.scene, self.number = scene, vf
        self.record = scene.engine.state.functions[vf]
        self.function = VfioUserFunction(scene.directory / str(vf), timeout=SECONDS)
        self.memory = SharedMemory.create("hostile", memory)
        self.tail = 0
        self.become_master()
        self.function.dma_map(self.memory, self.iova)
        self.mac = b""

    def become_master(self) -> None:
        self.function.config_write(pci.COMMAND, pci.COMMAND_MASTER | pci.COMMAND_MEMORY, 2)

    def write(self, offset: int, value: int) -> None:
        self.function.write32(0, offset, value)

    def read(self, offset: int) -> int:
        return self.function.read32(0, offset)

    def put(self, offset: int, data: bytes) -> int:
        self.memory.array[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        return self.iova + offset

    def start(self) -> None:
        """As a driver: a reset, and on to where its MAC is known."""
        raise NotImplementedError

    def rings(self) -> None:
        """Both rings of a queue, receive buffers offered."""
        raise NotImplementedError

    def plain(self, address: int, length: int) -> None:
        """The descriptor of a plain frame, without a doorbell."""
        raise NotImplementedError

    def doorbell(self) -> None:
        raise NotImplementedError

    def wait_taken(self) -> None:
        """All descriptors so far were looked at."""
        raise NotImplementedError

    def wait_rings_left(self) -> None:
        """The card has let go of rings whose memory was taken away."""
        raise NotImplementedError

    def quick_reset(self) -> None:
        """A reset by register, and nothing else."""
        raise NotImplementedError

    def ask_for_interrupts(self) -> None:
        """Of every vector, and something to tell by each that there is a way to tell by."""
        raise NotImplementedError

    def missteps(self) -> list[Callable[[], None]]:
        """What it may do next before it vanishes."""
        raise NotImplementedError

    def frame(self, to: bytes, source: bytes | None = None, payload: bytes = bytes(46)) -> bytes:
        return to + (self.mac if source is None else source) + ETHERTYPE + payload

    def send(self, data: bytes) -> None:
        """One plain frame from the next transmit buffer."""
        self.plain(self.put(self.tx_buffers + 2048 * (self.tail % 64), data), len(data))
        self.doorbell()

    def works(self) -> None:
        """After a reset this function is a good one again: a broadcast of it goes out."""
        self.start()
        self.rings()
        before = int(self.record.tx_frames)
        self.send(self.frame(b"\xff" * 6))
        wait_until(lambda: int(self.record.tx_frames) > before, "a good frame after a reset")

    def close(self) -> None:
        with suppress(VfwireError):
            self.function.close()
        self.memory.close()


class Hostile(Client):
    """On an 82599."""

    model, vectors = "82599", regs.MSIX_VECTORS

    def start(self) -> None:
        self.reset()

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

    def plain(self, address: int, length: int) -> None:
        self.descriptor(address, length | PLAIN)

    def wait_taken(self) -> None:
        wait_until(lambda: self.read(regs.VFTDH) == self.tail, "the card's look at every descriptor")

    def send(self, data: bytes, extra: int = 0) -> None:
        at = self.put(TX_BUFFERS + 2048 * (self.tail % 64), data)
        self.descriptor(at, len(data) | PLAIN | extra)
        self.doorbell()

    def wait_rings_left(self) -> None:
        self.scene.wait_fault(Drop.BAD_DMA)

    def quick_reset(self) -> None:
        self.write(regs.VFCTRL, regs.CTRL_RST)

    def ask_for_interrupts(self) -> None:
        self.write(regs.VTEIMS, 7)
        self.write(regs.VTEICS, 7)

    def missteps(self) -> list[Callable[[], None]]:
        return [
            lambda: self.send(self.frame(b"\xff" * 5 + b"\xfd")),
            lambda: self.write(regs.VFTXDCTL, 0),
            self.quick_reset,
            lambda: self.rings(tx=0),
            lambda: self.write(regs.VFTDT, RING - 1),
        ]


@contextmanager
def scene(kind: type[Client] = Hostile) -> Iterator[Scene]:
    """A card of four VFs of that kind's model; neighbours on 0 and 1 under traffic.

    At the end not a frame of theirs may be missing.
    """
    Engine.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(4)])
        stack.callback(engine.close)
        card = Card(engine, 0, "card", 4, line_rate_bps=None, rss_key=bytes(range(40)), model=kind.model)
        stack.callback(card.close)
        engine.start()
        for vf, function in enumerate(card.functions):
            server = Server(function, directory / str(vf))
            server.start()
            stack.callback(server.stop)
        nics = []
        for vf in range(2):
            pool = stack.enter_context(Pool(1024))
            nic = open_driver(VfioUserFunction(directory / str(vf), timeout=SECONDS), pool, ring_size=512)
            nics.append(stack.enter_context(nic))
            nic.wait_link_up()
        neighbours = Neighbours(nics[0], nics[1])
        try:
            found = Scene(engine, card, directory, neighbours, kind)
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
