"""A card's function for a transport to serve (pci/endpoint.py): what every model has in common.

Configuration space, MSI-X with its eventfds, DMA maps, the life from attach to detach. A model adds its BARs: the
hooks at the end say what it has to tell.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from vfwire.datapath.control_words import field_address, row_of, swap_word
from vfwire.datapath.state import VECTORS
from vfwire.devices.dma_maps import DmaMaps
from vfwire.devices.engine import Engine
from vfwire.devices.pf_port import PfPort
from vfwire.devices.settings import NAMES
from vfwire.errors import ProtocolError, UsageError
from vfwire.layouts.pci import DEVICE_ID, VENDOR_ID
from vfwire.memory.shared import SharedMemory
from vfwire.pci.config_space import ConfigSpace
from vfwire.pci.endpoint import IrqIndex, Region, RegionIndex
from vfwire.pci.msix import MsixTable
from vfwire.pci.naming import RegisterNames

# Told of every message: its channel, its direction, its name, its words.
MessageObserver = Callable[[str, str, str, Sequence[int]], None]

_log = logging.getLogger(__name__)


class CardFunction:
    """One function of a card. `function`: its number in the engine's state.

    Counters, which only grow: `traps` (accesses to BARs that came as messages), `bad_accesses` (that had no
    meaning). `lock` is held while settings change, so that no message of the guest is answered half-way.
    """

    names: ClassVar[RegisterNames]  # what a trace calls its registers
    changeable: ClassVar[frozenset[str]] = frozenset()  # what an operator can set (devices/settings.py)

    def __init__(
        self, engine: Engine, function: int, port: PfPort, name: str, config: ConfigSpace, msix: MsixTable
    ) -> None:
        self.name = name
        self.port = port
        self.bad_accesses = 0
        self._traps = 0
        self.attached = False
        self._leaving = False  # a guest has gone, and the loop has not let go of all that was its
        self.lock = threading.RLock()  # the transport's thread, and the operator's when settings change
        self._engine = engine
        self._function = function
        self._record = port.record
        self._config = config
        self._config.on_change = self._bus_master_changed
        self._config.on_flr = self._function_level_reset
        self._msix = msix
        self._maps = DmaMaps(engine, function)

    @property
    def traps(self) -> int:
        return self._traps

    @property
    def pci_id(self) -> str:
        """Vendor and device, as `lspci -n` has them."""
        vendor, device = (self._config.read(offset, 2)[::-1].hex() for offset in (VENDOR_ID, DEVICE_ID))
        return f"{vendor}:{device}"

    @property
    def regions(self) -> tuple[Region, ...]:
        offered = {**self._bars(), RegionIndex.CONFIG: Region(self._config.size)}
        return tuple(offered.get(index, Region()) for index in RegionIndex)

    @property
    def irq_counts(self) -> tuple[int, ...]:
        return tuple(self._msix.vectors if index == IrqIndex.MSIX else 0 for index in IrqIndex)

    # --- Accesses ------------------------------------------------------------------------------------------

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        with self.lock:
            if index == RegionIndex.CONFIG:
                return self._config.read(offset, count)
            self._traps += 1
            return self._read_bar(index, offset, count)

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        with self.lock:
            if index == RegionIndex.CONFIG:
                self._config.write(offset, data)
                return
            self._traps += 1
            self._write_bar(index, offset, data)

    # --- Guest memory, interrupts --------------------------------------------------------------------------

    def dma_map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        with self.lock:
            self._maps.map(iova, size, memory, readable=readable, writable=writable)

    def dma_unmap(self, iova: int, size: int) -> int:
        with self.lock:
            return self._maps.unmap(iova, size)

    def dma_unmap_all(self) -> None:
        with self.lock:
            self._maps.unmap_all()

    def set_irqs(self, index: int, start: int, eventfds: list[int]) -> None:
        with self.lock:
            if index != IrqIndex.MSIX or start < 0 or start + len(eventfds) > self._msix.vectors:
                _close(eventfds)
                raise ProtocolError("no such interrupt vector", errno=errno.EINVAL)
            if max(eventfds, default=-1) >= 0 and self._engine.blocked_lately(self._function):
                _close(eventfds)
                raise ProtocolError("this guest has just blocked an interrupt of its own", errno=errno.EPERM)
            self._replace_eventfds(start, eventfds)

    def _replace_eventfds(self, start: int, eventfds: list[int]) -> None:
        """One step for each: the engine's watch may take one out at any moment (watchdog.py)."""
        first, old = self._function * VECTORS + start, eventfds
        try:
            with self._engine.parked() as state:
                old = [
                    int(swap_word(field_address(state.vectors, row, "eventfd"), fd))
                    for row, fd in enumerate(eventfds, first)
                ]
        finally:
            _close(old)

    def disable_irqs(self, index: int) -> None:
        with self.lock:
            if index == IrqIndex.MSIX:
                self._replace_eventfds(0, [-1] * self._msix.vectors)

    def trigger_irqs(self, index: int, start: int, flags: list[bool]) -> None:
        with self.lock:
            if index != IrqIndex.MSIX or start < 0 or start + len(flags) > self._msix.vectors:
                raise ProtocolError("no such interrupt vector", errno=errno.EINVAL)
            for vector, wanted in enumerate(flags, start):
                if wanted:
                    self._signal(vector)

    def _signal(self, vector: int) -> None:
        """Raise an interrupt from the control side. Nothing where nobody listens."""
        fd = int(row_of(self._engine.state.vectors, self._function * VECTORS + vector)["eventfd"])
        if fd >= 0:
            try:
                os.eventfd_write(fd, 1)
            except OSError:
                _log.debug("%s: eventfd of vector %d cannot be written", self.name, vector)

    # --- Life ----------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Raises WaitTimeout as long as the loop has not let go of the guest before."""
        with self.lock:
            if self._leaving:
                self.detach()
            self.attached = True
            self.port.clear_to_send = False
            self._function_level_reset()

    def reset(self) -> None:
        with self.lock:
            self._config.reset()
            self._function_level_reset()

    def detach(self) -> None:
        """The guest has gone. The next one gets pages of its own: this one's may still be mapped somewhere."""
        with self.lock:
            self.attached = False
            self._leaving = True
            self.port.clear_to_send = False
            self._config.reset()
            self._function_level_reset()
            self._maps.unmap_all()
            self._replace_eventfds(0, [-1] * self._msix.vectors)
            self._renew_memory()
            self._leaving = False

    def close(self) -> None:
        """Take the function out of the card for good."""
        self.detach()
        with self.lock, self._engine.parked():
            self._record["model"] = self._record["pages"] = 0
            self.port.release()
            self._close_memory()

    def _function_level_reset(self) -> None:
        self._msix.reset()
        self.reset_rings()

    def _bus_master_changed(self) -> None:
        with self._engine.parked():
            self._set_dma()

    def _set_dma(self) -> None:
        """Whether the loop serves this function: while the loop is parked."""
        ready = self.attached and self._config.bus_master and self._record["fault"] < 0
        self._record["dma"] = int(ready)

    # --- The operator's side -------------------------------------------------------------------------------

    def counters(self) -> dict[str, Any]:
        """What only the control side counts."""
        return {"traps": self.traps, "bad_accesses": self.bad_accesses, "dma_ranges": len(self._maps)}

    def describe(self) -> dict[str, Any]:
        """What the model has to say of itself in `Card.describe`."""
        raise NotImplementedError

    def check_changes(self, changes: Mapping[str, Any]) -> None:
        """Raise UsageError for settings that this model has not, or not now. Unknown names are not looked at here."""
        for name in changes:
            if name in NAMES and name not in self.changeable:
                raise UsageError(f"this model of a VF has no setting {name!r}")

    def tell(self, *, restart: bool = False) -> None:
        """Tell the driver to look at the link again, or (`restart`) that it has to start anew."""
        raise NotImplementedError

    def watch_messages(self, observer: MessageObserver | None) -> None:
        """Show what goes to and fro beside the registers to `observer` (devices/trace.py), or to nobody."""

    def send_event(self, name: str, values: Mapping[str, int]) -> None:
        """Tell the driver something that a device tells by itself. Raises UsageError, ResourceBusy."""
        raise UsageError("this model of a VF sends no events of that kind", "an ENA does")

    def fail(self, part: str) -> None:
        """Stop doing a part of the work until the driver resets the function. Raises UsageError."""
        raise UsageError("this model of a VF has no parts to fail", "an ENA has")

    def tick(self) -> None:
        """Called some times a second, for what a model does by the clock."""

    # --- What a model adds ---------------------------------------------------------------------------------

    def _bars(self) -> dict[RegionIndex, Region]:
        raise NotImplementedError

    def _read_bar(self, index: int, offset: int, count: int) -> bytes:
        raise NotImplementedError

    def _write_bar(self, index: int, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def reset_rings(self) -> None:
        """Rings, interrupts, filters as after power-on; a fault is forgotten. DMA maps stay."""
        raise NotImplementedError

    def _renew_memory(self) -> None:
        """Pages of BARs that nobody has mapped yet, in place of those that somebody may have."""
        raise NotImplementedError

    def _close_memory(self) -> None:
        """Give back the pages of BARs. While the loop is parked."""
        raise NotImplementedError


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
