"""A client on an ENA that drives its function raw, for the scenes of hostile_kit.py: commands, rings, doorbells."""

import struct
from collections.abc import Callable
from functools import partial

import numpy as np
from ena_guest_kit import HOST, MEMORY, MEMORY_BYTES, RINGS, RX, TX, EnaCommands
from hostile_kit import RING, Client, Scene

from tests.waiting import wait_until
from vfwire.datapath.state import QUEUES
from vfwire.devices import ena_pages as pages
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages
from vfwire.layouts import ena_registers as regs

# ena_eth_io_defs.h: bits of len_ctrl, of meta_ctrl, and of the receive descriptor's control.
META, FIRST, LAST, COMPLETE = 1 << 23, 1 << 26, 1 << 27, 1 << 28
TSO, L3_SUM, L4_SUM, PARTIAL = 1 << 7, 1 << 13, 1 << 14, 1 << 17
TCP_IPV4 = 8 | 12 << 8
OFFER = 0x1C
TX_DONE, TX_RING, RX_DONE, RX_RING = (RINGS + at for at in (0, 0x8000, 0x10000, 0x18000))
RX_BUFFERS = MEMORY + 0x28_0000


class HostileEna(EnaCommands, Client):
    """One queue pair of RING entries in its memory, completions asked for."""

    model, iova, tx_buffers, vectors = "ena", MEMORY, 0x20_0000, pages.MSIX_VECTORS

    def __init__(self, scene: Scene, vf: int) -> None:
        Client.__init__(self, scene, vf, MEMORY_BYTES)
        self.llq_bytes = 0

    def write(self, offset: int, value: int) -> None:
        Client.write(self, offset, value)

    def read(self, offset: int) -> int:
        return Client.read(self, offset)

    def start(self) -> None:
        self.bring_up()
        status, answer = self.get_feature(admin.DEVICE_ATTRIBUTES)
        assert status == 0
        attributes = np.frombuffer(answer, messages.DEVICE_ATTR, 1)[0]
        self.mac = bytes(attributes["mac_addr"])

    def quick_reset(self) -> None:
        self.reset()

    def rings(self, *, placement: int = HOST) -> None:
        """For a device in whose reset nothing else was created."""
        self.tail = 0
        self.queue(TX, placement=placement)
        self.queue(RX)
        for place in range(RING - 1):
            at = RX_BUFFERS + 2048 * (place % 64)
            entry = struct.pack("<HBBHHIHH", 2048, 0, OFFER | 1, place, 0, at & 0xFFFFFFFF, at >> 32, 0)
            self.poke(RX_RING + 16 * place, entry)
        self.write(pages.rx_doorbell(0), RING - 1)

    def entry(self, word0: int, word1: int, phase: int | None = None) -> None:
        """A transmit descriptor, low and high eight bytes, by default with the phase of its lap."""
        right = 1 - (self.tail // RING & 1) if phase is None else phase
        data = struct.pack("<QQ", (word0 | right << 24) & (1 << 64) - 1, word1 & (1 << 64) - 1)
        self.poke(TX_RING + 16 * (self.tail % RING), data)
        self.tail = (self.tail + 1) & 0xFFFF

    def plain(self, address: int, length: int) -> None:
        self.entry(length | FIRST | LAST | COMPLETE, address)

    def meta(self, *, l2: int = 14, l3: int = 20, l4: int = 20, mss: int = 0) -> None:
        low = META | FIRST | 1 << 14 | 1 << 20 | 1 << 21 | (mss >> 10) << 16
        self.entry(low, l3 | l2 << 8 | l4 // 4 << 16 | (mss & 0x3FF) << 22)

    def doorbell(self) -> None:
        self.write(pages.tx_doorbell(0), self.tail)

    def taken(self) -> int:
        """Entries that the card has stepped over, as its doorbell counts them."""
        return int(self.scene.engine.state.tx[self.number * QUEUES].head) & 0xFFFF

    def wait_taken(self) -> None:
        wait_until(lambda: self.taken() == self.tail, "the card's look at every descriptor")

    def completions(self) -> int:
        """Transmit completions of the first lap."""
        found = np.frombuffer(self.peek(TX_DONE, RING * 8), np.uint8).reshape(RING, 8)
        return int((found[:, 3] & 1).sum())

    def wait_rings_left(self) -> None:
        """Closed before the unmap was answered: nothing to wait for, and no fault."""
        state, row = self.scene.engine.state, self.number * QUEUES
        assert not state.tx.on[row] and not state.rx.on[row] and self.record.fault == -1

    def shout(self, opcode: int, body: bytes) -> None:
        """A command whose answer nobody looks at, if there is one."""
        self.submit(opcode, body)
        self.write(regs.AQ_DB, self.submitted & 0xFFFF)

    def ask_for_interrupts(self) -> None:
        for vector in range(self.vectors):
            self.write(pages.interrupt_register(vector), 1 << 30)
        self.write(regs.INTR_MASK, 0)
        self.send(self.frame(b"\xff" * 6))
        self.get_feature(admin.LINK_CONFIG)

    def missteps(self) -> list[Callable[[], None]]:
        return [
            lambda: self.send(self.frame(b"\xff" * 5 + b"\xfd")),
            partial(self.shout, admin.DESTROY_SQ, struct.pack("<HBB", 0, TX << 5, 0)),
            partial(self.shout, admin.DESTROY_CQ, struct.pack("<HH", 1, 0)),
            partial(self.write, regs.DEV_CTL, 1),
            partial(self.write, pages.tx_doorbell(0), 0x8000),
            partial(self.write, pages.rx_doorbell(0), RING - 1),
        ]
