"""What the loop does by the clock: rates by credit, and interrupts, at times that the test names."""

import os
from collections.abc import Iterator

import pytest
from loop_kit import LoopBench, frame

SECOND = 1_000_000_000

# --- Interrupts ----------------------------------------------------------------------------------------------


class Wired:
    """Two guests; the second one's first queue raises vector 0 on receive and vector 1 on transmit."""

    def __init__(self) -> None:
        self.bench = LoopBench(2)
        self.one, self.two = self.bench.start()
        self.record = self.two.record
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.record.rx_vector[0], self.record.tx_vector[0] = 0, 1
        self.record.mask = 3
        for number, fd in enumerate(self.fds):
            self.bench.vector(1, number).eventfd = fd

    def frames(self, count: int = 1) -> None:
        for _ in range(count):
            self.one.send(frame(self.two.mac, self.one.mac))

    def raised(self, number: int = 0) -> int:
        try:
            return os.eventfd_read(self.fds[number])
        except BlockingIOError:
            return 0


@pytest.fixture
def wired() -> Iterator[Wired]:
    made = Wired()
    yield made
    for fd in made.fds:
        os.close(fd)


def test_a_burst_is_one_interrupt(wired: Wired) -> None:
    wired.record.auto_clear = 3
    wired.frames(20)
    wired.bench.rounds()
    assert wired.raised() == 1 and wired.raised(1) == 0
    wired.bench.rounds()
    assert wired.raised() == 0


def test_a_completion_that_was_asked_for_raises_the_transmit_vector(wired: Wired) -> None:
    data = frame(wired.one.mac, wired.two.mac)
    wired.two.send(data)
    wired.bench.rounds()
    assert wired.raised(1) == 0
    wired.two.send(data, extra=1 << 27)
    wired.bench.rounds()
    assert wired.raised(1) == 1


def test_what_is_masked_comes_when_the_mask_is_lifted(wired: Wired) -> None:
    wired.record.mask = 0
    wired.frames()
    wired.bench.rounds()
    assert wired.raised() == 0 and wired.record.causes == 1
    wired.record.mask = 1
    wired.bench.round()
    assert wired.raised() == 1


def test_auto_mask_holds_until_the_guest_enables_again(wired: Wired) -> None:
    wired.record.auto_clear = wired.record.auto_mask = 1
    wired.frames()
    wired.bench.rounds()
    wired.frames()
    wired.bench.rounds()
    assert wired.raised() == 1 and wired.record.mask == 2 and wired.record.causes == 1
    wired.record.mask = 3
    wired.bench.round()
    assert wired.raised() == 1 and wired.record.causes == 0


def test_without_auto_clear_a_masked_cause_stays_for_the_guest_to_read(wired: Wired) -> None:
    wired.record.auto_mask = 1
    wired.frames()
    wired.bench.rounds()
    assert wired.raised() == 1 and wired.record.causes == 1


def test_moderation_holds_back_and_loses_nothing(wired: Wired) -> None:
    wired.record.auto_clear = 3
    wired.bench.vector(1, 0).interval_ns = 100_000
    wired.frames()
    wired.bench.round()
    assert wired.raised() == 1
    for _ in range(9):
        wired.frames()
        wired.bench.round(10_000)
    assert wired.raised() == 0 and wired.record.pending == 1
    wired.bench.round(10_001)
    assert wired.raised() == 1 and wired.record.pending == 0
    wired.bench.round(200_000)
    assert wired.raised() == 0


def test_a_cause_that_nobody_listens_to_waits_for_a_listener(wired: Wired) -> None:
    wired.record.auto_clear = 3
    wired.bench.vector(1, 0).eventfd = -1
    wired.frames()
    wired.bench.rounds()
    assert wired.record.causes == 1
    wired.bench.vector(1, 0).eventfd = wired.fds[0]
    wired.bench.round()
    assert wired.raised() == 1 and wired.record.causes == 0


def test_a_full_or_closed_eventfd_is_a_lost_edge_and_no_more(wired: Wired) -> None:
    wired.record.auto_clear = 3
    os.eventfd_write(wired.fds[0], 0xFFFFFFFFFFFFFFFE)
    wired.frames()
    wired.bench.rounds()
    assert len(wired.two.receive()) == 1
    wired.bench.vector(1, 0).eventfd = 1 << 20
    wired.frames()
    wired.bench.rounds()
    assert len(wired.two.receive()) == 1 and wired.record.interrupts == 2
