"""The card's loop without threads or sockets: state by hand, guests that write descriptors, one round at a time.

A guest's memory lies between pages that nobody may touch, so an access beyond its maps ends the test run.
"""

import ctypes
import mmap
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from vfwire.datapath.card import run_round
from vfwire.datapath.rss import build_toeplitz_table
from vfwire.datapath.state import (
    DROP_NAMES,
    HEADER_SCRATCH,
    IXGBEVF_QUEUES,
    MAPS,
    MODEL_82599,
    VECTORS,
    Drop,
    new_state,
)
from vfwire.datapath.switch import forget_paths, set_mac, set_vlan
from vfwire.layouts import ixgbe_descriptors as d
from vfwire.layouts import ixgbevf as regs

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE = mmap.PAGESIZE
MEMORY = 0x100000
TX_RINGS, RX_RINGS, TX_BUFFERS, RX_BUFFERS = 0x0, 0x4000, 0x10000, 0x40000
KEY = np.arange(40, dtype=np.uint8)
PLAIN = d.TXD_DTYP_DATA | d.TXD_DCMD_DEXT | d.TXD_DCMD_EOP | d.TXD_DCMD_IFCS


@dataclass(frozen=True)
class Received:
    """A frame as its receive descriptors tell of it; `pieces`: bytes in each buffer."""

    frame: bytes
    status: int
    vlan: int
    hash: int
    info: int
    pieces: tuple[int, ...]

    @property
    def rss_type(self) -> int:
        return self.info & d.RXD_RSSTYPE_MASK

    @property
    def packet_type(self) -> int:
        return self.info & d.RXD_PKTTYPE_MASK


def mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number + 1])


def frame(to: bytes, source: bytes, payload: bytes = bytes(46), ethertype: int = 0x88B5) -> bytes:
    return to + source + struct.pack(">H", ethertype) + payload


def tagged(to: bytes, source: bytes, tag: int, payload: bytes = bytes(46)) -> bytes:
    return frame(to, source, struct.pack(">HH", tag, 0x88B5) + payload, 0x8100)


class LoopGuest:
    """Function `number`: memory of its own, rings that it writes, and what it has received."""

    def __init__(self, bench: "LoopBench", number: int) -> None:
        self.bench, self.number, self.mac = bench, number, mac(number)
        self._map = mmap.mmap(-1, MEMORY + 2 * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for guard in (base, base + PAGE + MEMORY):
            assert _libc.mprotect(guard, PAGE, 0) == 0
        self.address = base + PAGE
        self.memory = np.frombuffer(self._map, np.uint8)[PAGE:-PAGE]
        self.iova = 0x1000_0000 * (number + 1)
        self.pages = np.zeros(0x3000 // 4, np.uint32)
        self.record = bench.state.functions[number]
        self.size, self.buffer_bytes = 64, 2048
        self.tx_next, self.rx_next = [0] * IXGBEVF_QUEUES, [0] * IXGBEVF_QUEUES
        self._room = TX_BUFFERS
        self._enter()

    def _enter(self) -> None:
        record, state = self.record, self.bench.state
        record.model, record.dma, record.link_up, record.spoof_check, record.max_frame = (
            MODEL_82599,
            1,
            1,
            1,
            1514,
        )
        record.pages, record.mac = self.pages.ctypes.data, int.from_bytes(self.mac, "little")
        record.rx_queues = record.tx_queues = IXGBEVF_QUEUES
        self.map(0, self.iova, self.iova + MEMORY, writable=1)
        assert set_mac(state, int(record.card), int(record.mac), int(record.pool), True)
        set_vlan(state, int(record.card), 0, int(record.pool), True)

    def map(self, row: int, start: int, end: int, writable: int) -> None:
        entry = self.bench.state.maps[self.number * MAPS + row]
        entry.start, entry.end, entry.delta, entry.writable = start, end, self.address - self.iova, writable

    def write(self, offset: int, value: int, queue: int = 0) -> None:
        self.pages[(offset + queue * regs.QUEUE_STRIDE) // 4] = value & 0xFFFFFFFF

    def read(self, offset: int, queue: int = 0) -> int:
        return int(self.pages[(offset + queue * regs.QUEUE_STRIDE) // 4])

    def start(
        self, *, queues: int = 1, size: int = 64, kib: int = 2, strip: bool = True, shift: int = 0
    ) -> "LoopGuest":
        """Set up and enable rings, as a driver does; `shift` moves them in memory."""
        self.size, self.buffer_bytes = size, kib * 1024
        for queue in range(queues):
            self._write_ring(regs.VFTDBAL, self.iova + TX_RINGS + queue * PAGE + shift, queue)
            self.write(regs.VFTXDCTL, regs.TXDCTL_ENABLE, queue)
            self._write_ring(regs.VFRDBAL, self.iova + RX_RINGS + queue * PAGE + shift, queue)
            self.write(regs.VFSRRCTL, kib | regs.SRRCTL_DESCTYPE_ADV_ONEBUF, queue)
            self.tx_next[queue] = self.rx_next[queue] = 0
            for place in range(size):
                self._offer(queue, place, shift)
            self.write(regs.VFRDT, size - 1, queue)
            vme = regs.RXDCTL_VME if strip else 0
            self.write(regs.VFRXDCTL, regs.RXDCTL_ENABLE | vme, queue)
        self.shift = shift
        return self

    def _write_ring(self, block: int, iova: int, queue: int) -> None:
        self.write(block, iova, queue)
        self.write(block + 4, iova >> 32, queue)
        self.write(block + regs.VFRDLEN - regs.VFRDBAL, self.size * 16, queue)
        self.write(block + regs.VFRDH - regs.VFRDBAL, 0, queue)
        self.write(block + regs.VFRDT - regs.VFRDBAL, 0, queue)

    def disable(self, queue: int = 0) -> None:
        self.write(regs.VFTXDCTL, 0, queue)
        self.write(regs.VFRXDCTL, 0, queue)

    def _offer(self, queue: int, place: int, shift: int = 0) -> None:
        spread = (queue * 64 + place) * 2048 % (MEMORY - RX_BUFFERS - 16384)
        self.put(
            RX_RINGS + queue * PAGE + shift + place * 16,
            struct.pack("<QQ", self.iova + RX_BUFFERS + spread, 0),
        )

    def put(self, offset: int, data: bytes) -> int:
        """Bytes into this guest's memory; returns their I/O address."""
        self.memory[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        return self.iova + offset

    def buffer(self, data: bytes) -> int:
        """A transmit buffer with `data`; returns its I/O address."""
        if self._room + len(data) > RX_BUFFERS:
            self._room = TX_BUFFERS
        at = self.put(self._room, data)
        self._room += -(-max(len(data), 1) // 64) * 64 + 64
        return at

    def descriptor(self, word0: int, word1: int, queue: int = 0) -> None:
        """One transmit descriptor as it is, without a doorbell."""
        place = self.tx_next[queue]
        self.put(TX_RINGS + queue * PAGE + self.shift + place * 16, struct.pack("<QQ", word0, word1))
        self.tx_next[queue] = (place + 1) % self.size

    def ring(self, queue: int = 0) -> None:
        self.write(regs.VFTDT, self.tx_next[queue], queue)

    def send(self, data: bytes, *, extra: int = 0, pieces: tuple[int, ...] = (), queue: int = 0) -> None:
        """One frame in buffers of `pieces` bytes (the rest in the last); `extra`: bits of every descriptor."""
        for size in pieces:
            self.descriptor(self.buffer(data[:size]), size | PLAIN & ~d.TXD_DCMD_EOP | extra, queue)
            data = data[size:]
        self.descriptor(self.buffer(data), len(data) | PLAIN | extra, queue)
        self.ring(queue)

    def context(
        self,
        *,
        l2: int = 14,
        l3: int = 20,
        l4: int = 20,
        mss: int = 0,
        vlan: int = 0,
        tucmd: int = 0,
        index: int = 0,
    ) -> None:
        word0 = vlan << d.CTXD_Q0_VLAN_SHIFT | l2 << d.CTXD_Q0_MACLEN_SHIFT | l3
        word1 = d.TXD_DTYP_CTXT | d.TXD_DCMD_DEXT | tucmd | index << d.CTXD_Q1_IDX_SHIFT
        self.descriptor(word0, word1 | l4 << d.CTXD_Q1_L4LEN_SHIFT | mss << d.CTXD_Q1_MSS_SHIFT)

    def receive(self, queue: int = 0) -> list[Received]:
        """All whole frames that have come; their descriptors are offered again."""
        found, parts = [], []
        while True:
            at = RX_RINGS + queue * PAGE + self.shift + self.rx_next[queue] * 16
            info, value, status, length, vlan = struct.unpack("<IIIHH", self.memory[at : at + 16].tobytes())
            if not status & d.RXD_STAT_DD:
                return found
            spread = (queue * 64 + self.rx_next[queue]) * 2048 % (MEMORY - RX_BUFFERS - 16384)
            start = RX_BUFFERS + spread
            parts.append(self.memory[start : start + length].tobytes())
            self._offer(queue, self.rx_next[queue], self.shift)
            self.write(regs.VFRDT, self.rx_next[queue], queue)
            self.rx_next[queue] = (self.rx_next[queue] + 1) % self.size
            if status & d.RXD_STAT_EOP:
                found.append(Received(b"".join(parts), status, vlan, value, info, tuple(map(len, parts))))
                parts = []

    def drops(self) -> dict[str, int]:
        """Counts by cause of this function, those that are not 0."""
        counts = self.bench.state.drops[self.number]
        return {DROP_NAMES[cause]: int(counts[cause]) for cause in Drop if counts[cause]}


class LoopBench:
    """Cards with that many functions each; two cards are joined by their uplinks unless `joined` is False."""

    def __init__(self, *functions: int, joined: bool = True) -> None:
        self.state: Any = new_state(list(functions))
        self._header = np.zeros(HEADER_SCRATCH, np.uint8)
        self.state.control[0].header = self._header.ctypes.data
        self.now = 1_000_000_000
        self.guests = [LoopGuest(self, number) for number in range(sum(functions))]
        self.state.toeplitz[:] = build_toeplitz_table(KEY)
        self.state.reta[:] = np.arange(128) % 4
        if len(functions) == 2 and joined:
            self.state.cards[0].peer, self.state.cards[1].peer = 1, 0

    def start(self, **options: Any) -> list[LoopGuest]:
        """Start all guests with the same rings, and let the loop find them."""
        for guest in self.guests:
            guest.start(**options)
        self.round()
        return self.guests

    def round(self, passed_ns: int = 1000, *, look: bool = True) -> int:
        self.now += passed_ns
        return int(run_round(self.state, self.now, int(look)))

    def rounds(self, limit: int = 50) -> None:
        """Until nothing is moved any more."""
        for _ in range(limit):
            if self.round() == 0:
                return
        raise AssertionError(f"the loop still moves frames after {limit} rounds")

    def changed(self) -> None:
        """What control code does after a change of anything that a path depends on."""
        forget_paths(self.state)

    def vector(self, function: int, number: int) -> Any:
        return self.state.vectors[function * VECTORS + number]
