"""Drivers on a real card, in one process: the card's loop in a thread, a socket for each VF, a driver on each."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.datapath import application as words
from vfwire.devices.card import Card, functions_of
from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.engine import Engine
from vfwire.drivers.ena import Ena
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import Pool
from vfwire.paths.applications import warm_up_applications
from vfwire.paths.board import Board


@contextmanager
def enas(
    count: int,
    *,
    queues: int = 1,
    ring_size: int = 256,
    llq: int = 0,
    options: EnaOptions | None = None,
    mtu: int = 1500,
) -> Iterator[tuple[Card, list[Ena]]]:
    """A card of ENAs without line rate, and a driver with a pool of its own on each."""
    Engine.warm_up()
    Ena.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(count)])
        stack.callback(engine.close)
        card = Card(
            engine, 0, "card", count, line_rate_bps=None, model="ena", ena=options, mtu=max(mtu, 1500)
        )
        stack.callback(card.close)
        engine.start()
        found = []
        for vf, function in enumerate(card.functions):
            server = Server(function, directory / str(vf))
            server.start()
            stack.callback(server.stop)
            pool = stack.enter_context(Pool(4096))
            handle = VfioUserFunction(directory / str(vf))
            nic = Ena.open(handle, pool, queues=queues, ring_size=ring_size, llq=llq, mtu=mtu)
            found.append(stack.enter_context(nic))
            nic.wait_link_up()
        yield card, found


@contextmanager
def drivers(
    count: int, *, pools: tuple[int, ...] | None = None, trust: bool = False, queues: int = 1
) -> Iterator[list[Ixgbevf]]:
    """`count` drivers on the VFs of one card without line rate. pools[i]: the pool of driver i (default: its own)."""
    Engine.warm_up()
    warm_up_applications()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(count)])
        stack.callback(engine.close)
        card = Card(engine, 0, "card", count, line_rate_bps=None, rss_key=bytes(range(40)))
        stack.callback(card.close)
        if trust:
            for vf in range(count):
                card.change(vf, {"trust": True, "spoofchk": False})
        engine.start()
        numbers = pools or tuple(range(count))
        made = [stack.enter_context(Pool(2048)) for _ in range(max(numbers) + 1)]
        found = []
        for vf, function in enumerate(card.functions):
            server = Server(function, directory / str(vf))
            server.start()
            stack.callback(server.stop)
            nic = Ixgbevf.open(
                VfioUserFunction(directory / str(vf)), made[numbers[vf]], ring_size=256, queues=queues
            )
            found.append(stack.enter_context(nic))
            nic.wait_link_up()
        yield found


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
