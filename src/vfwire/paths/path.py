"""A path as its parent process sees it: two systems, a card, perhaps virtualization layers; and what joins
them.

`EnhancedPath` and `DefaultPath` (enhanced.py, default.py) say which processes there are and how they are
opened; all else is the same for both, because only the stop in between may differ.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from vfwire.datapath import application as words
from vfwire.paths.applications import Packed, StreamOptions
from vfwire.paths.board import Board
from vfwire.paths.counters import Counters
from vfwire.paths.flow import Station, station
from vfwire.paths.pinning import SYSTEMS, place, shares_core, usable_cores
from vfwire.paths.process import Child, Family
from vfwire.paths.replay import addresses_of
from vfwire.paths.roles import SystemRole

LINE_RATE = 10_000_000_000
DEFAULT_CAP = 5_000_000_000
RING_SIZE = 1024
_START_SECONDS = 5.0
_LEARN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PathOptions:
    """line_rate_bps: of links and functions, None when lifted. default_cap_bps: of the default path,
    likewise.

    llq: bytes of an entry of the ENA's low-latency queues, 0 for transmit rings in host memory. replay: frames that
    both systems know before they start.
    """

    same_host: bool = False
    line_rate_bps: int | None = LINE_RATE
    default_cap_bps: int | None = DEFAULT_CAP
    ring_size: int = RING_SIZE
    queues: int = 1
    llq: int = 0
    replay: Packed | None = None


class System:
    """One end of a path: its process, its board, and, once open, its station and driver."""

    def __init__(self, child: Child, board: Board, number: int) -> None:
        self.child = child
        self.board = board
        self.number = number
        self.driver = ""
        self.ring_size = 0
        self.station = Station(bytes(6), bytes(4))

    def opened(self, answer: dict[str, Any]) -> None:
        self.driver = answer["driver"]
        self.ring_size = answer["ring_size"]
        self.station = station(bytes.fromhex(answer["mac"]), self.number + 1)


class Path(ABC):
    """Fork first, all paths of a run; then `open`. Between the two the parent may not start threads."""

    name: str
    title: str = ""  # what tells it from other paths of its name: its processes and sockets are called so
    layer_count: int

    def __init__(self, family: Family, options: PathOptions) -> None:
        if options.replay is not None:
            addresses_of(options.replay)
        self.family = family
        self.options = options
        self.title = self.title or self.name
        self.cores = place(self.layer_count, usable_cores())
        self._boards = (Board(), Board())
        self.card = self._fork_card()
        self.layers = self._fork_layers()
        self.systems = (self._fork_system(0), self._fork_system(1))
        self.first_packet_at: float | None = None  # seconds of CLOCK_BOOTTIME
        self._sequence = 0
        self.is_open = False
        self._closed = False

    @abstractmethod
    def _fork_card(self) -> Child: ...

    def _fork_layers(self) -> list[Child]:
        return []

    @abstractmethod
    def _open(self) -> None: ...

    def open(self) -> None:
        """Bring everything up, to the point where frames can be sent; nothing the second time. Raises what the
        processes raise.
        """
        if not self.is_open:
            self._open()
            self.is_open = True

    def _fork_system(self, number: int) -> System:
        boards, packed = self._boards, self.options.replay
        core, shared = self.cores[SYSTEMS[number]], shares_core(self.cores, SYSTEMS[number])
        child = self.family.fork(
            f"{self.title} {SYSTEMS[number]}", lambda: SystemRole(core, number, boards, packed, shared)
        )
        return System(child, boards[number], number)

    def _open_systems(self, driver: str, sockets: tuple[str, str], **options: int) -> None:
        for system, socket in zip(self.systems, sockets, strict=True):
            self.family.send(
                system.child,
                "open",
                driver=driver,
                socket=socket,
                **options,
            )
        for system in self.systems:
            system.opened(self.family.wait_answer(system.child))

    @property
    def children(self) -> list[Child]:
        return [self.card, *self.layers, *(system.child for system in self.systems)]

    def count(self) -> Counters:
        """What all processes have counted so far. Only between streams: a busy system does not answer."""
        return Counters.of([self.family.call(child, "count") for child in self.children])

    def count_drops(self) -> int:
        """Frames that the card and the layers have dropped so far; they answer while systems are busy."""
        parts = [self.family.call(child, "count") for child in (self.card, *self.layers)]
        return Counters.of(parts).drops.total()

    def next_sequence(self, flows: int) -> int:
        """A first sequence number that no earlier stream of this path has come near."""
        self._sequence += 1 << 44
        return self._sequence // flows * flows

    def start(self, system: System, verb: str, **arguments: Any) -> None:
        """Start an application on a system, and wait until its loop runs."""
        system.board.clear()
        self.family.send(system.child, verb, **arguments)
        self.family.wait_until(
            lambda: system.board.read(words.PHASE) >= words.RUNNING or system.child.answered,
            _START_SECONDS,
            f"the start of {verb} on {system.child.name}",
        )

    def start_stream(self, system: System, options: dict[str, Any], *, replay: bool = False) -> None:
        """Start a stream between this system and the other one (options: StreamOptions' fields)."""
        StreamOptions(**options)
        other = self.systems[1 - system.number]
        self.start(
            system,
            "stream",
            options=options,
            near=_text(system.station),
            far=_text(other.station),
            replay=replay,
        )

    def start_ping(self, **options: Any) -> None:
        """Start pinging from system 1 to system 2, where `start_echo` has to run."""
        one, other = self.systems
        self.start(one, "ping", near=_text(one.station), far=_text(other.station), **options)

    def start_echo(self) -> None:
        self.start(self.systems[1], "echo")

    def stop(self, system: System, level: int) -> None:
        """1: send no more. 2: end now."""
        system.board.write(words.STOP, level)

    def wait_end(self, system: System) -> Any:
        """The answer of the application that ran."""
        return self.family.wait_answer(system.child)

    def learn(self) -> None:
        """Send a few round trips, so that every switch and bridge on the way knows both systems."""
        self.start_echo()
        self.start_ping(count=3, seconds=_LEARN_SECONDS, first=self.next_sequence(1))
        self.wait_end(self.systems[0])
        self.stop(self.systems[1], 2)
        self.wait_end(self.systems[1])

    def close(self) -> None:
        """End this path's processes; safe when some are gone, and safe twice."""
        if self._closed:
            return
        self._closed = True
        for system in self.systems:
            system.board.write(words.STOP, 2)
        self.family.close(self.children)
        for system in self.systems:
            system.board.close()


def _text(end: Station) -> list[str]:
    return [end.mac.hex(), end.ip.hex()]
