"""The loop's thread: it stands still when asked, tells of faults once, and is set free when a guest blocks it."""

import fcntl
import logging
import os
import threading
import time

import pytest
from device_kit import Guest

from tests.waiting import wait_until
from vfwire.devices.card import Card
from vfwire.devices.engine import Engine
from vfwire.errors import UsageError, VfwireError
from vfwire.layouts import ixgbevf as regs
from vfwire.pci.endpoint import IrqIndex


@pytest.fixture
def engine():  # type: ignore[no-untyped-def]
    made = Engine([2, 1])
    made.warm_up()
    yield made
    made.close()


def test_parked_means_that_no_round_begins(engine: Engine) -> None:
    control = engine.state.control[0]
    engine.start()
    wait_until(lambda: control.rounds > 0)
    with engine.parked(), engine.parked():
        rounds = int(control.rounds)
        threading.Event().wait(0.02)
        assert control.rounds == rounds
    wait_until(lambda: control.rounds > rounds)


def test_parked_works_without_a_loop_and_after_one(engine: Engine) -> None:
    with engine.parked():
        assert not engine.running
    engine.start()
    engine.stop()
    with engine.parked() as state:
        assert state is engine.state


def test_many_threads_park_at_once(engine: Engine) -> None:
    engine.start()
    inside: list[int] = []
    overlaps = []

    def change() -> None:
        for _ in range(100):
            with engine.parked():
                inside.append(1)
                overlaps.append(len(inside) > 1)
                inside.pop()

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(overlaps) == 400 and not any(overlaps)


def test_an_error_inside_lets_the_loop_go_on(engine: Engine) -> None:
    engine.start()
    with pytest.raises(ZeroDivisionError), engine.parked():
        1 / 0  # noqa: B018
    rounds = int(engine.state.control[0].rounds)
    wait_until(lambda: engine.state.control[0].rounds > rounds)


def test_it_cannot_be_started_twice_but_again(engine: Engine) -> None:
    engine.start()
    with pytest.raises(VfwireError):
        engine.start()
    engine.stop()
    engine.stop()
    engine.start()
    assert engine.running


def test_a_core_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError):
        Engine([1], pin=4095)


def test_it_runs_on_the_core_it_is_pinned_to() -> None:
    core = max(os.sched_getaffinity(0))
    pinned = Engine([1], pin=core)
    pinned.start()
    try:
        wait_until(lambda: pinned.state.control[0].rounds > 0)
        names = {thread.name: thread.native_id for thread in threading.enumerate()}
        assert os.sched_getaffinity(names["vfwire-card"] or 0) == {core}
    finally:
        pinned.close()


def test_an_idle_loop_naps_and_a_kick_wakes_it(engine: Engine) -> None:
    control = engine.state.control[0]
    control.nap_ns = 900_000_000
    engine.start()
    wait_until(lambda: control.sleeps > 0)
    start = time.monotonic()
    with engine.parked():
        assert time.monotonic() - start < 0.5


@pytest.mark.parametrize("polled", [True, False])
def test_for_drivers_that_wait_for_interrupts_it_naps_at_once(polled: bool) -> None:
    """For those that poll it does so itself, as long as it is told to: here for an hour."""
    engine = Engine([1], polled=polled, spin_ns=3_600_000_000_000)
    control = engine.state.control[0]
    engine.start()
    try:
        if polled:
            wait_until(lambda: control.rounds > 100)
            assert control.sleeps == 0
        else:
            wait_until(lambda: control.sleeps > 10)
            assert control.rounds <= control.sleeps + 2
    finally:
        engine.close()


def test_a_fault_is_logged_once_until_it_is_cleared(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    record = engine.state.functions[1]
    with caplog.at_level(logging.WARNING):
        record.fault = 8
        assert engine.report_faults() == [1]
        assert engine.report_faults() == []
        record.fault = -1
        assert engine.report_faults() == []
        record.fault = 8
        assert engine.report_faults() == [1]
    assert caplog.text.count("card 0 VF 1 stopped until its driver resets it: bad DMA address") == 2


def test_an_interrupt_reaches_the_guest_through_its_eventfd(engine: Engine) -> None:
    card = Card(engine, 0, "card0", 2)
    engine.start()
    guest = Guest(card.vfs[1])
    guest.bus_master()
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    guest.function.set_irqs(IrqIndex.MSIX, 0, [os.dup(fd), -1, -1])
    guest.write(regs.VTEIAC, 1)
    guest.write(regs.VTEICS, 1)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fd)
    guest.write(regs.VTEIMS, 1)
    wait_until(lambda: guest.record.interrupts == 1)
    assert os.eventfd_read(fd) == 1
    assert guest.read(regs.VTEICR) == 0
    card.close()
    os.close(fd)


def test_a_guest_that_blocks_its_interrupt_does_not_block_the_card(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    card = Card(engine, 0, "card0", 2)
    engine.start()
    guest = Guest(card.vfs[0])
    guest.bus_master()
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    guest.function.set_irqs(IrqIndex.MSIX, 0, [os.dup(fd)])
    os.eventfd_write(fd, 0xFFFFFFFFFFFFFFFE)
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    guest.write(regs.VTEIMS, 1)
    with caplog.at_level(logging.WARNING):
        guest.write(regs.VTEICS, 1)
        wait_until(lambda: guest.state.vectors[0].eventfd == -1)
        rounds = int(engine.state.control[0].rounds)
        wait_until(lambda: engine.state.control[0].rounds > rounds)
    assert "blocked interrupt 0" in caplog.text
    with engine.parked():
        assert engine.running
    card.close()
    os.close(fd)
