"""The watchers of an engine: there only for drivers that wait for interrupts, and gone before what they look at."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.waiting import wait_until
from vfwire.devices.card import Card
from vfwire.devices.engine import Engine


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("vfwire-idle")]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def warm() -> None:
    Engine.warm_up()


def test_they_come_and_go_with_the_loop() -> None:
    before = open_descriptors()
    engine = Engine([1], polled=False)
    assert not watchers()
    for _ in range(2):
        engine.start()
        assert len(watchers()) == min(2, len(os.sched_getaffinity(0)))
        engine.stop()
        assert not watchers()
    engine.start()
    engine.close()
    engine.close()
    assert not watchers()
    assert open_descriptors() == before


def test_drivers_that_poll_need_none() -> None:
    engine = Engine([1])
    engine.start()
    assert not watchers()
    engine.close()


def test_a_card_with_a_core_of_its_own_watches_on_no_other() -> None:
    core = max(os.sched_getaffinity(0))
    engine = Engine([1], polled=False, pin=core)
    engine.start()
    try:
        (watcher,) = watchers()
        wait_until(lambda: os.sched_getaffinity(watcher.native_id or 0) == {core}, "the move to that core")
    finally:
        engine.close()


def test_they_are_gone_before_a_card_takes_its_memory_away() -> None:
    engine = Engine([2], polled=False)
    card = Card(engine, 0, "card0", 2)
    engine.start()
    assert watchers()
    card.close()
    assert not watchers() and engine.running
    engine.close()


def test_they_end_while_every_core_is_wanted() -> None:
    """The lowest class gets next to nothing then; who ends them does not wait for that."""
    engine = Engine([1], polled=False)
    engine.start()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        engine.close()
        assert not watchers()
    finally:
        for process in busy:
            process.kill()
            process.wait()
