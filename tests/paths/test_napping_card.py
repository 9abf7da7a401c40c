"""A card for drivers that wait for interrupts, with real drivers: it naps between frames, and idle cores look."""

import time
from typing import Any

import pytest
from card_kit import Running, on_a_card

from tests.waiting import wait_until
from vfwire.datapath import application as words
from vfwire.datapath.nap import LATELY_NS
from vfwire.paths.applications import echo, ping
from vfwire.paths.board import Board
from vfwire.paths.flow import station


def pings(nics: list[Any], **options: Any) -> int:
    near, far = (station(nic.mac, number + 1) for number, nic in enumerate(nics))
    with Running(lambda board: echo(nics[1], board)) as answering:
        answering.wait(words.PHASE, words.RUNNING)
        board = Board()
        try:
            return int(ping(nics[0], board, near, far, seconds=20, **options))
        finally:
            board.close()


@pytest.mark.parametrize("model", ["82599", "ena"])
def test_every_ping_comes_back_and_watchers_look_only_while_there_are_some(model: str) -> None:
    with on_a_card(2, model=model, polled=False, pool_size=4096) as (card, nics):
        control = card.engine.state.control[0]
        for number in range(20):  # until a core was idle for a moment
            assert pings(nics, count=20, interval=0.004, first=number * 1000) == 20
            if control.looks.sum() > 0:
                break
        assert control.looks.sum() > 0
        assert time.monotonic_ns() - int(control.moved_ns) >= 0 and control.moved_ns > 0

        def asleep() -> bool:
            before = int(control.looks.sum())
            time.sleep(4 * LATELY_NS / 1e9)
            return int(control.looks.sum()) == before

        wait_until(asleep)


def test_a_card_whose_drivers_poll_is_not_watched() -> None:
    with on_a_card(2) as (card, nics):
        assert pings(nics, count=20, interval=0.004, first=1000) == 20
        assert card.engine.state.control[0].looks.sum() == 0
