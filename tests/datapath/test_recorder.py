"""What the loop notes for a recorder: frames as their driver sees them, interrupts, and what finds no room."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from loop_kit import LoopBench, frame, tagged

from vfwire.datapath import recorder as ring
from vfwire.datapath.switch import set_vlan
from vfwire.layouts import ixgbe_descriptors as d


@dataclass(frozen=True)
class Noted:
    kind: int
    function: int
    number: int
    time_ns: int
    frame: bytes


class Watched:
    """Two functions of a card, and the ring in which the loop notes what they do."""

    def __init__(self, wants: int) -> None:
        self.bench = LoopBench(2)
        self.memory = np.zeros(ring.RECORDER_MEMORY, np.uint8)
        self.bench.state.control[0].recorder = self.memory.ctypes.data
        self.bench.state.functions.recorded[:] = wants
        self.one, self.two = self.bench.start()

    def word(self, at: int) -> int:
        return int(self.memory[at : at + 8].view("<i8")[0])

    def move_to(self, position: int) -> None:
        """Both positions, as after so many bytes."""
        for at in (ring.READ, ring.WRITE):
            self.memory[at : at + 8].view("<i8")[0] = position

    def noted(self) -> Iterator[Noted]:
        read = self.word(ring.READ)
        while read < self.word(ring.WRITE):
            at = ring.DATA + read % ring.RECORDER_BYTES
            head = self.memory[at : at + ring.HEAD].tobytes()
            size, kind, time_ns, function, number = struct.unpack_from("<IIqII", head)
            if size == ring.SKIP:
                read += ring.RECORDER_BYTES - read % ring.RECORDER_BYTES
                continue
            length = number if kind != ring.INTERRUPT else 0
            frame = self.memory[at + ring.HEAD : at + ring.HEAD + length].tobytes()
            yield Noted(kind, function, number, time_ns, frame)
            read += size
        self.memory[ring.READ : ring.READ + 8].view("<i8")[0] = read

    def send(self, data: bytes, **options: int) -> list[Noted]:
        self.one.send(data, **options)
        self.bench.rounds()
        return list(self.noted())


@pytest.fixture
def watched() -> Watched:
    return Watched(ring.RECORD_FRAMES)


def both(data: bytes) -> list[tuple[int, int, bytes]]:
    return [(ring.RECEIVED, 1, data), (ring.SENT, 0, data)]


def told(events: list[Noted]) -> list[tuple[int, int, bytes]]:
    return [(event.kind, event.function, event.frame) for event in events]


def test_each_frame_is_noted_at_its_receiver_and_its_sender(watched: Watched) -> None:
    for length in (46, 47, 400, 1500):
        data = frame(watched.two.mac, watched.one.mac, os.urandom(length))
        for _ in range(3):  # the second of a flow would take the fast path
            assert told(watched.send(data)) == both(data)


def test_times_do_not_go_backwards(watched: Watched) -> None:
    times = [
        event.time_ns for _ in range(10) for event in watched.send(frame(watched.two.mac, watched.one.mac))
    ]
    assert len(times) == 20 and times == sorted(times) and times[0] > 0


def test_a_tag_in_a_descriptor_is_noted_in_line(watched: Watched) -> None:
    for pool in range(2):
        set_vlan(watched.bench.state, 0, 5, pool, True)
    inside = frame(watched.two.mac, watched.one.mac, b"t" * 80)
    watched.one.context(vlan=0x6005)
    events = watched.send(inside, extra=d.TXD_DCMD_VLE)
    assert told(events) == both(tagged(watched.two.mac, watched.one.mac, 0x6005, b"t" * 80))


def test_a_port_vlan_is_not_seen(watched: Watched) -> None:
    for guest in (watched.one, watched.two):
        guest.record.port_vlan = 7
        set_vlan(watched.bench.state, 0, 7, guest.number, True)
    watched.bench.changed()
    data = frame(watched.two.mac, watched.one.mac, b"p" * 60)
    assert told(watched.send(data)) == both(data)


def test_a_dropped_frame_is_noted_as_sent_only(watched: Watched) -> None:
    watched.two.disable()
    data = frame(watched.two.mac, watched.one.mac)
    assert told(watched.send(data)) == [(ring.SENT, 0, data)]


def test_only_the_functions_that_are_watched() -> None:
    watched = Watched(0)
    watched.two.record.recorded = ring.RECORD_FRAMES
    data = frame(watched.two.mac, watched.one.mac)
    for _ in range(3):
        assert told(watched.send(data)) == [(ring.RECEIVED, 1, data)]


def test_nothing_is_noted_while_nobody_watches() -> None:
    watched = Watched(0)
    watched.bench.state.control[0].recorder = 0
    watched.send(frame(watched.two.mac, watched.one.mac))
    assert watched.word(ring.WRITE) == 0
    assert len(watched.two.receive()) == 1


def test_the_ring_wraps_without_tearing_a_frame(watched: Watched) -> None:
    watched.move_to(3 * ring.RECORDER_BYTES - 4096)
    for number in range(12):
        data = frame(watched.two.mac, watched.one.mac, bytes([number]) * 600)
        assert told(watched.send(data)) == both(data)
    assert watched.word(ring.WRITE) > 3 * ring.RECORDER_BYTES


def test_a_full_ring_loses_and_counts_and_the_frames_arrive_all_the_same(watched: Watched) -> None:
    watched.memory[ring.WRITE : ring.WRITE + 8].view("<i8")[0] = ring.RECORDER_BYTES - 1024
    data = frame(watched.two.mac, watched.one.mac, bytes(700))
    for _ in range(5):
        watched.one.send(data)
        watched.bench.rounds()
    assert watched.word(ring.LOST) == 9
    assert [got.frame for got in watched.two.receive()] == [data] * 5


def test_an_interrupt_is_noted_when_its_message_goes_out() -> None:
    watched = Watched(ring.RECORD_INTERRUPTS)
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        vector = watched.bench.vector(1, 2)
        vector.eventfd = eventfd
        watched.two.record.mask = 4
        watched.two.record.rx_vector[0] = 2
        events = watched.send(frame(watched.two.mac, watched.one.mac))
        assert [(event.kind, event.function, event.number) for event in events] == [(ring.INTERRUPT, 1, 2)]
        assert os.eventfd_read(eventfd) == 1
    finally:
        os.close(eventfd)


def test_segments_are_noted_one_by_one_with_their_checksums(watched: Watched) -> None:
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 1, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 0x50, 0x18, 512, 0, 0)
    watched.one.context(mss=1000, tucmd=d.CTXD_TUCMD_IPV4 | d.CTXD_TUCMD_L4T_TCP, l2=14, l3=20, l4=20)
    data = frame(watched.two.mac, watched.one.mac, ip + tcp + bytes(2500), 0x0800)
    offload = d.TXD_DCMD_TSE | d.TXD_Q1_IXSM | d.TXD_Q1_TXSM
    watched.one.send(data, extra=offload | 2500 << d.TXD_Q1_PAYLEN_SHIFT)
    watched.bench.rounds()
    noted = list(watched.noted())
    received = [got.frame for got in watched.two.receive()]
    assert len(received) == 3
    assert [event.frame for event in noted if event.kind == ring.RECEIVED] == received
    assert [event.frame for event in noted if event.kind == ring.SENT] == received
