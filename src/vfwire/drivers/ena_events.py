"""What an ENA says of its own accord: link, keep-alive, hints, wishes for a reset (ena_com.c, ena_netdev.c; AENQ)."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vfwire.drivers.ena_admin import Admin
from vfwire.drivers.verbs import Pool
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg
from vfwire.layouts import ena_registers as reg
from vfwire.pci.function import Function

DEPTH = 16
WATCHDOG_SECONDS = 6.0  # without a keep-alive, as vendors' drivers have it where the device hints at no other
WANTED = (
    admin.LINK_CHANGE,
    admin.FATAL_ERROR,
    admin.WARNING,
    admin.NOTIFICATION,
    admin.KEEP_ALIVE,
    admin.REFRESH_CAPABILITIES,
    admin.CONF_NOTIFICATIONS,
    admin.DEVICE_REQUEST_RESET,
)


@dataclass
class Events:
    """The event queue of one ENA. `link_up`, `counts` (events by group) and `drops` are what was heard so far.

    reset_reason: a RESET_* reason once the device, or its silence, asks for a reset; None otherwise.
    """

    function: Function
    pool: Pool
    admin: Admin
    link_up: bool = False
    counts: dict[int, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    reset_reason: int | None = None
    watchdog_seconds: float = WATCHDOG_SECONDS

    def __post_init__(self) -> None:
        self._address = self.pool.reserve(DEPTH * msg.AENQ_ENTRY_BYTES, 64)
        self._view = self.pool.view(self._address, DEPTH * msg.AENQ_ENTRY_BYTES)
        self._taken = 0
        self._groups = 0
        self._alive = time.monotonic()

    def start(self, delta: int) -> None:
        """Set up the event queue, after a reset. delta: I/O address minus address. Nothing comes until `listen`."""
        self._view[:] = 0
        self._taken = 0
        self.link_up, self.reset_reason = False, None
        iova = self._address + delta
        write = self.function.write32
        write(0, reg.AENQ_BASE_LO, iova & 0xFFFFFFFF)
        write(0, reg.AENQ_BASE_HI, iova >> 32)
        write(0, reg.AENQ_CAPS, msg.AENQ_ENTRY_BYTES << reg.AENQ_CAPS_AENQ_ENTRY_SIZE_SHIFT | DEPTH)

    def listen(self) -> None:
        """Enable the groups that both sides know, and give the device room for events."""
        data = self.admin.get_feature(admin.AENQ_CONFIG, msg.AENQ_DESC).copy()
        self._groups = int(data["supported_groups"]) & sum(1 << group for group in WANTED)
        data["enabled_groups"] = self._groups
        self.admin.set_feature(admin.AENQ_CONFIG, data)
        self._alive = time.monotonic()
        self.function.write32(0, reg.AENQ_HEAD_DB, DEPTH)

    def poll(self) -> int:
        """Take the events that have come; returns how many. A trap where there were any, none otherwise."""
        taken = 0
        while True:
            place = self._taken % DEPTH
            entry = self._view[place * 64 : place * 64 + 64]
            head = entry[: msg.EVENT_DATA].view(msg.AENQ_COMMON)
            phase = 1 - self._taken // DEPTH % 2
            if int(head["flags"][0]) & admin.AENQ_COMMON_DESC_PHASE_MASK != phase:
                break
            self._hear(int(head["group"][0]), int(head["syndrome"][0]), entry[msg.EVENT_DATA :].tobytes())
            self._taken += 1
            taken += 1
        if taken:
            self.function.write32(0, reg.AENQ_HEAD_DB, (self._taken + DEPTH) & 0xFFFF)
        return taken

    def overdue(self) -> bool:
        """Whether the device has been silent for longer than its watchdog allows."""
        listens = self._groups >> admin.KEEP_ALIVE & 1
        return bool(listens) and time.monotonic() - self._alive > self.watchdog_seconds

    def take_hints(self, hints: Any) -> None:
        """Wait for keep-alive, commands and register reads as long as the device hints at (HW_HINTS_DESC, in ms; 0
        leaves a time as it is). Its other hints are of things that this driver does not watch.
        """
        if watchdog := int(hints["driver_watchdog_timeout"]):
            never = watchdog == admin.HW_HINTS_NO_TIMEOUT
            self.watchdog_seconds = math.inf if never else watchdog / 1000
        if command := int(hints["admin_completion_tx_timeout"]):
            self.admin.seconds = command / 1000
        if read := int(hints["mmio_read_timeout"]):
            self.admin.read_seconds = read / 1000

    def _hear(self, group: int, syndrome: int, data: bytes) -> None:
        self.counts[group] = self.counts.get(group, 0) + 1
        if group == admin.LINK_CHANGE:
            flags = int(_event(data, msg.LINK_CHANGE_EVENT)["flags"])
            self.link_up = bool(flags & admin.AENQ_LINK_CHANGE_DESC_LINK_STATUS_MASK)
        elif group == admin.KEEP_ALIVE:
            self._alive = time.monotonic()
            told = _event(data, msg.KEEP_ALIVE_EVENT)
            self.drops = {
                name: int(told[f"{name}_low"]) | int(told[f"{name}_high"]) << 32
                for name in ("rx_drops", "tx_drops", "rx_overruns")
            }
        elif group == admin.NOTIFICATION and syndrome == admin.UPDATE_HINTS:
            self.take_hints(_event(data, msg.HW_HINTS_DESC))
        elif group == admin.REFRESH_CAPABILITIES:
            # Nothing is wrong: what the device can is asked anew behind a reset.
            self.reset_reason = reg.RESET_NORMAL
        elif group == admin.FATAL_ERROR:
            self.reset_reason = reg.RESET_GENERIC
        elif group == admin.DEVICE_REQUEST_RESET:
            self.reset_reason = reg.RESET_DEVICE_REQUEST


def _event(data: bytes, kind: Any) -> Any:
    return np.frombuffer(data[: kind.itemsize], kind)[0]
