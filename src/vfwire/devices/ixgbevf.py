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

import errno
import logging
import os
import threading

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.control_words import load_register, row_of, store_register, words_of
from vfwire.datapath.state import MODEL_82599, QUEUES, VECTORS
from vfwire.devices.dma_maps import DmaMaps
from vfwire.devices.engine import Engine
from vfwire.devices.ixgbevf_config import ixgbevf_config_space
from vfwire.devices.ixgbevf_mailbox import Mailbox
from vfwire.devices.ixgbevf_registers import (
    QUEUE_REGISTER_DEFAULTS,
    QUEUE_REGISTER_MASKS,
    ControlRegisters,
)
from vfwire.devices.pf_port import PfPort
from vfwire.errors import ProtocolError
from vfwire.layouts import ixgbevf as regs
from vfwire.memory.shared import SharedMemory
from vfwire.pci.endpoint import IrqIndex, MappedArea, Region, RegionIndex
from vfwire.pci.msix import MsixTable

_log = logging.getLogger(__name__)

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


class VirtualFunction82599:
    """One function of a card, for a transport to serve (pci/endpoint.py). `function`: its number in the
    engine's state.

    Counters, which only grow: `traps` (accesses to BARs that came as messages), `bad_accesses` (that had no
    meaning).
    """

    def __init__(
        self, engine: Engine, function: int, port: PfPort, name: str, *, exact: bool = False
    ) -> None:
        self.name = name
        self.exact = exact
        self.port = port
        self.traps = 0
        self.bad_accesses = 0
        self.attached = False
        self._engine = engine
        self._function = function
        self._lock = threading.RLock()  # the transport's thread, and the operator's when settings change
        self._config = ixgbevf_config_space()
        self._config.on_change = self._bus_master_changed
        self._config.on_flr = self._function_level_reset
        self._msix = MsixTable(regs.MSIX_VECTORS, regs.MSIX_TABLE_OFFSET, regs.MSIX_PBA_OFFSET)
        self._maps = DmaMaps(engine, function)
        self._registers = ControlRegisters(engine, function, port.facts.queues, self.reset_rings, self._links)
        self.mailbox = Mailbox(port, self._registers.raise_mailbox_interrupt)
        self._registers.mailbox = self.mailbox
        self._memory = self._new_pages()
        self._record = port.record
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

    @property
    def regions(self) -> tuple[Region, ...]:
        area = MappedArea(QUEUE_PAGES, QUEUE_PAGES_END - QUEUE_PAGES, QUEUE_PAGES)
        bar0 = Region(regs.BAR0_SIZE) if self.exact else Region(regs.BAR0_SIZE, self._memory, (area,))
        offered = {
            RegionIndex.BAR0: bar0,
            RegionIndex.BAR3: Region(regs.BAR3_SIZE),
            RegionIndex.CONFIG: Region(self._config.size),
        }
        return tuple(offered.get(index, Region()) for index in RegionIndex)

    @property
    def irq_counts(self) -> tuple[int, ...]:
        return tuple(regs.MSIX_VECTORS if index == IrqIndex.MSIX else 0 for index in IrqIndex)

    # --- Accesses ------------------------------------------------------------------------------------------

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        with self._lock:
            if index == RegionIndex.CONFIG:
                return self._config.read(offset, count)
            self.traps += 1
            if index == RegionIndex.BAR0:
                if count == 4 and offset % 4 == 0:
                    return self._read_register(offset).to_bytes(4, "little")
                return self._read_any(offset, count)
            if index == RegionIndex.BAR3:
                return self._msix.read(offset, count)
            self.bad_accesses += 1
            return b"\xff" * count

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        with self._lock:
            if index == RegionIndex.CONFIG:
                self._config.write(offset, data)
                return
            self.traps += 1
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

    # --- Guest memory, interrupts --------------------------------------------------------------------------

    def dma_map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        with self._lock:
            self._maps.map(iova, size, memory, readable=readable, writable=writable)

    def dma_unmap(self, iova: int, size: int) -> int:
        with self._lock:
            return self._maps.unmap(iova, size)

    def dma_unmap_all(self) -> None:
        with self._lock:
            self._maps.unmap_all()

    def set_irqs(self, index: int, start: int, eventfds: list[int]) -> None:
        with self._lock:
            if index != IrqIndex.MSIX or start < 0 or start + len(eventfds) > regs.MSIX_VECTORS:
                _close(eventfds)
                raise ProtocolError("no such interrupt vector", errno=errno.EINVAL)
            if max(eventfds, default=-1) >= 0 and self._engine.blocked_lately(self._function):
                _close(eventfds)
                raise ProtocolError("this guest has just blocked an interrupt of its own", errno=errno.EPERM)
            self._replace_eventfds(start, eventfds)

    def _replace_eventfds(self, start: int, eventfds: list[int]) -> None:
        first = self._function * VECTORS + start
        with self._engine.parked() as state:
            vectors = state.vectors.view(np.ndarray)["eventfd"][first : first + len(eventfds)]
            old = vectors.tolist()
            vectors[:] = eventfds
        _close(old)

    def disable_irqs(self, index: int) -> None:
        with self._lock:
            if index == IrqIndex.MSIX:
                self._replace_eventfds(0, [-1] * regs.MSIX_VECTORS)

    def trigger_irqs(self, index: int, start: int, flags: list[bool]) -> None:
        with self._lock:
            if index != IrqIndex.MSIX or start < 0 or start + len(flags) > regs.MSIX_VECTORS:
                raise ProtocolError("no such interrupt vector", errno=errno.EINVAL)
            first = self._function * VECTORS + start
            for row, wanted in enumerate(flags, first):
                fd = int(row_of(self._engine.state.vectors, row)["eventfd"])
                if wanted and fd >= 0:
                    try:
                        os.eventfd_write(fd, 1)
                    except OSError:
                        _log.debug("%s: eventfd of vector %d cannot be written", self.name, row - first)

    # --- Life ----------------------------------------------------------------------------------------------

    def attach(self) -> None:
        with self._lock:
            self.attached = True
            self.port.clear_to_send = False
            self._function_level_reset()

    def reset(self) -> None:
        with self._lock:
            self._config.reset()
            self._function_level_reset()

    def detach(self) -> None:
        """The guest has gone. The next one gets queue pages of its own: this one's may still be mapped
        somewhere.
        """
        with self._lock:
            self.attached = False
            self.port.clear_to_send = False
            self._config.reset()
            self._function_level_reset()
            self._maps.unmap_all()
            self._replace_eventfds(0, [-1] * regs.MSIX_VECTORS)
            old, self._memory = self._memory, self._new_pages()
            with self._engine.parked():
                self._record["pages"] = self._memory.address
                self._default_pages()
            old.close()

    def close(self) -> None:
        """Take the function out of the card for good."""
        self.detach()
        with self._lock, self._engine.parked():
            self._record["model"] = self._record["pages"] = 0
            self.port.release()
            self._memory.close()

    def _function_level_reset(self) -> None:
        self._msix.reset()
        self.reset_rings()

    def reset_rings(self) -> None:
        """VFCTRL.RST: rings, interrupts, filters as after power-on; a fault is forgotten. DMA maps stay."""
        with self._lock, self._engine.parked():
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

    def _bus_master_changed(self) -> None:
        with self._engine.parked():
            self._set_dma()

    def _set_dma(self) -> None:
        ready = self.attached and self._config.bus_master and self._record["fault"] < 0
        self._record["dma"] = int(ready)

    # --- The operator's side -------------------------------------------------------------------------------

    def tell(self, *, restart: bool = False) -> None:
        """A PF control message: look at the link again, or (`restart`) reset yourself, the PF has taken CTS
        away.
        """
        with self._lock:
            if restart:
                self.port.clear_to_send = False
            if self.attached:
                self.mailbox.ping()

    @property
    def lock(self) -> threading.RLock:
        """Held while settings change, so that no message of the guest is answered half-way."""
        return self._lock

    def counters(self) -> dict[str, int]:
        """What only the control side counts."""
        return {
            "traps": self.traps,
            "bad_accesses": self.bad_accesses,
            "mailbox_messages": self.mailbox.messages,
            "dma_ranges": len(self._maps),
        }


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
