"""An ENA's queues: what its driver creates and destroys by admin commands, opened for the loop and closed again.

A completion queue is only remembered until a submission queue is created on it: the loop knows both as one record
(datapath/ena_queues.py). Every number and address is checked here, once; after that the loop trusts them, and
`DmaMaps` closes a queue whose memory the guest takes away.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vfwire.datapath.control_words import store_register
from vfwire.datapath.ena_queues import DOORBELL_MASK, close_all, close_rx, close_tx, open_rx, open_tx
from vfwire.devices import ena_pages as pages
from vfwire.devices.engine import Engine
from vfwire.devices.function import MessageObserver
from vfwire.devices.guest_memory import GuestMemory
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_io
from vfwire.layouts import ena_messages as messages

_COMPLETION_BYTES = {admin.SQ_DIRECTION_TX: (8, 16), admin.SQ_DIRECTION_RX: (16, 32)}
_DESCRIPTOR_BYTES = {admin.SQ_DIRECTION_TX: ena_io.TX_DESC_BYTES, admin.SQ_DIRECTION_RX: ena_io.RX_DESC_BYTES}
_ALIGNMENT = 16  # bytes, of rings

Answer = tuple[int, bytes]  # status, what the completion carries


class Refused(Exception):
    """A command that is answered with `status` and nothing else."""

    def __init__(self, status: int) -> None:
        super().__init__(admin.STATUS_NAMES[status])
        self.status = status


@dataclass(slots=True)
class _Completions:
    """iova: where its guest says that it lies, which may be gone when a submission queue is created on it."""

    iova: int
    depth: int
    entry_bytes: int
    vector: int
    taken: bool = False


@dataclass(frozen=True, slots=True)
class LlqChoice:
    """What the driver chose of the low-latency queues on offer: bytes of an entry, descriptors before the header, and
    descriptors of each further entry.
    """

    entry_bytes: int
    before_header: int
    per_entry: int


class EnaRings:
    """The queues of one function. bar0, bar2: where those BARs' pages lie in this process.

    burst: bytes that a low-latency queue takes between two doorbells, 0 for no limit. `bursts_too_long` counts the
    doorbells that announced more.
    """

    def __init__(
        self, engine: Engine, function: int, memory: GuestMemory, queues: int, burst: int = 0
    ) -> None:
        self.bar0 = self.bar2 = 0
        self.llq: LlqChoice | None = None
        self.bursts_too_long = 0
        self.observer: MessageObserver | None = None
        self._burst = burst
        self._longest: dict[int, int] = {}  # entries between two doorbells, by the doorbell's offset
        self._engine = engine
        self._function = function
        self._memory = memory
        self._queues = queues
        self._completions: dict[int, _Completions] = {}
        self._submissions: dict[tuple[int, int], int] = {}

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(direction, slot) of each submission queue that there is."""
        return iter(self._submissions)

    def reset(self) -> None:
        """No queue, no choice of low-latency queues. While the loop is parked."""
        self._completions.clear()
        self._submissions.clear()
        self._longest.clear()
        self.llq = None
        close_all(self._engine.state, self._function)

    # --- Completion queues ---------------------------------------------------------------------------------

    def create_cq(self, command: np.void) -> Answer:
        entry_bytes = 4 * (int(command["cq_caps_2"]) & admin.AQ_CREATE_CQ_CMD_CQ_ENTRY_SIZE_WORDS_MASK)
        depth = _depth(int(command["cq_depth"]), pages.MAX_DEPTH)
        vector = int(command["msix_vector"])
        if not int(command["cq_caps_1"]) & admin.AQ_CREATE_CQ_CMD_INTERRUPT_MODE_ENABLED_MASK:
            vector = -1
        if entry_bytes not in (8, 16, 32) or vector >= pages.MSIX_VECTORS:
            raise Refused(admin.ILLEGAL_PARAMETER)
        iova = guest_address(command["cq_ba"])
        self._ring(iova, depth * entry_bytes, writable=True)
        number = _first_free(self._completions, 2 * self._queues)
        self._completions[number] = _Completions(iova, depth, entry_bytes, vector)
        answer = np.zeros((), messages.CREATE_CQ_ANSWER)
        answer["cq_idx"] = number
        answer["cq_actual_depth"] = depth
        answer["numa_node_register_offset"] = pages.numa_node(number)
        answer["cq_head_db_register_offset"] = pages.completion_head(number)
        answer["cq_interrupt_unmask_register_offset"] = pages.interrupt_register(max(vector, 0))
        return admin.SUCCESS, answer.tobytes()

    def destroy_cq(self, command: np.void) -> Answer:
        queue = self._completions.get(int(command["cq_idx"]))
        if queue is None:
            raise Refused(admin.ILLEGAL_PARAMETER)
        if queue.taken:
            raise Refused(admin.RESOURCE_BUSY)
        del self._completions[int(command["cq_idx"])]
        return admin.SUCCESS, b""

    # --- Submission queues ---------------------------------------------------------------------------------

    def create_sq(self, command: np.void) -> Answer:
        direction = int(command["sq_identity"]) >> admin.AQ_CREATE_SQ_CMD_SQ_DIRECTION_SHIFT
        caps = int(command["sq_caps_2"])
        placement = caps & admin.AQ_CREATE_SQ_CMD_PLACEMENT_POLICY_MASK
        policy = caps >> admin.AQ_CREATE_SQ_CMD_COMPLETION_POLICY_SHIFT
        contiguous = int(command["sq_caps_3"]) & admin.AQ_CREATE_SQ_CMD_IS_PHYSICALLY_CONTIGUOUS_MASK
        number = int(command["cq_idx"])
        completions = self._completions.get(number)
        if direction not in _COMPLETION_BYTES or policy != admin.COMPLETION_POLICY_DESC or not contiguous:
            raise Refused(admin.ILLEGAL_PARAMETER)
        if completions is None or completions.entry_bytes not in _COMPLETION_BYTES[direction]:
            raise Refused(admin.ILLEGAL_PARAMETER)
        if completions.taken:
            raise Refused(admin.RESOURCE_BUSY)
        slots = {slot for way, slot in self._submissions if way == direction}
        slot = _first_free(slots, self._queues)
        answer = np.zeros((), messages.CREATE_SQ_ANSWER)
        answer["sq_idx"] = slot
        if placement == admin.PLACEMENT_POLICY_DEV and direction == admin.SQ_DIRECTION_TX:
            self._open_llq(slot, int(command["sq_depth"]), completions)
            answer["llq_descriptors_offset"] = pages.llq_offset(slot)
        elif placement == admin.PLACEMENT_POLICY_HOST:
            self._open_host(direction, slot, command, completions)
        else:
            raise Refused(admin.ILLEGAL_PARAMETER)
        completions.taken = True
        self._submissions[direction, slot] = number
        answer["sq_doorbell_offset"] = _doorbell(direction, slot)
        return admin.SUCCESS, answer.tobytes()

    def _open_llq(self, slot: int, depth: int, completions: _Completions) -> None:
        if self.llq is None:
            raise Refused(admin.ILLEGAL_PARAMETER)
        _depth(depth, pages.LLQ_BYTES // self.llq.entry_bytes)
        ring = self.bar2 + pages.llq_offset(slot)
        if self._burst:
            self._longest[pages.tx_doorbell(slot)] = self._burst // self.llq.entry_bytes
        with self._engine.parked() as state:
            open_tx(
                state,
                self._function,
                slot,
                ring=ring,
                size=depth,
                doorbell=self._clear_doorbell(admin.SQ_DIRECTION_TX, slot),
                completions=self._completion_ring(completions),
                completion_size=completions.depth,
                completion_bytes=completions.entry_bytes,
                vector=completions.vector,
                llq_bytes=self.llq.entry_bytes,
                llq_first=self.llq.before_header,
                llq_more=self.llq.per_entry,
            )

    def _open_host(self, direction: int, slot: int, command: np.void, completions: _Completions) -> None:
        depth = _depth(int(command["sq_depth"]), pages.MAX_DEPTH)
        ring = self._ring(
            guest_address(command["sq_ba"]), depth * _DESCRIPTOR_BYTES[direction], writable=False
        )
        open_queue = open_tx if direction == admin.SQ_DIRECTION_TX else open_rx
        with self._engine.parked() as state:
            open_queue(
                state,
                self._function,
                slot,
                ring=ring,
                size=depth,
                doorbell=self._clear_doorbell(direction, slot),
                completions=self._completion_ring(completions),
                completion_size=completions.depth,
                completion_bytes=completions.entry_bytes,
                vector=completions.vector,
            )

    def _completion_ring(self, completions: _Completions) -> int:
        return self._ring(completions.iova, completions.depth * completions.entry_bytes, writable=True)

    def note_doorbell(self, offset: int, before: int, tail: int) -> None:
        """A doorbell comes as a message: does it announce more than the device takes at once?

        Only here can that be told. Of doorbells in memory the loop sees the last, and two short steps look like one
        long one.
        """
        longest = self._longest.get(offset)
        step = tail - before & DOORBELL_MASK
        if longest is None or step <= longest:
            return
        self.bursts_too_long += 1
        if self.observer is not None:
            self.observer("burst", f"TX_DB[{pages.tx_slot(offset)}]", "TOO_LONG", (step, longest))

    def _clear_doorbell(self, direction: int, slot: int) -> int:
        address = self.bar0 + _doorbell(direction, slot)
        store_register(address, 0)
        return address

    def destroy_sq(self, command: np.void) -> Answer:
        direction = int(command["sq"]["sq_identity"]) >> admin.SQ_SQ_DIRECTION_SHIFT
        slot = int(command["sq"]["sq_idx"])
        number = self._submissions.pop((direction, slot), None)
        if number is None:
            raise Refused(admin.ILLEGAL_PARAMETER)
        self._completions[number].taken = False
        self._longest.pop(_doorbell(direction, slot), None)
        close = close_tx if direction == admin.SQ_DIRECTION_TX else close_rx
        with self._engine.parked() as state:
            close(state, self._function, slot)
        return admin.SUCCESS, b""

    def _ring(self, iova: int, size: int, *, writable: bool) -> int:
        found = self._memory.address(iova, size, writable=writable)
        if found is None or iova % _ALIGNMENT:
            raise Refused(admin.ILLEGAL_PARAMETER)
        return found


def guest_address(where: np.void) -> int:
    """The 48-bit address in a `MEM_ADDR`."""
    return int(where["mem_addr_low"]) | int(where["mem_addr_high"]) << 32


def _depth(depth: int, most: int) -> int:
    if not 2 <= depth <= most or depth & (depth - 1):
        raise Refused(admin.ILLEGAL_PARAMETER)
    return depth


def _doorbell(direction: int, slot: int) -> int:
    return pages.tx_doorbell(slot) if direction == admin.SQ_DIRECTION_TX else pages.rx_doorbell(slot)


def _first_free(taken: set[int] | dict[int, _Completions], most: int) -> int:
    for number in range(most):
        if number not in taken:
            return number
    raise Refused(admin.RESOURCE_ALLOCATION_FAILURE)
