"""Drivers on a real card, in one process: the card's loop in a thread, a socket for each VF, a driver on each."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.datapath import application as words
from vfwire.devices.card import Card, functions_of
from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.engine import Engine
from vfwire.drivers.ena import Ena
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool
from vfwire.paths.applications import warm_up_applications
from vfwire.paths.board import Board


@contextmanager
def on_a_card(
    count: int,
    *,
    model: str = "82599",
    options: EnaOptions | None = None,
    mtu: int = 1500,
    pools: tuple[int, ...] | None = None,
    pool_size: int = 2048,
    trust: bool = False,
    polled: bool = True,
    **asked: Any,
) -> Iterator[tuple[Card, list[FunctionDriver]]]:
    """A card without line rate, and a driver on each of its `count` VFs, opened as `asked`.

    pools[i]: the pool of driver i (default: its own).
    """
    Engine.warm_up()
    warm_up_applications()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(count)], polled=polled)
        stack.callback(engine.close)
        key = bytes(range(40))
        card = Card(
            engine, 0, "card", count, line_rate_bps=None, model=model, ena=options, mtu=mtu, rss_key=key
        )
        stack.callback(card.close)
        for vf in range(count) if trust else ():
            card.change(vf, {"trust": True, "spoofchk": False})
        engine.start()
        numbers = pools or tuple(range(count))
        made = [stack.enter_context(Pool(pool_size)) for _ in range(max(numbers) + 1)]
        found: list[FunctionDriver] = []
        for vf, function in enumerate(card.functions):
            server = Server(function, directory / str(vf))
            server.start()
            stack.callback(server.stop)
            handle = VfioUserFunction(directory / str(vf))
            nic = open_driver(handle, made[numbers[vf]], mtu=mtu, **{"ring_size": 256, **asked})
            found.append(stack.enter_context(nic))
            nic.wait_link_up()
        yield card, found


@contextmanager
def enas(count: int, **options: Any) -> Iterator[tuple[Card, list[Ena]]]:
    """`on_a_card` of ENAs."""
    with on_a_card(count, model="ena", pool_size=4096, **options) as (card, nics):
        yield card, [nic for nic in nics if isinstance(nic, Ena)]


@contextmanager
def drivers(count: int, **options: Any) -> Iterator[list[Ixgbevf]]:
    """`on_a_card` of 82599s: the drivers alone."""
    with on_a_card(count, **options) as (_, nics):
        yield [nic for nic in nics if isinstance(nic, Ixgbevf)]


class Running:
    """An application in a thread, with a board. `stop(2)` ends it."""

    def __init__(self, application: Callable[[Board], object]) -> None:
        self.board = Board()
        self._failure: BaseException | None = None
        self._application = application
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._application(self.board)
        except BaseException as error:
            self._failure = error

    def read(self, word: int) -> int:
        return self.board.read(word)

    def wait(self, word: int, value: int, seconds: float = 10.0) -> None:
        """Wait until a word of the board is at least `value`, or the application has ended."""
        ended = threading.Event()
        for _ in range(int(seconds * 1000)):
            if self.read(word) >= value or not self._thread.is_alive():
                break
            ended.wait(0.001)
        assert self.read(word) >= value, f"word {word} is {self.read(word)}, not {value}"

    def stop(self, level: int = 2) -> None:
        self.board.write(words.STOP, level)
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.board.close()
