"""The ENA's admin queue: commands in, completions out, in the thread of who rings the doorbell.

The doorbell is a register that traps, so a command has been answered before the write to it returns, whatever the
card's loop is doing. Each entry is copied once and then looked at. A command that makes no sense gets the status that
the vendor's headers have for it; a queue that makes no sense is not served, which a driver sees as a timeout.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from vfwire.devices.ena_rings import Answer, Refused
from vfwire.devices.function import MessageObserver
from vfwire.devices.guest_memory import GuestMemory
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages

MOST_ENTRIES = 1024
_INDEX = 0xFFFF  # the doorbell counts freely in 16 bits
_HEAD = 0  # offset of the word that holds the phase bit, in a completion

Handler = Callable[[bytes, bool], Answer]  # an entry, and whether it has a control buffer


class AdminQueue:
    """One function's. handlers: by opcode. Call while the function's lock is held.

    `answered` counts completions by (opcode, feature or 0, status); `ignored` doorbells that made no sense; `held`:
    commands wait for ever, which an operator may want to see.
    """

    def __init__(self, memory: GuestMemory, handlers: dict[int, Handler]) -> None:
        self._memory = memory
        self._handlers = handlers
        self.answered: Counter[tuple[int, int, int]] = Counter()
        self.ignored = 0
        self.observer: MessageObserver | None = None
        self.reset()

    def reset(self) -> None:
        """No queue. What was submitted and not answered is forgotten."""
        self.base = self.completion_base = 0
        self.depth = self.completion_depth = 0
        self.head = self.completed = 0  # commands taken and completions posted, since the queue was set up
        self._doorbell = 0
        self.held = False

    def set_up(self, caps: int) -> None:
        """AQ_CAPS was written."""
        self.depth = _depth(caps, messages.AQ_ENTRY_BYTES)
        self.head = self._doorbell = 0

    def set_up_completions(self, caps: int) -> None:
        """ACQ_CAPS was written."""
        self.completion_depth = _depth(caps, messages.ACQ_ENTRY_BYTES)
        self.completed = 0

    def ring(self, tail: int) -> bool:
        """The doorbell. True when completions were posted."""
        self._doorbell = tail & _INDEX
        return self.serve()

    def serve(self) -> bool:
        """Answer all that is submitted. True when completions were posted."""
        pending = self._doorbell - self.head & _INDEX
        if not self.depth or not self.completion_depth or pending > self.depth:
            self.ignored += 1
            return False
        if self.held:
            return False
        posted = False
        for _ in range(pending):
            entry = self._memory.read(self.base + self.head % self.depth * messages.AQ_ENTRY_BYTES, 64)
            if entry is None:
                break
            phase = 1 - self.head // self.depth % 2
            self.head += 1
            posted |= self._complete(entry, *self._execute(entry, phase))
        return posted

    def _execute(self, entry: bytes, phase: int) -> Answer:
        head = np.frombuffer(entry, messages.AQ_COMMON, 1)[0]
        flags = int(head["flags"])
        if flags & admin.AQ_COMMON_DESC_PHASE_MASK != phase:
            return admin.MALFORMED_REQUEST, b""
        handler = self._handlers.get(int(head["opcode"]))
        if handler is None:
            return admin.BAD_OPCODE, b""
        has_buffer = flags & (
            admin.AQ_COMMON_DESC_CTRL_DATA_MASK | admin.AQ_COMMON_DESC_CTRL_DATA_INDIRECT_MASK
        )
        try:
            return handler(entry, bool(has_buffer))
        except Refused as refused:
            return refused.status, b""

    def _complete(self, entry: bytes, status: int, data: bytes) -> bool:
        command = np.frombuffer(entry, messages.FEATURE_CMD)[0]
        common = command["aq_common_descriptor"]
        opcode = int(common["opcode"])
        with_feature = opcode in (admin.GET_FEATURE, admin.SET_FEATURE)
        feature = int(command["feat_common"]["feature_id"]) if with_feature else 0
        known = _known(opcode, feature, status)
        self.answered[known] += 1
        answer = np.zeros((), messages.ACQ_COMMON)
        answer["command"] = int(common["command_id"]) & admin.AQ_COMMON_DESC_COMMAND_ID_MASK
        answer["status"] = status
        answer["flags"] = 1 - self.completed // self.completion_depth % 2
        answer["sq_head_indx"] = self.head & _INDEX
        place = self.completed % self.completion_depth * messages.ACQ_ENTRY_BYTES
        whole = (answer.tobytes() + data).ljust(messages.ACQ_ENTRY_BYTES, b"\0")
        self.completed += 1
        if self.observer is not None:
            name = command_name(*known[:2])
            self.observer("admin", "command", name, _words(entry))
            self.observer("admin", "completion", f"{name} {admin.STATUS_NAMES[status]}", _words(whole))
        return self._memory.write(self.completion_base + place, whole, last=_HEAD)


def _known(opcode: int, feature: int, status: int) -> tuple[int, int, int]:
    """So that a guest cannot make the counters grow without end: what has no name counts as -1."""
    return (
        opcode if opcode in admin.OPCODE_NAMES else -1,
        feature if feature in admin.FEATURE_NAMES or not feature else -1,
        status,
    )


def command_name(opcode: int, feature: int) -> str:
    """As a trace and the counters have it: "GET_FEATURE LLQ"."""
    name = admin.OPCODE_NAMES.get(opcode, "unknown")
    return f"{name} {admin.FEATURE_NAMES.get(feature, 'unknown')}" if feature else name


def _words(entry: bytes) -> list[int]:
    return np.frombuffer(entry, "<u4").tolist()  # type: ignore[no-any-return]


def _depth(caps: int, entry_bytes: int) -> int:
    """Entries of a queue by its CAPS register, 0 where it cannot be one."""
    depth, size = caps & 0xFFFF, caps >> 16
    return depth if size == entry_bytes and depth <= MOST_ENTRIES else 0
