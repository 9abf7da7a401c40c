"""An ENA driver's queue pairs: created by admin commands, written down as QUEUE records, destroyed (ena_com.c).

Each submission queue has a completion queue of its own. A transmit ring lies in our memory, or in the device's: then
frames' headers are pushed into it with their descriptors (a low-latency queue).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.ena_driver_frame import LLQ_SLOTS
from vfwire.datapath.ena_words import DESCRIPTOR_BYTES
from vfwire.datapath.port import ENA
from vfwire.drivers.ena_admin import Admin, put_address
from vfwire.drivers.verbs import Pool, queue_records
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_io as io
from vfwire.layouts import ena_messages as msg
from vfwire.pci.function import Function

LLQ_BAR = 2
BEFORE_HEADER = admin.LLQ_NUM_DESCS_BEFORE_HEADER_2
FRAME_VECTOR = 1  # MSI-X: all receive queues; vector 0 is the admin queue's and the events'
_ENTRY_SIZES = {128: admin.LIST_ENTRY_SIZE_128B, 256: admin.LIST_ENTRY_SIZE_256B}
_COMPLETION_BYTES = {admin.SQ_DIRECTION_TX: io.TX_CDESC_BYTES, admin.SQ_DIRECTION_RX: io.RX_CDESC_BASE_BYTES}


@dataclass
class _Made:
    """One queue as the device knows it: its numbers, and where its interrupts are asked for."""

    direction: int
    number: int
    completions: int
    unmask: int


class LowLatency(NamedTuple):
    """What a device allows of the low-latency queues agreed on: entries of a ring (0: it has none of this kind), and
    entries between two doorbells (0: no limit).
    """

    depth: int
    burst: int


def negotiate_llq(control: Admin, entry_bytes: int) -> LowLatency:
    """Agree on low-latency queues of `entry_bytes` (128 or 256). Descriptors lie in line before the header, eight to
    each further entry. The device tells its longest burst in bytes; drivers count entries (ena_com.c).
    """
    offer = control.get_feature(admin.LLQ, msg.LLQ_DESC, version=admin.LLQ_FEATURE_VERSION_1)
    wanted = {
        "header_location_ctrl": admin.INLINE_HEADER,
        "entry_size_ctrl": _ENTRY_SIZES[entry_bytes],
        "desc_num_before_header": BEFORE_HEADER,
        "descriptors_stride_ctrl": admin.MULTIPLE_DESCS_PER_ENTRY,
    }
    if any(not int(offer[f"{name}_supported"]) & bit for name, bit in wanted.items()):
        return LowLatency(0, 0)
    choice = np.zeros((), msg.LLQ_DESC)
    for name, bit in wanted.items():
        choice[f"{name}_enabled"] = bit
    limited = int(offer["accel_flags"]) & 1 << admin.LIMIT_TX_BURST
    choice["accel_flags"] = limited
    control.set_feature(admin.LLQ, choice, version=admin.LLQ_FEATURE_VERSION_1)
    depth, wide = int(offer["max_llq_depth"]), int(offer["max_wide_llq_depth"])
    burst = int(offer["max_tx_burst_size"]) // entry_bytes if limited else 0
    return LowLatency((wide or depth // 2) if entry_bytes == 256 else depth, burst)


class Queues:
    """The queue pairs of one ENA. `rx`, `tx`: QUEUE records, one row a pair, whose memory stays the same for good.

    llq_bytes: of a low-latency entry, 0 for rings in our memory. `llq_burst`: entries between two doorbells, 0 for no
    limit; set before `create`.
    """

    def __init__(
        self, function: Function, pool: Pool, control: Admin, pairs: int, size: int, llq_bytes: int
    ) -> None:
        self.rx, self.tx = queue_records(pairs), queue_records(pairs)
        self.llq_bytes, self.llq_burst = llq_bytes, 0
        self._function, self._pool, self._admin = function, pool, control
        self._size = size
        self._made: list[_Made] = []
        self._slots: list[NDArray[np.int64]] = []
        for number in range(pairs):
            self._reserve(self.tx[number], size * (LLQ_SLOTS if llq_bytes else 1), admin.SQ_DIRECTION_TX)
            self._reserve(self.rx[number], size, admin.SQ_DIRECTION_RX)

    def _reserve(self, record: Any, slots: int, direction: int) -> None:
        record.kind, record.size, record.completion_size, record.event = ENA, self._size, self._size, -1
        words = np.zeros(slots, np.int64)
        self._slots.append(words)
        record.slots = int(words.ctypes.data)
        if direction == admin.SQ_DIRECTION_RX or not self.llq_bytes:
            record.ring = self._pool.reserve(self._size * DESCRIPTOR_BYTES)
        record.completions = self._pool.reserve(self._size * _COMPLETION_BYTES[direction])

    def create(self, delta: int) -> None:
        """Create all pairs, empty, transmit before receive as vendors' drivers do. delta: I/O address minus address."""
        for direction, records in ((admin.SQ_DIRECTION_TX, self.tx), (admin.SQ_DIRECTION_RX, self.rx)):
            for record in records:
                self._made.append(self._create(record, direction, delta))

    def _create(self, record: Any, direction: int, delta: int) -> _Made:
        record.delta = delta
        record.head = record.tail = record.completed = record.invalid = 0
        completions = self._create_completions(record, direction, delta)
        pushed = direction == admin.SQ_DIRECTION_TX and self.llq_bytes != 0
        entry = np.zeros((), msg.CREATE_SQ_CMD)
        entry["sq_identity"] = direction << admin.AQ_CREATE_SQ_CMD_SQ_DIRECTION_SHIFT
        entry["sq_caps_2"] = admin.PLACEMENT_POLICY_DEV if pushed else admin.PLACEMENT_POLICY_HOST
        entry["sq_caps_3"] = admin.AQ_CREATE_SQ_CMD_IS_PHYSICALLY_CONTIGUOUS_MASK
        entry["cq_idx"], entry["sq_depth"] = completions["cq_idx"], self._size
        if not pushed:
            self._clear(int(record.ring), self._size * DESCRIPTOR_BYTES)
            put_address(entry["sq_ba"], int(record.ring) + delta)
        answer = self._admin.command(admin.CREATE_SQ, entry, what="a submission queue")
        made = np.frombuffer(answer[: msg.CREATE_SQ_ANSWER.itemsize], msg.CREATE_SQ_ANSWER)[0]
        record.doorbell = self._function.mapped(0, int(made["sq_doorbell_offset"]), 4)
        if pushed:
            size = self._size * self.llq_bytes
            record.ring = self._function.mapped(LLQ_BAR, int(made["llq_descriptors_offset"]), size)
            record.llq_bytes, record.llq_header = self.llq_bytes, BEFORE_HEADER * DESCRIPTOR_BYTES
            record.llq_burst = self.llq_burst
        unmask = int(completions["cq_interrupt_unmask_register_offset"])
        return _Made(direction, int(made["sq_idx"]), int(completions["cq_idx"]), unmask)

    def _create_completions(self, record: Any, direction: int, delta: int) -> Any:
        entry_bytes = _COMPLETION_BYTES[direction]
        self._clear(int(record.completions), self._size * entry_bytes)
        entry = np.zeros((), msg.CREATE_CQ_CMD)
        if direction == admin.SQ_DIRECTION_RX:  # what has been sent is looked at when there is more to send
            entry["cq_caps_1"] = admin.AQ_CREATE_CQ_CMD_INTERRUPT_MODE_ENABLED_MASK
            entry["msix_vector"] = FRAME_VECTOR
        entry["cq_caps_2"], entry["cq_depth"] = entry_bytes // 4, self._size
        put_address(entry["cq_ba"], int(record.completions) + delta)
        answer = self._admin.command(admin.CREATE_CQ, entry, what="a completion queue")
        return np.frombuffer(answer[: msg.CREATE_CQ_ANSWER.itemsize], msg.CREATE_CQ_ANSWER)[0]

    def _clear(self, address: int, size: int) -> None:
        self._pool.view(address, size)[:] = 0

    def unmask_offset(self) -> int:
        """Where the interrupt of received frames is asked for: one word, since all receive queues share a vector."""
        return next(made.unmask for made in self._made if made.direction == admin.SQ_DIRECTION_RX)

    def receive_numbers(self) -> list[int]:
        """The device's numbers of the receive queues, as its indirection table has them."""
        return [made.number for made in self._made if made.direction == admin.SQ_DIRECTION_RX]

    def destroy(self) -> None:
        """Destroy all queues in an orderly way: each submission queue, then its completion queue."""
        while self._made:
            made = self._made.pop()
            entry = np.zeros((), msg.DESTROY_SQ_CMD)
            entry["sq"]["sq_idx"] = made.number
            entry["sq"]["sq_identity"] = made.direction << admin.SQ_SQ_DIRECTION_SHIFT
            self._admin.command(admin.DESTROY_SQ, entry, what="to destroy a submission queue")
            entry = np.zeros((), msg.DESTROY_CQ_CMD)
            entry["cq_idx"] = made.completions
            self._admin.command(admin.DESTROY_CQ, entry, what="to destroy a completion queue")

    def forget(self) -> None:
        """A reset has destroyed them."""
        self._made.clear()
