"""An ENA's interrupts: asked for by a word, sent once, moderated, and never lost in any order of writes."""

import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ena_kit import EnaGuest, ena_bench
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import LoopBench, frame

from vfwire.datapath.control_words import load_word, store_register

UNMASK, KEEP_MODERATION = 1 << 30, 1 << 31
VECTOR = 1


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.eventfd(0, os.EFD_NONBLOCK)
    yield made
    os.close(made)


def raised(fd: int) -> int:
    """Interrupts since the last look."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def set_up(fd: int) -> tuple[LoopBench, EnaGuest, EnaGuest]:
    bench, (one, two) = ena_bench(2)
    bench.vector(1, VECTOR).eventfd = fd
    return bench, one, two


def ask(guest: EnaGuest, value: int = UNMASK) -> None:
    store_register(guest.word(2, VECTOR), value)


def send(bench: LoopBench, one: EnaGuest, two: Any) -> None:
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    one.completions()


def test_none_comes_unasked_and_one_for_each_time_it_was_asked_for(fd: int) -> None:
    bench, one, two = set_up(fd)
    send(bench, one, two)
    assert raised(fd) == 0
    ask(two)  # what came before the wish counts
    bench.round()
    assert raised(fd) == 1
    ask(two)
    bench.round()
    assert raised(fd) == 0  # nothing new
    send(bench, one, two)
    assert raised(fd) == 1
    send(bench, one, two)
    assert raised(fd) == 0
    ask(two)  # the same value as before counts again
    bench.round()
    assert raised(fd) == 1 and load_word(two.word(2, VECTOR)) == 0


def test_a_word_without_the_unmask_bit_asks_for_nothing(fd: int) -> None:
    bench, one, two = set_up(fd)
    ask(two, 0x14)
    send(bench, one, two)
    assert raised(fd) == 0


def test_moderation_holds_interrupts_back_and_loses_none(fd: int) -> None:
    bench, one, two = set_up(fd)
    bench.vector(1, VECTOR).moderation_ns = 1000
    ask(two, UNMASK | 20)  # 20 us of receive delay
    send(bench, one, two)
    assert raised(fd) == 1
    ask(two, UNMASK | KEEP_MODERATION)
    one.send(frame(two.mac, one.mac))
    bench.round(1000)
    bench.round(10_000)
    assert raised(fd) == 0
    bench.round(20_000)
    assert raised(fd) == 1
    ask(two, UNMASK | 5 << 15)  # of transmit delay, none of receive
    send(bench, one, two)
    assert bench.vector(1, VECTOR).interval_ns == 5000


@given(st.lists(st.sampled_from(["frame", "ask", "round", "driver"]), max_size=40))
def test_in_any_order_of_events_no_frame_is_left_with_a_sleeping_driver(events: list[str]) -> None:
    """The driver looks, asks, looks again, and sleeps: then a frame that is there has been told of."""
    made = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        bench, one, two = set_up(made)
        told = 0
        for event in [*events, "driver", "round"]:
            if event == "frame":
                one.send(frame(two.mac, one.mac))
            elif event == "ask":
                ask(two)
            elif event == "round":
                bench.round()
                told += raised(made)
            else:
                two.receive()
                ask(two)
                if not two.receive():
                    told = 0
                    one.send(frame(two.mac, one.mac))
                    bench.rounds()
                    told += raised(made)
                    assert told == 1
    finally:
        os.close(made)


@pytest.fixture
def quick_turns() -> Iterator[None]:
    """Two Python threads that wait for each other: with turns of 5 ms, thousands of waits would take minutes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(20e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_turns")
def test_none_is_lost_between_two_threads(fd: int) -> None:
    """A guest that unmasks while the loop runs: it waits for each frame it did not see, and each comes."""
    bench, one, two = set_up(fd)
    end = threading.Event()
    count, seen, waits = 3_000, 0, 0

    def card() -> None:
        sent = 0
        while not end.is_set():
            if sent < count and sent - seen < 8:
                one.send(frame(two.mac, one.mac))
                sent += 1
            bench.round()
            one.completions()

    thread = threading.Thread(target=card)
    thread.start()
    try:
        while seen < count:
            came = len(two.receive())
            if came == 0:
                ask(two)
                came = len(two.receive())
                if came == 0:
                    waits += 1
                    assert select.select([fd], [], [], 30.0)[0], f"no interrupt after {seen} frames"
                    os.eventfd_read(fd)
            seen += came
    finally:
        end.set()
        thread.join()
    assert seen == count and waits
