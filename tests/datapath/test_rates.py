"""Rates, by a clock that the test winds: what a sender gets of its own rate and of the link's, and when."""

import struct

import pytest
from ena_kit import ena_bench
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import LoopBench, LoopGuest, frame

from vfwire.datapath.card import BUDGET
from vfwire.datapath.rate import BURST_NS, FAST_BPS, LONGEST_NS, MOST_BPS, PLENTY, top_up
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


@given(
    st.sampled_from([1_000_000, 10 * GIGABIT, FAST_BPS, FAST_BPS + 1, MOST_BPS]),
    st.lists(
        st.tuples(st.integers(0, 10 * SECOND), st.integers(0, 10 * SECOND), st.integers(0, 1 << 58)),
        max_size=9,
    ),
)
def test_credit_is_never_more_than_time_has_earned(rate: int, steps: list[tuple[int, int, int]]) -> None:
    """Whatever passes, whoever was away, and whatever was spent."""
    bench = LoopBench(1)
    card = bench.state.cards[0]
    card.rate_bps, card.credit_ns, now, earned = rate, 1, 1, 0
    for passed, away, spent in steps:
        now += passed
        earned += passed * rate
        before = int(card.credit)
        credit = topped(bench.state, now, away)
        assert before <= credit <= min(earned, max(before, 0) + LONGEST_NS * FAST_BPS)
        if before + passed * rate <= 0:
            assert credit == before + passed * rate  # a debt is paid off by all the time that passes
        card.credit -= spent
        earned -= spent


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
    bench.round(0)
    for _ in range(waited):
        one.send(frame(two.mac, one.mac, LONG))
    bench.round(4 * BURST_NS)
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


def wait_rounds(bench: LoopBench, guest: LoopGuest, frames: int) -> int:
    """Milliseconds, a round each, until `guest` has sent so many."""
    for passed in range(1000):
        if guest.record.tx_frames >= frames:
            return passed
        bench.round(1_000_000)
    raise AssertionError("never")


def test_a_silent_sender_pays_its_debt() -> None:
    """60,000 bytes at 11 Mbps are a debt of 44 ms."""
    bench, (one, two) = ena_bench(2, size=256)
    one.record.rate_bps, one.record.credit_ns, one.record.credit = 11_000_000, bench.now, 0
    header = struct.pack(">BBHHHBBHII", 0x45, 0, 0, 1, 0, 64, 6, 0, 0x0A000001, 0x0A000002)
    header += struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 5 << 4, 16, 100, 0, 0)
    bits = 1 << 7 | 1 << 13 | 1 << 14 | 8 | 12 << 8  # TSO, L3 and L4 sums; IPv4, TCP
    one.send(
        two.mac + one.mac + b"\x08\0" + header + bytes(60_000),
        pieces=(20_000, 20_000),
        meta=one.meta(mss=1448),
        bits=bits,
    )
    bench.rounds()
    sent = int(one.record.tx_frames)
    assert sent == 42 and one.record.throttled == 0
    for _ in range(1000):
        bench.round(1_000_000)
    one.send(frame(two.mac, one.mac))
    assert wait_rounds(bench, one, sent + 1) <= 1


@pytest.mark.parametrize("small_to", ["link", "card"])
def test_a_neighbour_takes_no_credit_that_others_are_short_of(small_to: str) -> None:
    bench = LoopBench(2, 1)
    small, big, to = bench.start(size=512)
    bench.state.cards[0].rate_bps, bench.state.cards[0].credit_ns = 10 * GIGABIT, bench.now
    bench.round(0)
    small.send(frame(to.mac if small_to == "link" else big.mac, small.mac))
    for _ in range(3 * IN_A_BURST):
        big.send(frame(to.mac, big.mac, LONG))
    bench.round(4 * BURST_NS)
    bench.round(0)
    assert big.record.tx_frames == 3 * IN_A_BURST


def test_a_queue_takes_no_credit_that_another_is_short_of() -> None:
    bench, (one, two) = ena_bench(2, queues=2, size=256, buffer=1024)
    one.record.rate_bps, one.record.credit_ns = 10 * GIGABIT, bench.now
    bench.round(0)
    one.send(frame(two.mac, one.mac, LONG), queue=0)
    for _ in range(2 * IN_A_BURST):
        one.send(frame(two.mac, one.mac, LONG), queue=1)
    bench.round(4 * BURST_NS)
    bench.round(0)
    assert one.record.tx_frames == 1 + 2 * IN_A_BURST


def test_who_waits_for_a_reason_of_its_own_keeps_no_credit_of_the_link() -> None:
    bench = LoopBench(2, 1)
    slow, fast, to = bench.start(size=512)
    card = bench.state.cards[0]
    card.rate_bps, card.credit_ns = 10 * GIGABIT, bench.now
    slow.record.rate_bps, slow.record.credit_ns, slow.record.credit = (
        1_000_000,
        bench.now,
        -SECOND * 1_000_000,
    )
    bench.round(0)
    slow.send(frame(to.mac, slow.mac))
    bench.round(LONGEST_NS)
    for _ in range(3):
        bench.round(1000)
    assert bench.state.control[0].waiting == 1 and card.credit <= 10 * GIGABIT * BURST_NS
    for _ in range(4 * IN_A_BURST):
        fast.send(frame(to.mac, fast.mac, LONG))
    for _ in range(4):
        bench.round(0)
    assert IN_A_BURST <= fast.record.tx_frames <= IN_A_BURST + 2


def test_the_loop_ends_a_round_that_gets_long_and_goes_on_behind_it() -> None:
    """Eight queues that have more than a round's bytes together."""
    bench, (one, two) = ena_bench(2, queues=8, size=256, buffer=1024)
    for _ in range(250):
        for queue in range(8):
            one.send(frame(two.mac, one.mac, LONG), queue=queue)
    turns = []
    for _ in range(2):
        bench.round(1000)
        turns.append([int(queue.frames) for queue in bench.state.tx[:8]])
        two.receive()
    assert sorted(turns[0])[0] == 0 and sorted(turns[0])[2:] == [250] * 6
    assert turns[1] == [250] * 8


def test_who_sends_little_has_its_turn_behind_a_long_round() -> None:
    bench, (one, two, three, to) = ena_bench(4, queues=4, size=256, buffer=1024)
    three.send(frame(to.mac, three.mac))
    turns = []
    for _ in range(6):
        for guest in (one, two):
            for queue in range(4):
                while guest.queue_room(queue):
                    guest.send(frame(to.mac, guest.mac, LONG), queue=queue)
        bench.round(1000)
        turns.append(int(three.record.tx_frames))
        to.receive()
    assert turns[0] == 0 and turns[4] == 1
    assert (
        abs(int(one.record.tx_frames) - int(two.record.tx_frames)) <= 4 * BUDGET
    )  # a turn of each of four queues


def test_frames_that_go_nowhere_make_no_round_longer() -> None:
    """Sixteen thousand that are too short; more than that wait."""
    bench, guests = ena_bench(10, queues=8, size=256, buffer=1024)
    for guest in guests:
        for queue in range(8):
            for _ in range(255):
                guest.send(bytes(5), queue=queue)
    bench.round(1000)
    taken = sum(guest.drops().get("shorter than an Ethernet header", 0) for guest in guests)
    assert 1 << 14 <= taken <= (1 << 14) + BUDGET
    bench.rounds()
    assert all(guest.drops()["shorter than an Ethernet header"] == 8 * 255 for guest in guests)


def test_segments_for_many_receivers_are_bounded() -> None:
    """32,768 copies of one descriptor's, at the most."""
    bench, guests = ena_bench(16, size=256)
    one = guests[0]
    header = struct.pack(">BBHHHBBHII", 0x45, 0, 0, 1, 0, 64, 6, 0, 0x0A000001, 0xFFFFFFFF)
    header += struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 5 << 4, 16, 100, 0, 0)
    bits = 1 << 7 | 1 << 13 | 1 << 14 | 8 | 12 << 8
    for mss in (8, 1448):
        data = bytes(b"\xff" * 6) + one.mac + b"\x08\0" + header + bytes(20_000)
        one.send(data, pieces=(), meta=one.meta(mss=mss), bits=bits)
    bench.rounds()
    assert one.record.tx_frames == -(-20_000 // 1448)
    assert one.drops()["bad descriptor"] == 1
