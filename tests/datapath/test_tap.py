"""The loop between a driver and a tap. A pair of packet sockets stands for the tap, memory for the card's rings."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import frames as made
import internet_checksum as reference
import numpy as np
import pytest
from guarded_memory import peek
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath.ixgbevf_driver import ixgbevf_start
from vfwire.datapath.port import FRAME, IXGBEVF, POOL, QUEUE, reciprocal_of
from vfwire.datapath.tap import AGAIN, BURST, FAILED, IDLE, PIECES, TAP, drop_staged, run_tap
from vfwire.layouts import ixgbe_descriptors as desc
from vfwire.layouts import tap as layout

BUFFERS, BUFFER, RING = 256, 2048, 64
NEEDS_CSUM, TCPV4, TCPV6 = 1, 1, 4


def records(dtype: Any, count: int = 1) -> Any:
    return np.zeros(count, dtype).view(np.recarray)


class Rig:
    """A driver's port on plain memory, and a tap that is a socket. `offloads`: with a header before each frame."""

    def __init__(self, offloads: bool = True, pieces: int = PIECES) -> None:
        self.outside, self.inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.outside, self.inside):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.memory = np.zeros(BUFFERS * BUFFER, np.uint8)
        self.base = int(self.memory.ctypes.data)
        self.stack = self.base + np.arange(BUFFERS, dtype=np.int64) * BUFFER
        self.pools = records(POOL)
        pool = self.pools[0]
        pool.free = pool.buffers = BUFFERS
        pool.buffer_bytes = pool.stride = BUFFER
        pool.reciprocal, pool.first = reciprocal_of(BUFFER), self.base
        self.rings = np.zeros((2, RING * 2), np.int64)
        self.slots = np.zeros((2, RING), np.int64)
        self.doorbells = np.zeros(2, np.int64)
        self.rx, self.tx = records(QUEUE), records(QUEUE)
        for side, queue in enumerate((self.rx[0], self.tx[0])):
            queue.kind, queue.size = IXGBEVF, RING
            queue.ring = self.rings[side].ctypes.data
            queue.slots = self.slots[side].ctypes.data
            queue.doorbell = self.doorbells[side : side + 1].ctypes.data
        ixgbevf_start(self.rx, self.tx, self.pools, self.stack)
        self.headers = np.zeros((3, layout.VNET_BYTES), np.uint8)
        self.headers[2, 0] = layout.VNET_DATA_VALID
        self.iovecs = np.zeros((1 + PIECES) * 2, np.int64)
        self.received, self.staged = records(FRAME, BURST), records(FRAME, BURST + PIECES)
        self.taps = records(TAP)
        tap = self.taps[0]
        tap.fd, tap.pieces = self.inside.fileno(), pieces
        tap.header_bytes = layout.VNET_BYTES if offloads else 0
        tap.iovecs = self.iovecs.ctypes.data
        tap.header, tap.plain, tap.valid = (int(row.ctypes.data) for row in self.headers)
        self.seen = int(self.tx[0].tail)

    def round(self) -> int:
        """One turn."""
        return int(
            run_tap(self.rx, self.tx, self.pools, self.stack, self.received, self.staged, self.taps, 0, 0)
        )

    def sent(self) -> list[tuple[int, int]]:
        """The descriptors that came since the last call."""
        tail = int(self.tx[0].tail)
        found = []
        for index in range(self.seen, tail):
            word0, word1 = self.rings[1][2 * (index % RING) : 2 * (index % RING) + 2].tolist()
            found.append((word0, word1))
        self.seen = tail
        return found

    def arrive(self, data: bytes, status: int = 0) -> None:
        """The card writes a frame into the next receive buffer."""
        index = self.arrived % RING
        address = int(self.slots[0][index])
        self.view(address, len(data))[:] = np.frombuffer(data, np.uint8)
        self.rings[0][2 * index] = 0
        self.rings[0][2 * index + 1] = desc.RXD_STAT_DD | desc.RXD_STAT_EOP | status | len(data) << 32
        self.arrived += 1

    arrived = 0

    def view(self, address: int, length: int) -> Any:
        return self.memory[address - self.base : address - self.base + length]

    def close(self) -> None:
        self.outside.close()
        self.inside.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made_rig = Rig()
    yield made_rig
    made_rig.close()


def vnet(flags: int = 0, gso: int = 0, size: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return struct.pack("<BBHHHH", flags, gso, 0, size, start, offset)


def partial(packet: made.Packet) -> bytes:
    """The frame as the kernel hands it over with NEEDS_CSUM: the field holds the pseudo header's sum."""
    frame = bytearray(packet.frame())
    start = packet.l2_len + packet.l3_len
    field = start + (16 if packet.protocol == made.TCP else 6)
    pseudo = reference.pseudo(packet.source, packet.destination, packet.protocol, len(frame) - start)
    frame[field : field + 2] = struct.pack(">H", 0xFFFF ^ reference.internet_checksum(pseudo))
    return bytes(frame)


def test_frames_go_out_as_they_are_padded_to_60(rig: Rig) -> None:
    for length in (14, 59, 60, 61, 1514):
        rig.outside.send(vnet() + bytes([length & 0xFF]) * length)
    assert rig.round() == AGAIN
    out = rig.sent()
    assert [word1 & 0xFFFF for _, word1 in out] == [60, 60, 60, 61, 1514]
    for (address, word1), length in zip(out, (14, 59, 60, 61, 1514), strict=True):
        whole = bytes([length & 0xFF]) * length
        assert peek(address, word1 & 0xFFFF) == whole.ljust(60, b"\0")
        assert word1 & desc.TXD_DCMD_EOP and not word1 & (desc.TXD_DCMD_TSE | desc.TXD_Q1_TXSM)
    assert rig.round() == IDLE


def test_frames_come_in_with_what_the_card_found(rig: Rig) -> None:
    first, second = bytes(range(64)), b"\xab" * 1514
    rig.arrive(first)
    rig.arrive(second, desc.RXD_STAT_L4CS)
    assert rig.round() == AGAIN
    assert rig.outside.recv(4096) == vnet() + first
    assert rig.outside.recv(4096) == vnet(layout.VNET_DATA_VALID) + second
    assert rig.pools[0].free + rig.rx[0].tail - rig.rx[0].head == BUFFERS
    assert (rig.taps[0].to_tap, rig.taps[0].to_tap_bytes) == (2, 64 + 1514)


def test_without_a_header_there_is_none() -> None:
    rig = Rig(offloads=False, pieces=1)
    rig.outside.send(b"\x11" * 100)
    rig.arrive(b"\x22" * 70, desc.RXD_STAT_L4CS)
    assert rig.round() == AGAIN
    ((address, word1),) = rig.sent()
    assert peek(address, word1 & 0xFFFF) == b"\x11" * 100
    assert rig.outside.recv(4096) == b"\x22" * 70
    rig.close()


@pytest.mark.parametrize("vlan", [None, 5])
@pytest.mark.parametrize("protocol", [made.TCP, made.UDP])
@pytest.mark.parametrize("ipv6", [False, True])
def test_a_checksum_is_left_to_the_driver(rig: Rig, vlan: int | None, protocol: int, ipv6: bool) -> None:
    ends = (bytes(range(16)), bytes(range(16, 32))) if ipv6 else (b"\x0a\0\0\1", b"\x0a\0\0\2")
    packet = made.Packet(*ends, protocol=protocol, vlan=vlan, payload=b"x" * 101)
    start = packet.l2_len + packet.l3_len
    rig.outside.send(
        vnet(NEEDS_CSUM, start=start, offset=16 if protocol == made.TCP else 6) + partial(packet)
    )
    rig.round()
    (context, second), (_, word1) = rig.sent()
    assert second & desc.TXD_DTYP_CTXT == desc.TXD_DTYP_CTXT
    assert context & 0x1FF == packet.l3_len
    assert context >> desc.CTXD_Q0_MACLEN_SHIFT & 0x7F == packet.l2_len
    assert bool(second & desc.CTXD_TUCMD_IPV4) is not ipv6
    assert bool(second & desc.CTXD_TUCMD_L4T_TCP) is (protocol == made.TCP)
    assert word1 & desc.TXD_Q1_TXSM and not word1 & desc.TXD_DCMD_TSE


@pytest.mark.parametrize("protocol", [made.TCP, made.UDP])
def test_a_checksum_behind_ip_options_is_finished_here(rig: Rig, protocol: int) -> None:
    packet = made.Packet(ip_options=b"\x01" * 8, protocol=protocol, payload=b"y" * 77)
    start = packet.l2_len + packet.l3_len
    rig.outside.send(
        vnet(NEEDS_CSUM, start=start, offset=16 if protocol == made.TCP else 6) + partial(packet)
    )
    rig.round()
    ((address, word1),) = rig.sent()
    assert not word1 & desc.TXD_Q1_TXSM
    assert peek(address, word1 & 0xFFFF) == packet.frame()


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_segment_of_64_kib_is_cut_by_the_card(rig: Rig, ipv6: bool) -> None:
    ends = (bytes(range(16)), bytes(range(16, 32))) if ipv6 else (b"\x0a\0\0\1", b"\x0a\0\0\2")
    payload = np.random.default_rng(1).bytes(65_000)
    packet = made.Packet(*ends, payload=payload, l4_options=b"\x01" * 12)
    frame, start = partial(packet), packet.l2_len + packet.l3_len
    header = vnet(NEEDS_CSUM, TCPV6 if ipv6 else TCPV4, 1428, start, 16)
    rig.outside.send(header + frame)
    rig.round()
    (context, second), *data = rig.sent()
    assert context & 0x1FF == packet.l3_len
    assert second >> desc.CTXD_Q1_MSS_SHIFT & 0xFFFF == 1428
    assert second >> desc.CTXD_Q1_L4LEN_SHIFT & 0xFF == 32
    assert all(word1 & desc.TXD_DCMD_TSE for _, word1 in data)
    assert [bool(word1 & desc.TXD_DCMD_EOP) for _, word1 in data] == [False] * (len(data) - 1) + [True]
    assert data[0][1] >> desc.TXD_Q1_PAYLEN_SHIFT & 0x3FFFF == len(payload)
    # What the kernel left in the checksum's field counts the length of the whole; the card wants it without.
    field = slice(start + 16, start + 18)
    pseudo = reference.pseudo(*ends, made.TCP, 0)
    wanted = bytearray(frame)
    wanted[field] = reference.ones_sum(pseudo).to_bytes(2, "big")
    assert b"".join(peek(address, word1 & 0xFFFF) for address, word1 in data) == wanted


def test_what_cannot_be_sent_is_dropped_and_its_buffers_stay(rig: Rig) -> None:
    frame = partial(made.Packet(payload=b"z" * 3000))
    bad = [
        vnet(NEEDS_CSUM, 3, 1000, 34, 6),  # UDP fragmentation, which was not offered
        vnet(0, TCPV4, 1000, 34, 16),  # segments without a checksum
        vnet(NEEDS_CSUM, TCPV4, 0, 34, 16),  # no size
        vnet(NEEDS_CSUM, TCPV6, 1000, 34, 16),  # not what the frame is
        vnet(NEEDS_CSUM, TCPV4, 1000, 60_000, 16),  # beyond the frame
        vnet(NEEDS_CSUM, 0, 0, 40, 20),  # a foreign checksum over several buffers
    ]
    free = int(rig.pools[0].free)
    for header in bad:
        rig.outside.send(header + frame)
    rig.round()
    assert rig.sent() == []
    assert rig.taps[0].from_tap_dropped == len(bad)
    assert rig.pools[0].free == free


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=1, max_size=200))
def test_any_header_does_no_harm(header: bytes, data: bytes) -> None:
    rig = Rig()
    try:
        rig.outside.send(header + data)
        rig.round()
        for address, word1 in rig.sent():
            if word1 & desc.TXD_DTYP_MASK == desc.TXD_DTYP_DATA:
                assert rig.base <= address < rig.base + len(rig.memory)
        assert rig.taps[0].from_tap + rig.taps[0].from_tap_dropped == 1
    finally:
        rig.close()


def test_a_full_ring_stops_the_reading_and_loses_nothing(rig: Rig) -> None:
    total = 3 * RING
    rig.outside.setblocking(True)
    rig.outside.settimeout(10)
    sent = 0
    for _ in range(6):
        while sent < total:
            try:
                rig.outside.send(vnet() + sent.to_bytes(2, "big") * 40, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            sent += 1
        rig.round()
    took = rig.sent()
    assert RING // 2 < len(took) < RING  # no more than the ring has
    assert rig.taps[0].from_tap <= RING + BURST
    order = [int.from_bytes(peek(address, 2), "big") for address, _ in took]
    assert order == list(range(len(took)))
    waiting = int(rig.taps[0].end - rig.taps[0].start)
    free = int(rig.pools[0].free)
    assert waiting > 0
    drop_staged(rig.pools, rig.stack, rig.staged, rig.taps)
    assert rig.pools[0].free == free + waiting


def test_frames_in_several_buffers_are_dropped_as_a_whole(rig: Rig) -> None:
    rig.arrive(b"\x01" * 100)
    rig.rings[0][1] &= ~desc.RXD_STAT_EOP
    rig.arrive(b"\x02" * 100)
    rig.arrive(b"\x03" * 100)
    rig.round()
    assert rig.outside.recv(4096) == vnet() + b"\x03" * 100
    assert rig.taps[0].to_tap_dropped == 2


def test_a_tap_that_is_gone_is_told(rig: Rig) -> None:
    rig.taps[0].fd = os.open("/dev/null", os.O_RDONLY)
    os.close(int(rig.taps[0].fd))
    assert rig.round() == FAILED
    assert rig.taps[0].error == errno.EBADF


def test_a_pool_that_runs_dry_reads_no_more(rig: Rig) -> None:
    rig.pools[0].free = PIECES - 1
    rig.outside.send(vnet() + b"\x01" * 60)
    assert rig.round() == IDLE
    rig.pools[0].free = PIECES
    assert rig.round() == AGAIN
    assert len(rig.sent()) == 1
