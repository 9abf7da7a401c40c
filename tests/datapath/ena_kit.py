"""An ENA guest for the loop's bench (loop_kit.py): descriptors packed by hand after ena_eth_io_defs.h.

It uses none of our constants.

Its memory lies between pages that nobody may touch, as that of the 82599's guests does.
"""

import ctypes
import mmap
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from loop_kit import LoopBench, mac

from vfwire.datapath.ena_queues import open_rx, open_tx
from vfwire.datapath.state import DROP_NAMES, MAPS, MODEL_ENA, QUEUES, VECTORS, Drop
from vfwire.datapath.switch import set_mac, set_vlan

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE = mmap.PAGESIZE
MEMORY = 0x200000
FIRST, LAST, COMPLETE, META = 1 << 26, 1 << 27, 1 << 28, 1 << 23
TX_RING, TX_DONE, RX_RING, RX_DONE = 0x0, 0x8000, 0x10000, 0x18000  # 0x1000 for each queue
TX_BUFFERS, RX_BUFFERS = 0x20000, 0x80000
LLQ = 0x40000  # offsets in a memory of its own


@dataclass(frozen=True)
class Got:
    """A received frame, as its completions tell of it; pieces: bytes in each buffer."""

    frame: bytes
    status: int
    hash: int
    queue: int
    pieces: tuple[int, ...]

    @property
    def l3(self) -> int:
        return self.status & 0x1F

    @property
    def l4(self) -> int:
        return self.status >> 8 & 0x1F

    @property
    def l3_bad(self) -> bool:
        return bool(self.status >> 13 & 1)

    @property
    def l4_bad(self) -> bool:
        return bool(self.status >> 14 & 1)

    @property
    def l4_checked(self) -> bool:
        return bool(self.status >> 16 & 1)


class EnaGuest:
    """Function `number` of a bench, as an ENA: it takes the place of the 82599 that the bench made."""

    def __init__(self, bench: LoopBench, number: int) -> None:
        self.bench, self.number, self.mac = bench, number, mac(number)
        self._map = mmap.mmap(-1, MEMORY + 2 * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for guard in (base, base + PAGE + MEMORY):
            assert _libc.mprotect(guard, PAGE, 0) == 0
        self.address = base + PAGE
        self.memory = np.frombuffer(self._map, np.uint8)[PAGE:-PAGE]
        self.iova = 0x1000_0000 * (number + 1)
        self.llq = np.zeros(LLQ, np.uint8)
        self.words = np.zeros((4, QUEUES + 1, 8), np.int64)  # doorbells of both directions, unmask words
        self.record: Any = bench.state.functions[number]
        self.size, self.buffer_bytes, self.llq_bytes = 64, 2048, 0
        self.tx_tail, self.rx_tail = [0] * QUEUES, [0] * QUEUES
        self.tx_done, self.rx_done = [0] * QUEUES, [0] * QUEUES
        self._room = TX_BUFFERS
        self._enter()
        bench.guests[number] = self  # type: ignore[call-overload]

    def _enter(self) -> None:
        record, state = self.record, self.bench.state
        record.model, record.dma, record.link_up, record.spoof_check = MODEL_ENA, 1, 1, 1
        record.max_frame, record.mac = 1514, int.from_bytes(self.mac, "little")
        record.pages = record.rx_queues = record.tx_queues = 0
        self.map(0, self.iova, self.iova + MEMORY, writable=1)
        assert set_mac(state, int(record.card), int(record.mac), int(record.pool), True)
        set_vlan(state, int(record.card), 0, int(record.pool), True)

    def map(self, row: int, start: int, end: int, writable: int) -> None:
        entry = self.bench.state.maps[self.number * MAPS + row]
        entry.start, entry.end, entry.delta, entry.writable = start, end, self.address - self.iova, writable

    def word(self, kind: int, number: int) -> int:
        """The address of a doorbell (0: transmit, 1: receive) or of a vector's unmask word (2)."""
        return int(self.words.ctypes.data) + (kind * (QUEUES + 1) + number) * 64

    def start(self, *, queues: int = 1, size: int = 64, buffer: int = 2048, llq: int = 0) -> "EnaGuest":
        """Open `queues` pairs; queue q interrupts by vector q + 1. llq: bytes of an entry, 0 for host placement."""
        self.size, self.buffer_bytes, self.llq_bytes = size, buffer, llq
        state = self.bench.state
        for queue in range(queues):
            at = queue * PAGE
            ring = int(self.llq.ctypes.data) + queue * size * llq if llq else self.address + TX_RING + at
            open_tx(
                state, self.number, queue, ring=ring, size=size, doorbell=self.word(0, queue),
                completions=self.address + TX_DONE + at, completion_size=size, vector=queue + 1,
                llq_bytes=llq, llq_first=2 if llq else 0, llq_more=llq // 16,
            )  # fmt: skip
            open_rx(
                state, self.number, queue, ring=self.address + RX_RING + at, size=size,
                doorbell=self.word(1, queue), completions=self.address + RX_DONE + at, completion_size=size,
                vector=queue + 1,
            )  # fmt: skip
            self.offer(size - 1, queue=queue)
            state.vectors[self.number * VECTORS + queue + 1].unmask = self.word(2, queue + 1)
        return self

    # --- memory --------------------------------------------------------------------------------------------

    def put(self, offset: int, data: bytes) -> int:
        self.memory[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        return self.iova + offset

    def buffer(self, data: bytes) -> int:
        if self._room + len(data) > RX_BUFFERS:
            self._room = TX_BUFFERS
        at = self.put(self._room, data)
        self._room += -(-max(len(data), 1) // 64) * 64 + 64
        return at

    def _rx_buffer(self, queue: int, request: int) -> int:
        return RX_BUFFERS + (queue * self.size + request) * self.buffer_bytes % (MEMORY - RX_BUFFERS - 65536)

    # --- receive -------------------------------------------------------------------------------------------

    def offer(
        self, count: int, *, queue: int = 0, length: int | None = None, address: int | None = None
    ) -> None:
        """Offer `count` buffers more; request IDs run backwards, so that nobody takes them for ring indices."""
        for _ in range(count):
            tail = self.rx_tail[queue]
            request = self.size - 1 - tail % self.size
            phase = 1 - (tail // self.size & 1)
            at = self.iova + self._rx_buffer(queue, request) if address is None else address
            size = self.buffer_bytes if length is None else length
            entry = struct.pack(
                "<HBBHHIHH", size & 0xFFFF, 0, 0x1C | phase, request, 0, at & 0xFFFFFFFF, at >> 32, 0
            )
            self.put(RX_RING + queue * PAGE + tail % self.size * 16, entry)
            self.rx_tail[queue] = (tail + 1) & 0xFFFF
        self.words[1, queue, 0] = self.rx_tail[queue]

    def receive(self, queue: int = 0, *, again: bool = True) -> list[Got]:
        """All whole frames that have come; their buffers are offered again."""
        found, parts, statuses = [], [], []
        while True:
            done = self.rx_done[queue]
            at = RX_DONE + queue * PAGE + done % self.size * 16
            status, length, request, value, number, offset, _ = struct.unpack(
                "<IHHIHBB", self.memory[at : at + 16].tobytes()
            )
            if status >> 24 & 1 != 1 - (done // self.size & 1):
                return found
            assert offset == 0 and number == queue and bool(status >> 26 & 1) == (not parts)
            start = self._rx_buffer(queue, request)
            parts.append(self.memory[start : start + length].tobytes())
            statuses.append(status)
            self.rx_done[queue] += 1
            if again:
                self.offer(1, queue=queue)
            if status >> 27 & 1:
                found.append(Got(b"".join(parts), status, value, number, tuple(map(len, parts))))
                parts = []

    # --- transmit ------------------------------------------------------------------------------------------

    def phase(self, queue: int = 0) -> int:
        return 1 - (self.tx_tail[queue] // self.size & 1)

    def entry(self, data: bytes, queue: int = 0) -> None:
        """One ring entry as it is (16 bytes, or a low-latency entry), without a doorbell."""
        place = self.tx_tail[queue] % self.size
        if self.llq_bytes:
            at = (queue * self.size + place) * self.llq_bytes
            self.llq[at : at + len(data)] = np.frombuffer(data, np.uint8)
        else:
            self.put(TX_RING + queue * PAGE + place * 16, data)
        self.tx_tail[queue] = (self.tx_tail[queue] + 1) & 0xFFFF

    def data(
        self,
        address: int,
        length: int,
        *,
        control: int = 0,
        meta: int = 0,
        request: int = 0,
        front: int = 0,
        queue: int = 0,
    ) -> bytes:
        """A data descriptor: `control` are bits of len_ctrl, `meta` those of meta_ctrl."""
        word = length | (request >> 10) << 16 | self.phase(queue) << 24 | control
        return struct.pack(
            "<IIII",
            word,
            meta | (request & 0x3FF) << 22,
            address & 0xFFFFFFFF,
            address >> 32 & 0xFFFF | front << 24,
        )

    def meta(self, *, l2: int = 14, l3: int = 20, l4: int = 20, mss: int = 0, queue: int = 0) -> bytes:
        word = META | FIRST | 1 << 14 | 1 << 20 | 1 << 21 | (mss >> 10) << 16 | self.phase(queue) << 24
        return struct.pack("<IIII", word, 0, l3 | l2 << 8 | l4 // 4 << 16 | (mss & 0x3FF) << 22, 0)

    def ring(self, queue: int = 0) -> None:
        self.words[0, queue, 0] = self.tx_tail[queue]

    def send(
        self,
        frame: bytes,
        *,
        request: int = 0,
        pieces: tuple[int, ...] = (),
        meta: bytes | None = None,
        bits: int = 0,
        queue: int = 0,
        front: int = 96,
        ring: bool = True,
    ) -> None:
        """One frame in buffers of `pieces` bytes (the rest in the last); bits: of meta_ctrl. front: what a low-latency
        queue gets as header."""
        header = b""
        if self.llq_bytes:
            header, frame = frame[:front], frame[front:]
        chunks = []
        for size in pieces:
            chunks.append(frame[:size])
            frame = frame[size:]
        chunks.append(frame)
        descriptors: list[Any] = [] if meta is None else [None]
        descriptors += list(range(len(chunks)))
        waiting = b""
        room = 2 if self.llq_bytes else 1
        first_entry = True
        for step, number in enumerate(descriptors):
            if number is None:
                assert meta is not None
                waiting += meta
            else:
                chunk = chunks[number]
                control = LAST if number == len(chunks) - 1 else 0
                if number == 0:
                    control |= COMPLETE | (FIRST if meta is None else 0)
                at = self.buffer(chunk) if chunk else 0
                waiting += self.data(
                    at, len(chunk), control=control, meta=bits if number == 0 else 0,
                    request=request if number == 0 else 0, front=len(header) if number == 0 else 0, queue=queue,
                )  # fmt: skip
            if len(waiting) == room * 16 or step == len(descriptors) - 1:
                if self.llq_bytes and first_entry:
                    waiting = waiting.ljust(32, b"\0") + header
                self.entry(waiting, queue)
                waiting, first_entry = b"", False
                room = self.llq_bytes // 16 if self.llq_bytes else 1
        if ring:
            self.ring(queue)

    def queue_room(self, queue: int = 0) -> int:
        """Entries of a transmit queue that the loop has taken, or that were never used."""
        head = int(self.bench.state.tx[self.number * QUEUES + queue].head)
        return self.size - 1 - ((self.tx_tail[queue] - head) & 0xFFFF)

    def completions(self, queue: int = 0) -> list[int]:
        """Request IDs that have been completed, in order."""
        found = []
        while True:
            done = self.tx_done[queue]
            at = TX_DONE + queue * PAGE + done % self.size * 8
            request, status, flags, number, _ = struct.unpack("<HBBHH", self.memory[at : at + 8].tobytes())
            if flags & 1 != 1 - (done // self.size & 1):
                return found
            assert status == 0 and flags & 0xFE == 0 and number == queue
            found.append(request)
            self.tx_done[queue] += 1

    def drops(self) -> dict[str, int]:
        counts = self.bench.state.drops[self.number]
        return {DROP_NAMES[cause]: int(counts[cause]) for cause in Drop if counts[cause]}


def ena_bench(
    *functions: int, ena: tuple[int, ...] | None = None, **options: Any
) -> tuple[LoopBench, list[Any]]:
    """A bench whose functions (those in `ena`, by default all) are ENAs, started; the others are 82599s, started."""
    bench = LoopBench(*functions)
    for number in range(sum(functions)):
        if ena is None or number in ena:
            EnaGuest(bench, number).start(**options)
        else:
            bench.guests[number].start()
    bench.round()
    return bench, list(bench.guests)
