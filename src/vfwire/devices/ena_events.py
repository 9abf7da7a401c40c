"""The asynchronous event notification queue: what an ENA tells its driver unasked.

The driver gives room by its head doorbell and says which groups it wants. What comes when there is no room is lost and
counted, but for the link: its last state is told as soon as there is room again.
"""

import time

import numpy as np

from vfwire.devices.function import MessageObserver
from vfwire.devices.guest_memory import GuestMemory
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages

MOST_ENTRIES = 4096
_INDEX = 0xFFFF  # the doorbell counts freely in 16 bits
_FLAGS = 4  # offset of the word that holds the phase bit


class EventQueue:
    """One function's. Call while the function's lock is held; whoever posts raises the interrupt.

    `posted` and `lost` count by group; `unacknowledged` is how many entries the driver has not given back.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.posted: dict[int, int] = {}
        self.lost: dict[int, int] = {}
        self.observer: MessageObserver | None = None
        self.reset()

    def reset(self) -> None:
        """No queue, no group."""
        self.base = 0
        self.depth = 0
        self.tail = 0  # events written since the queue was set up
        self.groups = 0
        self._room_until = 0
        self._link: bool | None = None  # a state that is still to be told

    def set_up(self, depth: int) -> None:
        """The driver has given the queue `depth` entries, at `base`. None of it can be used until it gives room."""
        self.depth = depth if depth <= MOST_ENTRIES else 0
        self.tail = self._room_until = 0

    def enable(self, groups: int, link_up: bool) -> None:
        """Replace the groups that the driver wants. One that wants the link's changes has to hear of its state."""
        if groups & ~self.groups & 1 << admin.LINK_CHANGE:
            self._link = link_up
        self.groups = groups

    def give_room(self, head: int) -> bool:
        """The head doorbell. True when something was told that had waited for it."""
        self._room_until = head & _INDEX
        return self._tell_link()

    @property
    def room(self) -> int:
        free = self._room_until - self.tail & _INDEX
        return free if free <= self.depth else 0

    def wants(self, group: int) -> bool:
        return bool(self.groups >> group & 1)

    def link(self, up: bool) -> bool:
        """Tell that the link is up or down, now or when there is room. True when it was told."""
        if not self.wants(admin.LINK_CHANGE):
            return False
        self._link = up
        return self._tell_link()

    def _tell_link(self) -> bool:
        if self._link is None or not self.room or not self.wants(admin.LINK_CHANGE):
            return False
        flags = admin.AENQ_LINK_CHANGE_DESC_LINK_STATUS_MASK if self._link else 0
        if not self.post(admin.LINK_CHANGE, data=flags.to_bytes(4, "little")):
            return False
        self._link = None
        return True

    def post(self, group: int, syndrome: int = 0, data: bytes = b"") -> bool:
        """Write one event, of a group that the driver wants. False, counted as lost, where it cannot be."""
        if not self.wants(group):
            return False
        if not self.room or not self._write(group, syndrome, data):
            self.lost[group] = self.lost.get(group, 0) + 1
            return False
        self.tail += 1
        self.posted[group] = self.posted.get(group, 0) + 1
        if self.observer is not None:
            words = np.frombuffer(data[: len(data) & ~3], "<u4").tolist()
            self.observer("admin", "event", admin.EVENT_NAMES[group], [syndrome, *words])
        return True

    def _write(self, group: int, syndrome: int, data: bytes) -> bool:
        place = self.tail % self.depth
        phase = 1 - (self.tail // self.depth) % 2
        stamp = time.monotonic_ns() // 1000
        head = group.to_bytes(2, "little") + syndrome.to_bytes(2, "little") + bytes([phase, 0, 0, 0])
        entry = head + stamp.to_bytes(8, "little") + data
        entry = entry.ljust(messages.AENQ_ENTRY_BYTES, b"\0")
        return self._memory.write(self.base + place * messages.AENQ_ENTRY_BYTES, entry, last=_FLAGS)
