"""What a watcher on an idle core sees of doorbells, whom it wakes, and when it looks at all."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from ena_kit import EnaGuest, ena_bench
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import LoopBench, frame

from tests.waiting import wait_until
from vfwire.datapath.control_words import load_word, store_register, store_word
from vfwire.datapath.idle_watch import look, run_watch

NEVER_OVER = 1 << 60  # a time that stays ahead
UNMASK = 1 << 30
VECTOR = 1


def nothing_told(bench: LoopBench) -> Any:
    return np.full(len(bench.state.tx), -1, np.int64)


def bench_82599() -> tuple[LoopBench, list[Any]]:
    bench = LoopBench(2)
    for guest in bench.guests:
        guest.start()
    bench.round()
    return bench, list(bench.guests)


@pytest.mark.parametrize("make", [bench_82599, lambda: ena_bench(2)], ids=["82599", "ena"])
def test_each_doorbell_is_told_once(make: Callable[[], tuple[LoopBench, list[Any]]]) -> None:
    bench, (one, two) = make()
    told = nothing_told(bench)
    assert not look(bench.state, told)
    for _ in range(3):
        one.send(frame(two.mac, one.mac))
        assert look(bench.state, told) and not look(bench.state, told)
        bench.rounds()
        assert not look(bench.state, told)


def test_both_of_two_are_told() -> None:
    bench, (one, two) = ena_bench(2)
    told = nothing_told(bench)
    one.send(frame(two.mac, one.mac))
    two.send(frame(one.mac, two.mac))
    assert [look(bench.state, told) for _ in range(3)] == [True, True, False]


def test_what_the_loop_has_seen_by_itself_is_no_news() -> None:
    bench, (one, two) = ena_bench(2)
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    assert not look(bench.state, nothing_told(bench))


@pytest.mark.parametrize("how", ["no driver", "queue off", "no address yet"])
def test_what_is_not_in_use_is_not_looked_at(how: str) -> None:
    bench, (one, two) = ena_bench(2)
    one.send(frame(two.mac, one.mac))
    if how == "no driver":
        one.record.dma = 0
    elif how == "queue off":
        bench.state.tx[0].on = 0
    else:
        bench.state.tx[0].doorbell = 0
    assert not look(bench.state, nothing_told(bench))


def test_an_ena_that_waits_for_an_interrupt_is_news_until_its_wish_is_taken() -> None:
    bench, (one, two) = ena_bench(2)
    bench.vector(1, VECTOR).eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    one.completions()
    told = nothing_told(bench)
    assert not look(bench.state, told)  # posted, and nobody has asked
    store_register(two.word(2, VECTOR), UNMASK)
    assert look(bench.state, told) and look(bench.state, told)
    bench.round()
    assert not look(bench.state, told)
    assert os.eventfd_read(int(bench.vector(1, VECTOR).eventfd)) == 1
    os.close(int(bench.vector(1, VECTOR).eventfd))


def test_an_82599_whose_ring_is_being_latched_is_left_for_the_next_look() -> None:
    bench, (one, two) = bench_82599()
    one.send(frame(two.mac, one.mac))
    bench.state.tx[0].registers = 0
    assert not look(bench.state, nothing_told(bench))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["82599", "ena"]))
def test_whatever_a_guest_writes_is_compared_and_no_more(value: int, model: str) -> None:
    bench, (one, _) = bench_82599() if model == "82599" else ena_bench(2)
    if isinstance(one, EnaGuest):
        store_register(one.word(0, 0), value)
    else:
        one.write(0x2018, value)  # VFTDT
    before = [array.copy() for array in (bench.state.tx, bench.state.functions, bench.state.drops)]
    told = nothing_told(bench)
    assert look(bench.state, told) == (value != 0)
    assert not look(bench.state, told)
    after = (bench.state.tx, bench.state.functions, bench.state.drops)
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


class Watch:
    """A watcher in a thread of its own, and the two ends of what it does."""

    def __init__(self, bench: LoopBench) -> None:
        self.bench, self.control = bench, bench.state.control[0]
        self.kick, self.wake = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
        self.control.kick, self.control.watcher_wake[0] = self.kick, self.wake
        self.control.watchers, self.control.moved_ns = 1, NEVER_OVER
        self._pollfd = np.array([self.wake | 1 << 32], np.int64)
        told = nothing_told(bench)
        self.thread = threading.Thread(
            target=run_watch, args=(bench.state, 0, self._pollfd.ctypes.data, told)
        )
        self.thread.start()

    def set(self, name: str, value: int) -> None:
        store_word(self.control.address + self.control.dtype.fields[name][1], value)

    @property
    def looks(self) -> int:
        return int(load_word(self.control.address + self.control.dtype.fields["looks"][1]))

    def kicked(self) -> bool:
        try:
            return os.eventfd_read(self.kick) > 0
        except BlockingIOError:
            return False

    def end(self) -> None:
        self.set("watchers", 0)
        os.eventfd_write(self.wake, 1)
        self.thread.join(20)
        assert not self.thread.is_alive()
        os.close(self.kick)
        os.close(self.wake)


@pytest.fixture
def watch() -> Iterator[Watch]:
    look(LoopBench(1).state, np.zeros(32, np.int64))
    made = Watch(ena_bench(2)[0])
    yield made
    made.end()


def send(watch: Watch) -> None:
    one, two = watch.bench.guests[:2]
    one.send(frame(two.mac, one.mac))


def test_it_runs_in_the_lowest_class(watch: Watch) -> None:
    wait_until(lambda: watch.looks > 0)
    assert watch.thread.native_id is not None
    assert os.sched_getscheduler(watch.thread.native_id) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) != os.SCHED_IDLE


def test_a_frame_ends_the_nap(watch: Watch) -> None:
    watch.set("napping", 1)
    send(watch)
    wait_until(watch.kicked)


def test_a_loop_that_is_awake_is_left_alone(watch: Watch) -> None:
    send(watch)
    looks = watch.looks
    wait_until(lambda: watch.looks > looks + 3)
    assert not watch.kicked()
    watch.set("napping", 1)
    wait_until(watch.kicked)


@pytest.mark.parametrize(("word", "value"), [("moved_ns", 0), ("many_ns", NEVER_OVER)], ids=["quiet", "much"])
def test_it_sleeps_where_there_is_no_traffic_and_where_there_is_much(
    watch: Watch, word: str, value: int
) -> None:
    wait_until(lambda: watch.looks > 0)
    watch.set(word, value)

    def sleeping() -> bool:
        before = watch.looks
        time.sleep(0.05)  # many times what a look takes; one that goes on is tried again
        return watch.looks == before

    wait_until(sleeping)
    watch.set("napping", 1)
    send(watch)
    assert not watch.kicked()
    watch.set(word, NEVER_OVER if word == "moved_ns" else 0)
    os.eventfd_write(watch.wake, 1)  # as the loop does when traffic comes after a pause
    wait_until(watch.kicked)
