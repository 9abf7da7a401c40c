"""The Elastic Network Adapter as a PCI function: configuration space, BARs, interrupts, resets, events.

The data path never traps: doorbells, interrupt registers and low-latency queues are memory that the guest maps and the
loop polls (devices/ena_pages.py). Page 0 traps on purpose: all that a driver writes there starts something (a command,
a reset, a readless read), so the write is what wakes the control side, and the answer is there when it returns. Were it
mapped, somebody would have to poll 63 of them. With `exact` nothing is mapped and every access traps.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vfwire.datapath.control_words import row_of, store_register
from vfwire.datapath.state import MODEL_ENA, VECTORS
from vfwire.devices import ena_pages as pages
from vfwire.devices.ena_admin import AdminQueue, Handler, command_name
from vfwire.devices.ena_clock import Clock
from vfwire.devices.ena_config import ena_config_space
from vfwire.devices.ena_events import EventQueue
from vfwire.devices.ena_features import DELAY_NS, EnaFeatures
from vfwire.devices.ena_names import ENA_NAMES
from vfwire.devices.ena_options import PARTS, SENDABLE, EnaOptions, check_options
from vfwire.devices.ena_registers import EnaRegisters
from vfwire.devices.ena_rings import Answer, EnaRings
from vfwire.devices.ena_rss import EnaRss
from vfwire.devices.ena_statistics import EnaStatistics, pack_pairs
from vfwire.devices.engine import Engine
from vfwire.devices.function import CardFunction, MessageObserver
from vfwire.devices.guest_memory import GuestMemory
from vfwire.devices.pf_port import PfPort
from vfwire.errors import ResourceBusy, UsageError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages
from vfwire.layouts.ena_registers import RESET_REASONS
from vfwire.memory.shared import SharedMemory
from vfwire.pci.endpoint import MappedArea, Region, RegionIndex
from vfwire.pci.msix import MsixTable

KEEP_ALIVE_SECONDS = 1.0


class VirtualFunctionEna(CardFunction):
    """An ENA; what every model has in common is in devices/function.py."""

    names = ENA_NAMES
    changeable = frozenset({"mac", "vlan", "qos", "spoofchk", "trust", "state", "max_tx_rate"})

    def __init__(
        self,
        engine: Engine,
        function: int,
        port: PfPort,
        name: str,
        options: EnaOptions,
        *,
        exact: bool = False,
    ) -> None:
        check_options(options)
        msix = MsixTable(pages.MSIX_VECTORS, 0, pages.MSIX_PBA_OFFSET)
        super().__init__(engine, function, port, name, ena_config_space(options), msix)
        self.exact = exact
        self.options = options
        self._guest = GuestMemory(self._maps)
        self.events = EventQueue(self._guest)
        self.clock = Clock(self._guest)
        self.rings = EnaRings(engine, function, self._guest, options.queues, options.burst)
        self.rss = EnaRss(engine, function, self._record, options.queues)
        self.statistics = EnaStatistics(engine.state, function, self._guest, options)
        self.features = EnaFeatures(options, port, self._guest, self.rings, self.rss, self.events, self.clock)
        self.admin = AdminQueue(
            self._guest,
            {
                admin.CREATE_SQ: _structured(self.rings.create_sq, messages.CREATE_SQ_CMD),
                admin.DESTROY_SQ: _structured(self.rings.destroy_sq, messages.DESTROY_SQ_CMD),
                admin.CREATE_CQ: _structured(self.rings.create_cq, messages.CREATE_CQ_CMD),
                admin.DESTROY_CQ: _structured(self.rings.destroy_cq, messages.DESTROY_CQ_CMD),
                admin.GET_FEATURE: self.features.get,
                admin.SET_FEATURE: self.features.set,
                admin.GET_STATS: self.statistics.get,
            },
        )
        self.registers = EnaRegisters(
            options,
            self._guest,
            self.admin,
            self.events,
            self.rss,
            self.clock,
            on_reset=self.reset_rings,
            faulty=lambda: int(self._record["fault"]) >= 0,
            notify=lambda: self._signal(pages.ADMIN_VECTOR),
        )
        self._failed: set[str] = set()
        self._next_keep_alive = 0.0
        self._fault_told = -1
        self._bar0, self._bar2 = self._new_memory()
        with engine.parked():
            self._enter_memory()
            self._record["model"] = MODEL_ENA
        self.reset_rings()
        port.enter_link()
        port.enter_rate()

    # --- Memory --------------------------------------------------------------------------------------------

    def _new_memory(self) -> tuple[SharedMemory, SharedMemory]:
        """BAR0, of which page 0 is not used, and BAR2: areas lie in the files as they lie in the BARs."""
        return (
            SharedMemory.create(f"vfwire-{self.name}", pages.BAR0_SIZE),
            SharedMemory.create(f"vfwire-{self.name}-llq", pages.bar2_size(self.options.queues)),
        )

    def _enter_memory(self) -> None:
        """Tell the loop and the rings where the BARs' pages lie. While the loop is parked."""
        self.rings.bar0, self.rings.bar2 = self._bar0.address, self._bar2.address
        moderated = admin.INTERRUPT_MODERATION in self.options.features()
        for vector in range(pages.MSIX_VECTORS):
            row = row_of(self._engine.state.vectors, self._function * VECTORS + vector)
            row["unmask"] = self._bar0.address + pages.interrupt_register(vector)
            row["moderation_ns"] = DELAY_NS if moderated else 0

    def _renew_memory(self) -> None:
        old = self._bar0, self._bar2
        self._bar0, self._bar2 = self._new_memory()
        with self._engine.parked():
            self._enter_memory()
        for memory in old:
            memory.close()

    def _close_memory(self) -> None:
        for vector in range(pages.MSIX_VECTORS):
            row_of(self._engine.state.vectors, self._function * VECTORS + vector)["unmask"] = 0
        self._bar0.close()
        self._bar2.close()

    def _bars(self) -> dict[RegionIndex, Region]:
        bar2 = pages.bar2_size(self.options.queues)
        if self.exact:
            bars = (Region(pages.BAR0_SIZE), Region(bar2))
        else:
            words = MappedArea(pages.PAGES, pages.BAR0_SIZE - pages.PAGES, pages.PAGES)
            bars = (
                Region(pages.BAR0_SIZE, self._bar0, (words,)),
                Region(bar2, self._bar2, (MappedArea(0, bar2, 0),)),
            )
        return {
            RegionIndex.BAR0: bars[0],
            RegionIndex.BAR1: Region(pages.BAR1_SIZE),
            RegionIndex.BAR2: bars[1],
        }

    # --- Accesses ------------------------------------------------------------------------------------------

    def _read_bar(self, index: int, offset: int, count: int) -> bytes:
        memory = self._memory_at(index, offset)
        if memory is not None:
            return memory.array[offset : offset + count].tobytes()
        if index == RegionIndex.BAR1:
            return self._msix.read(offset, count)
        found = self.registers.read(offset) if index == RegionIndex.BAR0 and count == 4 else None
        if found is None:
            self.bad_accesses += 1
            return b"\xff" * count
        return found.to_bytes(4, "little")

    def _write_bar(self, index: int, offset: int, data: bytes) -> None:
        memory = self._memory_at(index, offset)
        if memory is not None:
            if index == RegionIndex.BAR0 and len(data) == 4:
                before = memory.array[offset : offset + 4].tobytes()
                self.rings.note_doorbell(offset, *(int.from_bytes(word, "little") for word in (before, data)))
            _store(memory, offset, data)
            self._engine.kick()  # a doorbell that comes as a message can end the card's nap
        elif index == RegionIndex.BAR1:
            self._msix.write(offset, data)
        elif (
            index != RegionIndex.BAR0
            or len(data) != 4
            or not self.registers.write(offset, int.from_bytes(data, "little"))
        ):
            self.bad_accesses += 1

    def _memory_at(self, index: int, offset: int) -> SharedMemory | None:
        if index == RegionIndex.BAR2:
            return self._bar2
        return self._bar0 if index == RegionIndex.BAR0 and offset >= pages.PAGES else None

    # --- Life ----------------------------------------------------------------------------------------------

    def reset_rings(self) -> None:
        with self.lock, self._engine.parked():
            self.rings.reset()
            self.rss.reset()
            self._bar0.array[pages.PAGES :] = 0
            self._failed.clear()
            self._record["fault"] = self._fault_told = -1
            self._set_dma()
            self.port.reset()
            self.admin.reset()
            self.events.reset()
            self.registers.reset()
            self.features.host = None
            self.clock.output = 0

    def _set_dma(self) -> None:
        super()._set_dma()
        if "traffic" in self._failed:
            self._record["dma"] = 0

    def tick(self) -> None:
        """Called some times a second: keep-alive, and the word that the loop has stopped the function. A function whose
        lock is taken has its turn the next time: no guest holds up another's keep-alive.
        """
        if not self.lock.acquire(blocking=False):
            return
        try:
            told = self._tell_fault()
            now = time.monotonic()
            if now >= self._next_keep_alive and "keep-alive" not in self._failed:
                self._next_keep_alive = now + KEEP_ALIVE_SECONDS
                told |= self.events.post(admin.KEEP_ALIVE, data=pack_pairs(*self.statistics.drops()))
            if told:
                self.registers.interrupt()
        finally:
            self.lock.release()

    def _tell_fault(self) -> bool:
        fault = int(self._record["fault"])
        if fault == self._fault_told:
            return False
        self._fault_told = fault
        return fault >= 0 and self.events.post(admin.FATAL_ERROR)

    # --- The operator's side -------------------------------------------------------------------------------

    def check_changes(self, changes: Mapping[str, Any]) -> None:
        super().check_changes(changes)
        if "mac" in changes and self.attached:
            raise UsageError(
                f"{self.name} is in use, and an ENA's driver takes a change of its MAC for a fault",
                "stop the guest, or unplug the VF, first",
            )

    def tell(self, *, restart: bool = False) -> None:
        with self.lock:
            if self.events.link(bool(self._record["link_up"])):
                self.registers.interrupt()

    def watch_messages(self, observer: MessageObserver | None) -> None:
        self.admin.observer = self.events.observer = self.rings.observer = observer

    def send_event(self, name: str, values: Mapping[str, int]) -> None:
        """name: of `SENDABLE`. values: of hints, for NOTIFICATION; `bits`, for CONF_NOTIFICATIONS."""
        group = SENDABLE.get(name)
        if group is None:
            raise UsageError(f"an ENA has no event {name[:40]!r}", f"it has {', '.join(SENDABLE)}")
        with self.lock:
            if not self.events.wants(group):
                raise UsageError(f"the driver of {self.name} has not asked for {name} events")
            syndrome, data = self._event_data(group, values)
            if not self.events.post(group, syndrome, data):
                raise ResourceBusy(f"the driver of {self.name} has left no room for events")
            self.registers.interrupt()

    def _event_data(self, group: int, values: Mapping[str, int]) -> tuple[int, bytes]:
        if group == admin.NOTIFICATION:
            self.features.set_hints(values)
            return admin.UPDATE_HINTS, self.features.hints_data()
        known = {"bits"} if group == admin.CONF_NOTIFICATIONS else set()
        if set(values) - known:
            raise UsageError(f"{admin.EVENT_NAMES[group]} takes no {min(set(values) - known)!r}")
        return 0, pack_pairs(values.get("bits", 0)) if known else b""

    def fail(self, part: str) -> None:
        """part: of `PARTS`."""
        if part not in PARTS:
            raise UsageError(f"an ENA has no part {part[:40]!r} to fail", f"it has {', '.join(PARTS)}")
        with self.lock, self._engine.parked():
            self._failed.add(part)
            self.admin.held = "admin" in self._failed
            self._set_dma()

    def counters(self) -> dict[str, Any]:
        answered = {
            " ".join((command_name(opcode, feature), *_failure(status))): count
            for (opcode, feature, status), count in sorted(self.admin.answered.items())
        }
        events = {admin.EVENT_NAMES[group]: count for group, count in self.events.posted.items()}
        return {
            **super().counters(),
            "admin_commands": answered,
            "admin_ignored": self.admin.ignored,
            "events": events,
            "events_lost": sum(self.events.lost.values()),
            "readless_reads": self.registers.reads,
            "bad_addresses": self._guest.bad,
            **({"bursts_too_long": self.rings.bursts_too_long} if self.options.burst and self.exact else {}),
            "resets": {
                RESET_REASONS.get(reason, "unknown"): n for reason, n in self.registers.resets.items()
            },
        }

    def describe(self) -> dict[str, Any]:
        with self.lock:
            return {
                "host": self.features.host,
                "queues_open": {
                    "tx": sum(direction == admin.SQ_DIRECTION_TX for direction, _ in self.rings),
                    "rx": sum(direction == admin.SQ_DIRECTION_RX for direction, _ in self.rings),
                },
                "low_latency_queues": self.rings.llq is not None,
            }


def _structured(handle: Callable[[np.void], Answer], kind: np.dtype[np.void]) -> Handler:
    return lambda entry, _has_buffer: handle(np.frombuffer(entry, kind, 1)[0])


def _failure(status: int) -> tuple[str, ...]:
    return () if status == admin.SUCCESS else (admin.STATUS_NAMES[status],)


def _store(memory: SharedMemory, offset: int, data: bytes) -> None:
    """Whole words in one store each, as over a bus; the rest byte by byte."""
    if len(data) == 4 and offset % 4 == 0:
        store_register(memory.address + offset, int.from_bytes(data, "little"))
    else:
        memory.array[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
