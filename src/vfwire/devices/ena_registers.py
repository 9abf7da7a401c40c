"""The device registers of an ENA: page 0 of its BAR0, which traps, and the readless way to read them.

Whoever writes waits for the answer to its write, so whatever a register starts is done by then: commands are answered,
a reset is over. A driver still sees the reset in progress until it takes its request back, as it expects to.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from vfwire.devices.ena_admin import AdminQueue
from vfwire.devices.ena_clock import Clock
from vfwire.devices.ena_events import EventQueue
from vfwire.devices.ena_features import ADDRESS_BITS, IMPLEMENTATION
from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.ena_rings import Refused
from vfwire.devices.ena_rss import EnaRss
from vfwire.devices.guest_memory import GuestMemory
from vfwire.layouts import ena_messages as messages
from vfwire.layouts import ena_registers as regs

RESET_TIMEOUT = 30  # in units of 100 ms
_CAPS = (
    regs.CAPS_CONTIGUOUS_QUEUE_REQUIRED_MASK
    | RESET_TIMEOUT << regs.CAPS_RESET_TIMEOUT_SHIFT
    | ADDRESS_BITS << regs.CAPS_DMA_ADDR_WIDTH_SHIFT
)
_ONES = 0xFFFFFFFF
_REQUEST = 0  # offset of the word that a driver looks at, in the answer to a readless read


class EnaRegisters:
    """One function's registers. All values are 0 to 2**32 - 1. Call while its lock is held.

    on_reset: DEV_CTL asks for a reset. faulty: whether the loop has stopped the function. notify: raise the interrupt
    of admin completions and events. `resets` counts by reason; `reads` those that were answered by DMA.
    """

    def __init__(
        self,
        options: EnaOptions,
        memory: GuestMemory,
        admin_queue: AdminQueue,
        events: EventQueue,
        rss: EnaRss,
        clock: Clock,
        on_reset: Callable[[], None],
        faulty: Callable[[], bool],
        notify: Callable[[], None],
    ) -> None:
        self.resets: Counter[int] = Counter()
        self.reads = 0
        self._options = options
        self._memory = memory
        self._admin = admin_queue
        self._events = events
        self._rss = rss
        self._clock = clock
        self._on_reset = on_reset
        self._faulty = faulty
        self._notify = notify
        self.reset()

    def reset(self) -> None:
        """Every register as after power-on."""
        self.resetting = self.has_reset = False
        self._mask = 0
        self._untold = False
        self._response = 0

    def interrupt(self) -> None:
        """Something was posted: raise the interrupt now, or when it is unmasked."""
        if self._mask & 1:
            self._untold = True
        else:
            self._notify()

    # --- Reading -------------------------------------------------------------------------------------------

    def read(self, offset: int) -> int | None:
        """The value of the register at `offset`, or None where there is none. What can only be written reads 0."""
        where = regs.decode(offset)
        if where is None:
            return None
        reader = _READERS.get(where[0])
        return reader(self) & _ONES if reader else 0

    def _version(self) -> int:
        major, minor = self._options.version
        return major << regs.VERSION_MAJOR_VERSION_SHIFT | minor

    def _controller(self) -> int:
        major, minor, subminor = self._options.controller
        return (
            IMPLEMENTATION << regs.CONTROLLER_VERSION_IMPL_ID_SHIFT
            | major << regs.CONTROLLER_VERSION_MAJOR_VERSION_SHIFT
            | minor << regs.CONTROLLER_VERSION_MINOR_VERSION_SHIFT
            | subminor
        )

    def _status(self) -> int:
        """READY in a reset, too: a driver that died in the middle of one must not keep the next from its own."""
        status = regs.DEV_STS_READY_MASK
        if self.resetting:
            status |= regs.DEV_STS_RESET_IN_PROGRESS_MASK
        elif self.has_reset:
            status |= regs.DEV_STS_RESET_FINISHED_MASK
        if self._faulty():
            status |= regs.DEV_STS_FATAL_ERROR_MASK
        return status

    # --- Writing -------------------------------------------------------------------------------------------

    def write(self, offset: int, value: int) -> bool:
        """Write a register. False where there is none; a write to one that cannot be written is ignored."""
        where = regs.decode(offset)
        if where is None:
            return False
        writer = _WRITERS.get(where[0])
        if writer is not None:
            writer(self, value)
        return True

    def _write_admin_base(self, value: int) -> None:
        self._admin.base = self._admin.base & ~_ONES | value

    def _write_admin_base_high(self, value: int) -> None:
        self._admin.base = self._admin.base & _ONES | value << 32

    def _write_completion_base(self, value: int) -> None:
        self._admin.completion_base = self._admin.completion_base & ~_ONES | value

    def _write_completion_base_high(self, value: int) -> None:
        self._admin.completion_base = self._admin.completion_base & _ONES | value << 32

    def _write_admin_doorbell(self, value: int) -> None:
        if self._admin.ring(value):
            self.interrupt()

    def _write_event_base(self, value: int) -> None:
        self._events.base = self._events.base & ~_ONES | value

    def _write_event_base_high(self, value: int) -> None:
        self._events.base = self._events.base & _ONES | value << 32

    def _write_event_caps(self, value: int) -> None:
        fits = value >> regs.AENQ_CAPS_AENQ_ENTRY_SIZE_SHIFT == messages.AENQ_ENTRY_BYTES
        self._events.set_up(value & regs.AENQ_CAPS_AENQ_DEPTH_MASK if fits else 0)

    def _write_event_doorbell(self, value: int) -> None:
        if self._events.give_room(value):
            self.interrupt()

    def _write_mask(self, value: int) -> None:
        self._mask = value
        if not value & 1 and self._untold:
            self._untold = False
            self._notify()

    def _write_control(self, value: int) -> None:
        """A reset is done at once; it goes on for the driver until it writes 0. Its reason is the upper bits."""
        if value & regs.DEV_CTL_DEV_RESET_MASK:
            if not self.resetting:
                self.resets[reset_reason(value)] += 1
                self._on_reset()
                self.resetting = True
        elif self.resetting:
            self.resetting, self.has_reset = False, True

    def _write_response(self, value: int) -> None:
        self._response = self._response & ~_ONES | value

    def _write_response_high(self, value: int) -> None:
        self._response = self._response & _ONES | value << 32

    def _write_read_request(self, value: int) -> None:
        """A readless read: the answer carries the request's number, which the driver looks at, in its first word."""
        if not self._options.readless:
            return
        offset = value >> regs.MMIO_REG_READ_REG_OFF_SHIFT
        found = self.read(offset)
        answer = np.zeros((), messages.MMIO_RESPONSE)
        answer["req_id"] = value & regs.MMIO_REG_READ_REQ_ID_MASK
        answer["reg_off"] = offset
        answer["reg_val"] = _ONES if found is None else found
        if self._response and self._memory.write(self._response, answer.tobytes(), last=_REQUEST):
            self.reads += 1

    def _write_table_entry(self, value: int) -> None:
        index = value & regs.RSS_IND_ENTRY_UPDATE_INDEX_MASK
        try:
            self._rss.set_entry(index, value >> regs.RSS_IND_ENTRY_UPDATE_CQ_IDX_SHIFT)
        except Refused:
            self._memory.bad += 1


def reset_reason(control: int) -> int:
    """The number in `RESET_REASONS` that a value of DEV_CTL names, -1 for none of them."""
    low = (control & regs.DEV_CTL_RESET_REASON_MASK) >> regs.DEV_CTL_RESET_REASON_SHIFT
    high = (control & regs.DEV_CTL_RESET_REASON_EXT_MASK) >> regs.DEV_CTL_RESET_REASON_EXT_SHIFT
    reason = high << 4 | low
    return reason if reason in regs.RESET_REASONS else -1


_READERS: dict[str, Callable[[EnaRegisters], int]] = {
    "VERSION": EnaRegisters._version,
    "CONTROLLER_VERSION": EnaRegisters._controller,
    "CAPS": lambda _self: _CAPS,
    "ACQ_TAIL": lambda self: self._admin.completed,
    "AENQ_TAIL": lambda self: self._events.tail,
    "INTR_MASK": lambda self: self._mask,
    "DEV_STS": EnaRegisters._status,
}

_WRITERS: dict[str, Callable[[EnaRegisters, int], None]] = {
    "AQ_BASE_LO": EnaRegisters._write_admin_base,
    "AQ_BASE_HI": EnaRegisters._write_admin_base_high,
    "AQ_CAPS": lambda self, value: self._admin.set_up(value),
    "ACQ_BASE_LO": EnaRegisters._write_completion_base,
    "ACQ_BASE_HI": EnaRegisters._write_completion_base_high,
    "ACQ_CAPS": lambda self, value: self._admin.set_up_completions(value),
    "AQ_DB": EnaRegisters._write_admin_doorbell,
    "AENQ_CAPS": EnaRegisters._write_event_caps,
    "AENQ_BASE_LO": EnaRegisters._write_event_base,
    "AENQ_BASE_HI": EnaRegisters._write_event_base_high,
    "AENQ_HEAD_DB": EnaRegisters._write_event_doorbell,
    "INTR_MASK": EnaRegisters._write_mask,
    "DEV_CTL": EnaRegisters._write_control,
    "MMIO_REG_READ": EnaRegisters._write_read_request,
    "MMIO_RESP_LO": EnaRegisters._write_response,
    "MMIO_RESP_HI": EnaRegisters._write_response_high,
    "RSS_IND_ENTRY_UPDATE": EnaRegisters._write_table_entry,
    "PHC_DB": lambda self, value: self._clock.ring(value),
}
