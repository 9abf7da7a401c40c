"""What each process of a path does: a card with its functions on sockets, a virtualization layer, a system.

Every role counts in the same words, so that a path can add them up (see paths/counters.py).
"""

import contextlib
from pathlib import Path
from typing import Any

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.netfront import Netfront
from vfwire.drivers.verbs import Driver, Pool
from vfwire.errors import VfwireError
from vfwire.paths import applications
from vfwire.paths.applications import Packed, StreamOptions
from vfwire.paths.board import Board
from vfwire.paths.flow import Station
from vfwire.paths.pinning import pin

HOST = "host"


class CardRole:
    """One or two cards, joined by a link, in one process; each function on a socket of its own."""

    busy = False

    def __init__(self, directory: Path, core: int, cards: int, vfs: int, *, host: bool) -> None:
        self._directory = directory
        self._servers: list[Server] = []
        pin(core)
        self._engine = Engine([functions_of(vfs, host_function=host)] * cards, pin=core)
        self._vfs, self._host = vfs, host
        self._cards: list[Card] = []
        self._count = cards

    def do_open(self, line_rate_bps: int | None, name: str) -> list[dict[str, str]]:
        """Build, link, serve. Returns, for each card, its sockets by function ("0", "1", …, "host")."""
        for number in range(self._count):
            self._cards.append(
                Card(
                    self._engine,
                    number,
                    f"{name}{number + 1}",
                    self._vfs,
                    line_rate_bps=line_rate_bps,
                    host_function=self._host,
                )
            )
        if len(self._cards) == 2:
            self._cards[0].join(self._cards[1])
        sockets = [self._serve(card) for card in self._cards]
        self._engine.start()
        return sockets

    def _serve(self, card: Card) -> dict[str, str]:
        sockets = {}
        for function in card.functions:
            label = function.name.split("/")[-1]
            path = self._directory / f"{card.name}-{label}"
            server = Server(function, path)
            server.start()
            self._servers.append(server)
            sockets[label] = str(path)
        return sockets

    def do_change(self, card: int, function: int | str, changes: dict[str, Any]) -> None:
        self._cards[card].change(function, changes)

    def do_count(self) -> dict[str, Any]:
        total: dict[str, Any] = {"copied": 0, "notified": 0, "traps": 0, "drops": {}}
        for card in self._cards:
            counted = card.counters()
            for function in counted["vfs"].values():
                total["copied"] += function["copied"]
                total["notified"] += function["interrupts"]
                total["traps"] += function["traps"]
                for cause, count in function["drops"].items():
                    total["drops"][cause] = total["drops"].get(cause, 0) + count
        return total

    def close(self) -> None:
        for server in self._servers:
            with contextlib.suppress(VfwireError):
                server.stop()
        for card in self._cards:
            with contextlib.suppress(VfwireError):
                card.close()
        self._engine.close()


class SystemRole:
    """A system: memory of its own, one driver, one application at a time."""

    busy = True

    def __init__(self, core: int, number: int, boards: tuple[Board, Board], packed: Packed | None) -> None:
        pin(core)
        self._board = boards[number]
        self._other = boards[1 - number]
        self._packed = packed
        self._pool: Pool | None = None
        self._driver: Driver | None = None
        self._function: VfioUserFunction | None = None

    def do_open(self, driver: str, socket: str, ring_size: int, queues: int) -> dict[str, Any]:
        """Bring the driver up. Returns its name, MAC in hex and ring size."""
        if driver == "ixgbevf":
            self._pool = Pool()
            self._function = VfioUserFunction(Path(socket), wait=5.0)
            nic = Ixgbevf.open(self._function, self._pool, queues=queues, ring_size=ring_size)
            self._driver = nic
            nic.wait_link_up()
        else:
            self._pool = Netfront.new_pool()
            self._driver = Netfront.open(Path(socket), self._pool)
        entries = int(self._driver.tx["size"][0])
        return {"driver": self._driver.info.driver, "mac": self._driver.mac.hex(), "ring_size": entries}

    def _opened(self) -> Driver:
        if self._driver is None:
            raise VfwireError("this system has no driver yet")
        return self._driver

    def do_stream(self, options: dict[str, Any], near: list[str], far: list[str], replay: bool) -> None:
        applications.stream(
            self._opened(),
            self._board,
            StreamOptions(**options),
            _station(near),
            _station(far),
            packed=self._packed if replay else None,
            peer=self._other if replay else None,
        )

    def do_echo(self) -> None:
        applications.echo(self._opened(), self._board)

    def do_ping(self, near: list[str], far: list[str], **options: Any) -> int:
        return applications.ping(self._opened(), self._board, _station(near), _station(far), **options)

    def do_count(self) -> dict[str, Any]:
        driver = self._opened()
        queues = (driver.rx, driver.tx)
        errors = sum(int(queue.errors.sum()) for queue in queues)
        return {
            "copied": 0,
            "notified": sum(int(queue.notified.sum()) for queue in queues),
            "traps": 0,
            "drops": {"driver error": errors} if errors else {},
        }

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
        if self._pool is not None:
            self._pool.close()


def _station(text: list[str]) -> Station:
    mac, ip = text
    return Station(bytes.fromhex(mac), bytes.fromhex(ip))
