"""The Intel 82599 virtual function as a PCI function: configuration space, BAR0, BAR3, DMA, interrupts,
resets.

    BAR0  page 0  control, interrupts, mailbox            traps (ixgbevf_registers.py, ixgbevf_mailbox.py)
          page 1  receive queues and counters             memory that guest and loop share: no trap
          page 2  transmit queues and counters            likewise
          page 3  receive memory wrap                     traps
    BAR3          MSI-X table and pending bits            traps

A plain page cannot mask what is written into it, so a guest reads back its own bits where the hardware would
read zeros: the one deviation of the mapped pages. With `exact` no page is mapped, every access traps, and
bits are masked.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.control_words import load_register, load_word, row_of, store_register, words_of
from vfwire.datapath.state import MODEL_82599, QUEUES
from vfwire.datapath.trapped import ANSWERED, REQUEST_BYTES, SCRATCH_BYTES, serve_trapped
from vfwire.devices.engine import Engine
from vfwire.devices.function import CardFunction, MessageObserver
from vfwire.devices.ixgbevf_config import ixgbevf_config_space
from vfwire.devices.ixgbevf_mailbox import Mailbox
from vfwire.devices.ixgbevf_names import IXGBEVF_NAMES
from vfwire.devices.ixgbevf_registers import (
    QUEUE_REGISTER_DEFAULTS,
    QUEUE_REGISTER_MASKS,
    ControlRegisters,
)
from vfwire.devices.pf_port import PfPort
from vfwire.devices.settings import NAMES
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts.ixgbe_mailbox import API_NAMES
from vfwire.memory.shared import SharedMemory
from vfwire.memory.sockets import message_header
from vfwire.pci.endpoint import MappedArea, Region, RegionIndex
from vfwire.pci.msix import MsixTable

QUEUE_PAGES = 0x1000
_QUEUE_CONTROLS = ("VFRXDCTL", "VFTXDCTL")
_HEAD_AND_TAIL = (
    regs.VFRDH - regs.VFRXDCTL,
    regs.VFRDT - regs.VFRXDCTL,
)  # of the same queue, and so for transmit
QUEUE_PAGES_END = 0x3000
_ONES = 0xFFFFFFFF


def _power_on_pages() -> NDArray[np.uint8]:
    pages = np.zeros(QUEUE_PAGES_END, np.uint8)
    words = pages.view("<u4")
    for offset, value in QUEUE_REGISTER_DEFAULTS.items():
        for queue in range(regs.MAX_QUEUES):
            words[(offset + queue * regs.QUEUE_STRIDE) // 4] = value
    return pages


_POWER_ON = _power_on_pages()


class VirtualFunction82599(CardFunction):
    """An 82599 VF; what every model has in common is in devices/function.py."""

    changeable = frozenset(NAMES)

    names = IXGBEVF_NAMES

    def __init__(
        self, engine: Engine, function: int, port: PfPort, name: str, *, exact: bool = False
    ) -> None:
        msix = MsixTable(regs.MSIX_VECTORS, regs.MSIX_TABLE_OFFSET, regs.MSIX_PBA_OFFSET)
        super().__init__(engine, function, port, name, ixgbevf_config_space(), msix)
        self.exact = exact
        self._registers = ControlRegisters(engine, function, port.facts.queues, self.reset_rings, self._links)
        self.mailbox = Mailbox(port, self._registers.raise_mailbox_interrupt)
        self._registers.mailbox = self.mailbox
        self._memory = self._new_pages()
        self._scratch = np.zeros(SCRATCH_BYTES, np.uint8)
        self._header = message_header(self._scratch[:REQUEST_BYTES])
        self._message = int(self._header.ctypes.data), int(self._scratch.ctypes.data)
        self._queues = [
            words_of(side)[function * QUEUES :][:QUEUES] for side in (engine.state.tx, engine.state.rx)
        ]
        with engine.parked():
            self._record["rx_queues"] = self._record["tx_queues"] = port.facts.queues
            self._record["pages"] = self._memory.address
            self._record["model"] = MODEL_82599
        self.reset_rings()
        port.enter_link()
        port.enter_rate()

    def _new_pages(self) -> SharedMemory:
        """BAR0 up to the end of the queue pages, so that areas lie in the file as they lie in the BAR."""
        return SharedMemory.create(f"vfwire-{self.name}", QUEUE_PAGES_END)

    def _bars(self) -> dict[RegionIndex, Region]:
        area = MappedArea(QUEUE_PAGES, QUEUE_PAGES_END - QUEUE_PAGES, QUEUE_PAGES)
        bar0 = Region(regs.BAR0_SIZE) if self.exact else Region(regs.BAR0_SIZE, self._memory, (area,))
        return {RegionIndex.BAR0: bar0, RegionIndex.BAR3: Region(regs.BAR3_SIZE)}

    # --- Accesses ------------------------------------------------------------------------------------------

    def answer_quickly(self, fd: int, entries: NDArray[np.int64]) -> None:
        """The registers that a driver writes for each interrupt (pci/endpoint.py:AnswersQuickly)."""
        where = int(entries.ctypes.data)
        serve_trapped(self._engine.state, self._function, where, len(entries), fd, *self._message)

    @property
    def traps(self) -> int:
        return self._traps + int(load_word(self._message[1] + ANSWERED))

    def _read_bar(self, index: int, offset: int, count: int) -> bytes:
        if index == RegionIndex.BAR0:
            if count == 4 and offset % 4 == 0:
                return self._read_register(offset).to_bytes(4, "little")
            return self._read_any(offset, count)
        if index == RegionIndex.BAR3:
            return self._msix.read(offset, count)
        self.bad_accesses += 1
        return b"\xff" * count

    def _write_bar(self, index: int, offset: int, data: bytes) -> None:
        if index == RegionIndex.BAR0:
            if len(data) == 4 and offset % 4 == 0:
                self._write_register(offset, int.from_bytes(data, "little"))
            else:
                self._write_any(offset, data)
        elif index == RegionIndex.BAR3:
            self._msix.write(offset, data)
        else:
            self.bad_accesses += 1

    def _read_any(self, offset: int, count: int) -> bytes:
        """Whole registers have their values; part of one has none, but in the pages that are memory."""
        out = bytearray()
        for start in range(offset & ~3, offset + count, 4):
            low, high = max(start, offset) - start, min(start + 4, offset + count) - start
            if high - low == 4 or self._is_memory(start):
                out += self._read_register(start).to_bytes(4, "little")[low:high]
            else:
                self.bad_accesses += 1
                out += b"\xff" * (high - low)
        return bytes(out)

    def _write_any(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        for start in range(offset & ~3, end, 4):
            low, high = max(start, offset), min(start + 4, end)
            piece = data[low - offset : high - offset]
            if len(piece) < 4:
                if not self._is_memory(start):
                    self.bad_accesses += 1
                    continue
                whole = bytearray(self._read_register(start).to_bytes(4, "little"))
                whole[low - start : high - start] = piece
                piece = bytes(whole)
            self._write_register(start, int.from_bytes(piece, "little"))

    def _is_memory(self, offset: int) -> bool:
        return QUEUE_PAGES <= offset < QUEUE_PAGES_END

    def _read_register(self, offset: int) -> int:
        if self._is_memory(offset):
            return int(load_register(self._memory.address + offset))
        value = self._registers.read(offset)
        if value is None:
            self.bad_accesses += 1
            return _ONES
        return value

    def _write_register(self, offset: int, value: int) -> None:
        if not self._is_memory(offset):
            if not self._registers.write(offset, value):
                self.bad_accesses += 1
            return
        if self.exact:
            # Enabling a queue sets its head and tail to 0 (82599 datasheet 8.2.3.8.7); elsewhere the driver does.
            name, _ = regs.decode(offset) or ("", 0)
            if name not in QUEUE_REGISTER_MASKS:
                return
            value &= QUEUE_REGISTER_MASKS[name]
            if name in _QUEUE_CONTROLS and value & regs.RXDCTL_ENABLE & ~self._read_register(offset):
                for index in _HEAD_AND_TAIL:
                    store_register(self._memory.address + offset + index, 0)
        store_register(self._memory.address + offset, value)
        self._engine.kick()  # a doorbell that comes as a message can end the card's nap

    def _links(self) -> int:
        """VFLINKS mirrors the PF's link. Here it also falls with the function's own (`ip link … vf state
        disable`), which an 82599 tells by mailbox only: so `exact` leaves that out.
        """
        up = self._record["link_up"]
        if self.exact or self.port.settings.state == "auto":
            up = row_of(self._engine.state.cards, self.port.facts.number)["link_up"]
        return regs.LINKS_UP | regs.LINKS_SPEED_10G if up else 0

    # --- Life ----------------------------------------------------------------------------------------------

    def _renew_memory(self) -> None:
        old, self._memory = self._memory, self._new_pages()
        with self._engine.parked():
            self._record["pages"] = self._memory.address
            self._default_pages()
        old.close()

    def _close_memory(self) -> None:
        self._memory.close()

    def reset_rings(self) -> None:
        """VFCTRL.RST: rings, interrupts, filters as after power-on; a fault is forgotten. DMA maps stay."""
        with self.lock, self._engine.parked():
            for queues in self._queues:
                queues[:] = 0
            self._default_pages()
            self._registers.reset()
            self._record["fault"] = -1
            self._set_dma()
            self.port.reset()  # forgets every cached path, too
            self.mailbox.reset()

    def _default_pages(self) -> None:
        self._memory.array[:] = _POWER_ON

    # --- The operator's side -------------------------------------------------------------------------------

    def tell(self, *, restart: bool = False) -> None:
        """A PF control message: look at the link again, or (`restart`) reset yourself, the PF has taken CTS
        away.
        """
        with self.lock:
            if restart:
                self.port.clear_to_send = False
            if self.attached:
                self.mailbox.ping()

    def watch_messages(self, observer: MessageObserver | None) -> None:
        self.mailbox.observer = observer

    def counters(self) -> dict[str, Any]:
        return {**super().counters(), "mailbox_messages": self.mailbox.messages}

    def describe(self) -> dict[str, Any]:
        with self.lock:
            first = self._function * QUEUES
            rows = slice(first, first + QUEUES)
            state = self._engine.state
            opened = {
                name: int(queues.on[rows].sum()) for name, queues in (("tx", state.tx), ("rx", state.rx))
            }
            return {"mailbox_api": API_NAMES[self.port.api], "queues_open": opened}
