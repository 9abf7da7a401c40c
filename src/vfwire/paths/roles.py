"""What each process of a path does: a card with its functions on sockets, a virtualization layer, a system.

Every role counts in the same words, so that a path can add them up (see paths/counters.py).
"""

import contextlib
import logging
import threading
from pathlib import Path
from typing import Any

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.devices.allowances import allow, parse_allowance
from vfwire.devices.card import Card, functions_of
from vfwire.devices.dma_maps import allow_descriptors
from vfwire.devices.engine import QUIET_ROUNDS, Engine
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.netfront import Netfront
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Driver, Pool
from vfwire.errors import VfwireError, WaitTimeout
from vfwire.memory.scheduling import switch_lightly
from vfwire.paths import applications
from vfwire.paths.applications import Packed, StreamOptions
from vfwire.paths.board import Board
from vfwire.paths.flow import Station
from vfwire.paths.layer import VirtualizationLayer
from vfwire.paths.pinning import pin
from vfwire.paths.replay import addresses_of

HOST = "host"
NETFRONT = "netfront"
SHARED_QUIET_ROUNDS = (
    4  # of a card on a core with layers: measured, a third off the default path's round trip
)
SPIN_NS = 500_000  # of a layer before it sleeps: to arm the card's interrupt and wake costs it half as much
_READY_SECONDS = 5.0
_log = logging.getLogger(__name__)


class CardRole:
    """One or two cards, joined by a link, in one process; each function on a socket of its own.

    core: the card's, None for any. shared: others run on the card's core. polled: see Engine.
    """

    busy = False

    def __init__(
        self,
        directory: Path,
        core: int | None,
        cards: int,
        vfs: int,
        *,
        host: bool,
        shared: bool,
        model: str = "82599",
        polled: bool = True,
    ) -> None:
        self._directory = directory
        self._model = model
        self._servers: list[Server] = []
        if core is not None:
            pin(core)
        rounds = SHARED_QUIET_ROUNDS if shared else QUIET_ROUNDS
        functions = [functions_of(vfs, host_function=host)] * cards
        self._engine = Engine(functions, pin=core, quiet_rounds=rounds, polled=polled)
        self._vfs, self._host = vfs, host
        self._cards: list[Card] = []
        self._count = cards

    def do_open(self, line_rate_bps: int | None, name: str) -> list[dict[str, str]]:
        """Build, link, serve. Returns, for each card, its sockets by function ("0", "1", …, "host")."""
        allow_descriptors()
        for number in range(self._count):
            self._cards.append(
                Card(
                    self._engine,
                    number,
                    f"{name}{number + 1}",
                    self._vfs,
                    line_rate_bps=line_rate_bps,
                    model=self._model,
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

    def do_allow(self, card: int, allowance: str) -> None:
        """allowance: as text, as `vfwire card --allowance` takes it."""
        allow(self._cards[card], parse_allowance(allowance))

    def do_count(self) -> dict[str, Any]:
        """What the functions in use have counted: a broadcast's copy for a VF without a driver is nobody's loss."""
        total: dict[str, Any] = {"copied": 0, "notified": 0, "traps": 0, "drops": {}}
        for card in self._cards:
            for used in (function for function in card.functions if function.attached):
                function = card.function_counters(used)
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


class LayerRole:
    """A virtualization layer, with the host's own function on the card where there is an uplink."""

    busy = False

    def __init__(self, core: int, listen: Path) -> None:
        pin(core)
        self._listen = listen
        self._pool: Pool | None = None
        self._uplink: FunctionDriver | None = None
        self._layer: VirtualizationLayer | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def do_open(
        self, uplink: str | None, cap_bps: int | None, ring_size: int, learning: bool, vlans: list[int]
    ) -> str:
        """Bring the uplink up, then serve netfronts. Returns the socket that they connect to."""
        if uplink is not None:
            self._pool = Pool()
            function = VfioUserFunction(Path(uplink), wait=5.0)
            nic = open_driver(function, self._pool, ring_size=ring_size, vlan_strip=False)
            self._uplink = nic
            nic.wait_link_up()
            nic.hear_everything(vlans)
        self._layer = VirtualizationLayer(
            self._listen,
            self._uplink,
            cap_bps,
            uplink_event=self._uplink.enable_receive_events() if self._uplink else None,
            uplink_arm=self._uplink.arm_receive_events if self._uplink else None,
            spin_ns=SPIN_NS,
            learning=learning,
        )
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._layer, ready), name="vfwire-layer")
        self._thread.start()
        if not ready.wait(_READY_SECONDS):
            raise WaitTimeout(f"the layer was not ready in {_READY_SECONDS:g} s")
        if self._failure is not None:
            raise self._failure
        return str(self._listen)

    def _run(self, layer: VirtualizationLayer, ready: threading.Event) -> None:
        try:
            switch_lightly()
            layer.run(ready.set)
        except BaseException as error:
            self._failure = error
            _log.debug("the layer ended by an error", exc_info=True)
        finally:
            ready.set()

    def do_count(self) -> dict[str, Any]:
        if self._failure is not None:
            raise VfwireError(f"the layer has ended: {self._failure}")
        if self._layer is None:
            raise VfwireError("this layer is not open yet")
        found = self._layer.stats()
        return {
            "copied": found["copied_bytes"],
            "notified": found["notifications_sent"],
            "traps": 0,
            "frames": found["to_vifs_frames"] + found["to_uplink_frames"],
            "drops": found["drops"],
        }

    def close(self) -> None:
        if self._layer is not None and self._thread is not None:
            self._layer.stop()
            self._thread.join(_READY_SECONDS)
        if self._uplink is not None:
            self._uplink.close()
        if self._pool is not None:
            self._pool.close()


class SystemRole:
    """A system: memory of its own, one driver, one application at a time."""

    busy = True

    def __init__(
        self, core: int, number: int, boards: tuple[Board, Board], packed: Packed | None, shared: bool
    ) -> None:
        pin(core)
        switch_lightly()
        self._spin = applications.NO_SPIN if shared else applications.SPIN
        self._board = boards[number]
        self._other = boards[1 - number]
        self._number = number
        self._packed = packed
        self._pool: Pool | None = None
        self._driver: Driver | None = None
        self._function: VfioUserFunction | None = None

    def do_open(self, driver: str, socket: str, **options: Any) -> dict[str, Any]:
        """Bring the driver up, with the options that a VF's takes. Returns its name, MAC in hex and ring size."""
        if driver == NETFRONT:
            self._pool = Netfront.new_pool()
            self._driver = Netfront.open(Path(socket), self._pool)
        else:
            self._pool = Pool()
            self._function = VfioUserFunction(Path(socket), wait=5.0)
            strip = self._packed is None
            nic = open_driver(self._function, self._pool, vlan_strip=strip, **options)
            self._driver = nic
            nic.wait_link_up()
            if self._packed is not None and self._number == 1:
                wanted = addresses_of(self._packed)
                nic.hear(wanted.macs, wanted.vlans)
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
        applications.echo(self._opened(), self._board, spin=self._spin)

    def do_ping(self, near: list[str], far: list[str], **options: Any) -> int:
        options.setdefault("spin", self._spin)
        return applications.ping(self._opened(), self._board, _station(near), _station(far), **options)

    def do_stats(self) -> dict[str, int]:
        """What `ethtool -S` would show."""
        return self._opened().stats()

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
