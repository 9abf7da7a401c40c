"""The engine's watch takes no eventfd away but one that holds its writer, whatever the control side does meanwhile."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfwire.datapath.state import CardState, new_state
from vfwire.devices import watchdog
from vfwire.devices.watchdog import StuckLoop, holds_its_writer

FULL = 2**64 - 2


@pytest.fixture
def state() -> Iterator[CardState]:
    """One function; vector 1's eventfd is full."""
    made = new_state([1])
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    os.eventfd_write(fd, FULL)
    made.vectors[1].eventfd = fd
    yield made
    for fd in made.vectors.eventfd.tolist():
        if fd >= 0:
            os.close(fd)


def test_a_full_eventfd_is_emptied_and_taken_away(state: CardState) -> None:
    full = int(state.vectors[1].eventfd)
    assert StuckLoop(state).free() == [(0, full)]
    assert state.vectors[1].eventfd == -1
    with pytest.raises(BlockingIOError):
        os.eventfd_read(full)
    os.close(full)


def test_one_that_was_replaced_meanwhile_stays(state: CardState, monkeypatch: pytest.MonkeyPatch) -> None:
    full = int(state.vectors[1].eventfd)
    other = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def look(fd: int) -> bool:
        state.vectors[1].eventfd = other
        return holds_its_writer(fd)

    monkeypatch.setattr(watchdog, "holds_its_writer", look)
    assert StuckLoop(state).free() == []
    assert state.vectors[1].eventfd == other
    os.close(full)


def test_one_with_the_number_of_one_that_was_full_is_put_back(
    state: CardState, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look(fd: int) -> bool:
        held = holds_its_writer(fd)
        if not looks:
            os.eventfd_read(fd)  # as a new one under this number would be: empty
        looks.append(fd)
        return held

    monkeypatch.setattr(watchdog, "holds_its_writer", look)
    full = int(state.vectors[1].eventfd)
    assert StuckLoop(state).free() == []
    assert looks == [full, full] and state.vectors[1].eventfd == full


def test_one_that_is_closed_under_the_look_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    read = Path.readlink

    def read_and_close(path: Path) -> Path:
        target = read(path)
        os.close(fd)
        return target

    monkeypatch.setattr(Path, "readlink", read_and_close)
    assert not holds_its_writer(fd)
