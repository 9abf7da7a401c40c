"""What the loop does by the clock: rates by credit, and interrupts, at times that the test names."""

import os
from collections.abc import Iterator

import pytest
from loop_kit import LoopBench, LoopGuest, frame

from vfwire.datapath.card import BUDGET
from vfwire.datapath.rate import BURST_NS, LONGEST_NS, PLENTY, top_up
from vfwire.datapath.state import CARD
from vfwire.memory.compiled import compiled

WIRE_BITS_64 = (60 + 24) * 8
GIGABIT = 1_000_000_000
SECOND = 1_000_000_000


@compiled
def topped(state, now, away=0):  # type: ignore[no-untyped-def]
    return top_up(state.cards[0], now, away)


def test_credit_arithmetic() -> None:
    bench = LoopBench(1)
    card = bench.state.cards[0]
    assert topped(bench.state, 5) == PLENTY
    card.rate_bps, card.credit_ns = 10 * GIGABIT, 1000
    assert topped(bench.state, 1100) == 100 * 10 * GIGABIT
    assert topped(bench.state, 1100) == 100 * 10 * GIGABIT
    most = BURST_NS * 10 * GIGABIT
    assert topped(bench.state, 1100 + 2 * BURST_NS) == most
    assert topped(bench.state, 1 << 60) == most
    card.credit = -3 * most
    assert topped(bench.state, (1 << 60) + 2 * BURST_NS) == -most
    assert topped(bench.state, (1 << 60) + 6 * BURST_NS) == most
    assert CARD.fields is not None and card.credit == most
    assert topped(bench.state, 1 << 61, 3 * BURST_NS) == 3 * most
    assert topped(bench.state, (1 << 61) + 100) == 3 * most
    card.rate_bps = 400 * GIGABIT
    for now in range(1 << 62, (1 << 62) + 5 * SECOND, SECOND):
        assert 0 < topped(bench.state, now, SECOND) <= LONGEST_NS * 400 * GIGABIT


def sent_in(bench: LoopBench, guest: LoopGuest, to: LoopGuest, seconds: float, step_ns: int) -> int:
    """How many frames a guest that always has more gets sent in that time, a round every `step_ns`."""
    data = frame(to.mac, guest.mac)
    before = int(guest.record.tx_frames)
    for _ in range(int(seconds * SECOND / step_ns)):
        while (guest.tx_next[0] + 1) % guest.size != guest.read(0x2010):
            guest.send(data)
        bench.round(step_ns)
        to.receive()
    return int(guest.record.tx_frames) - before


@pytest.mark.parametrize(("rate", "step_ns"), [(GIGABIT, 20_000), (GIGABIT, 49_000), (20_000_000, 30_000)])
@pytest.mark.parametrize("whose", ["function", "link"])
def test_a_rate_holds(rate: int, step_ns: int, whose: str) -> None:
    bench = LoopBench(1, 1) if whose == "link" else LoopBench(2)
    one, two = bench.start(size=128)
    limited = bench.state.cards[0] if whose == "link" else one.record
    limited.rate_bps, limited.credit_ns = rate, bench.now
    seconds = 0.01
    sent = sent_in(bench, one, two, seconds, step_ns)
    expected = rate * seconds / WIRE_BITS_64
    assert expected * 0.95 - 1 <= sent <= expected * 1.05 + 1 + rate * BURST_NS / SECOND / WIRE_BITS_64
    assert sum(two.drops().values()) == sum(one.drops().values()) == 0
    bench.state.functions.rate_bps[:] = bench.state.cards.rate_bps[:] = 0
    assert sent_in(bench, one, two, 0.0001, 50_000) >= 2 * 100


def test_a_low_rate_holds_when_the_loop_is_seldom_there() -> None:
    """As on a machine with more to do than cores: 4 ms between two rounds, 64-byte frames at 12 Mbps."""
    bench = LoopBench(2)
    one, two = bench.start(size=128)
    one.record.rate_bps, one.record.credit_ns = 12_000_000, bench.now
    sent = sent_in(bench, one, two, 1.0, 4_000_000)
    assert sent == pytest.approx(12_000_000 / WIRE_BITS_64, rel=0.05)


LONG = bytes(586)  # of payload: 600 bytes, so that a burst of 500,000 bits is a hundred frames
IN_A_BURST = 500_000 // ((600 + 24) * 8)


def absence(whose: str, waited: int) -> tuple[LoopBench, LoopGuest, LoopGuest]:
    """A loop comes back after four times BURST_NS at 10 Gbps, finds `waited` frames of `one` and has one turn."""
    bench = LoopBench(1, 1) if whose == "link" else LoopBench(2)
    one, two = bench.start(size=512)
    limited = bench.state.cards[0] if whose == "link" else one.record
    limited.rate_bps, limited.credit_ns = 10 * GIGABIT, bench.now
    for _ in range(waited):
        one.send(frame(two.mac, one.mac, LONG))
    bench.state.control[0].away_ns = 4 * BURST_NS
    bench.round(4 * BURST_NS)
    bench.state.control[0].away_ns = 0
    return bench, one, two


@pytest.mark.parametrize("whose", ["function", "link"])
def test_frames_that_waited_while_the_loop_was_away_lose_nothing(whose: str) -> None:
    """More of them than it takes in one turn."""
    bench, one, two = absence(whose, 3 * IN_A_BURST)
    assert one.record.tx_frames == BUDGET < 3 * IN_A_BURST
    bench.round(0)
    assert one.record.tx_frames == len(two.receive()) == 3 * IN_A_BURST
    assert one.record.throttled == 0


@pytest.mark.parametrize("whose", ["function", "link"])
def test_what_was_not_used_of_an_absence_is_gone(whose: str) -> None:
    bench, one, two = absence(whose, 1)
    for _ in range(4 * IN_A_BURST):
        one.send(frame(two.mac, one.mac, LONG))
    for _ in range(8):
        bench.round(0)
    assert 1 + IN_A_BURST <= one.record.tx_frames <= 3 + IN_A_BURST


def test_one_out_of_credit_does_not_slow_the_other_and_keeps_the_loop_awake() -> None:
    bench = LoopBench(3)
    slow, fast, to = bench.start()
    slow.record.rate_bps, slow.record.credit_ns, slow.record.credit = 1_000_000, bench.now, -SECOND
    slow.send(frame(to.mac, slow.mac))
    fast.send(frame(to.mac, fast.mac))
    assert bench.round() == 1
    assert (slow.record.tx_frames, fast.record.tx_frames, slow.record.throttled) == (0, 1, 1)
    assert bench.state.control[0].waiting == 1
    assert bench.round(2_000_000) == 1
    assert bench.state.control[0].waiting == 0


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
