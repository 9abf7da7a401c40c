"""Two guests side by side, joined by several networks at once: a card, QEMU's own network, a Linux bridge.

The same two guests on every network, so that only what lies between them differs.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vfwire.errors import PermissionDenied, UnsupportedMachine, VfwireError
from vfwire.guests.bridge import Bridge
from vfwire.guests.guest import Guest
from vfwire.guests.image import Image
from vfwire.guests.machine import Machine
from vfwire.guests.qemu import Qemu
from vfwire.paths.process import Child, Family
from vfwire.paths.roles import CardRole

NAMES = ("vm1", "vm2")
READY_SECONDS = 120.0
APPEND = "quiet cryptomgr.notests=1"  # less to wait for at boot; the same for all


@dataclass(frozen=True, slots=True)
class Network:
    """One way from guest to guest. path: "default" or "enhanced". via: what it is. number: of its interface, ethN."""

    path: str
    via: str
    number: int

    @property
    def interface(self) -> str:
        return f"eth{self.number}"

    def address(self, guest: int) -> str:
        """The IPv4 address of guest 0 or 1 on it."""
        return f"10.82.{self.number}.{guest + 1}"


@dataclass(frozen=True, slots=True)
class PairOptions:
    """line_rate_bps: of the card's functions, None when lifted."""

    line_rate_bps: int | None
    vcpus: int = 1
    memory_mib: int = 256


class GuestPair:
    """Fork the card first (here), then `open`; use as a context manager. Raises what Guest raises.

    networks: those there are, in the order of the interfaces. left_out: those there are not, and why.
    """

    def __init__(self, family: Family, image: Image, qemu: Qemu, options: PairOptions) -> None:
        self.family = family
        self.options = options
        self.networks: list[Network] = []
        self.left_out: dict[str, str] = {}
        self.guests: list[Guest] = []
        self._image = image
        self._qemu = qemu
        self._open = contextlib.ExitStack()
        directory = family.directory.path
        self.card: Child = family.fork(
            "guests' card", lambda: CardRole(directory, None, 1, 2, host=False, shared=True)
        )

    def open(self, tell: Callable[[str], None]) -> None:
        """Start card and guests, and wait until both take commands. `tell` is given each step."""
        tell("starting the card")
        (sockets,) = self.family.call(
            self.card, "open", line_rate_bps=self.options.line_rate_bps, name="guests"
        )
        ends = [Path(sockets[key]) for key in sorted(sockets)]
        nics = self._join()
        addresses = [
            tuple(f"{network.interface}:{network.address(guest)}/24" for network in self.networks)
            for guest in range(len(NAMES))
        ]
        for number, name in enumerate(NAMES):  # the second dials the first's socket
            tell(f"starting {name}")
            machine = Machine(
                name,
                kernel=self._image.kernel,
                initrds=(self._image.initrd,),
                functions=(ends[number],),
                nics=tuple(texts[number] for texts in nics),
                addresses=addresses[number],
                vcpus=self.options.vcpus,
                memory_mib=self.options.memory_mib,
                append=APPEND,
            )
            self.guests.append(self._open.enter_context(Guest(machine, qemu=self._qemu)))
        for guest in self.guests:
            tell(f"booting {guest.machine.name}")
            guest.wait_ready(READY_SECONDS)

    def _join(self) -> list[tuple[str, str]]:
        """Note the networks; returns -netdev texts for both guests of each that is not the card."""
        self.networks.append(Network("enhanced", "82599 VF", 0))
        socket = self.family.directory.path / "net"
        nics = [tuple(f"stream,server={on},addr.type=unix,addr.path={socket}" for on in ("on", "off"))]
        self.networks.append(Network("default", "virtio-net, QEMU stream", 1))
        via = "virtio-net, tap and bridge"
        try:
            bridge = self._open.enter_context(Bridge(len(NAMES)))
        except (PermissionDenied, UnsupportedMachine) as error:
            self.left_out[via] = str(error)
        else:
            nics.append(tuple(bridge.netdev(guest) for guest in range(len(NAMES))))
            self.networks.append(Network("default", via, 2))
        return [(first, second) for first, second in nics]

    @property
    def accelerators(self) -> list[str]:
        return sorted({guest.accelerator for guest in self.guests})

    def count(self) -> dict[str, Any]:
        """What the card has counted so far (see paths.roles.CardRole.do_count)."""
        counted: dict[str, Any] = self.family.call(self.card, "count")
        return counted

    def check(self) -> None:
        """Raises PeerGone, with the reason, when the card or a guest has ended."""
        self.family.check()
        for guest in self.guests:
            if not guest.alive:
                raise guest.end or VfwireError(f"{guest.machine.name} has ended")

    def close(self) -> None:
        """End guests, bridge and card. Safe to call twice."""
        self._open.close()
        self.family.close([self.card] if self.card in self.family.children else [])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_table_order(networks: Sequence[Network]) -> list[Network]:
    """Default first, as everywhere."""
    return sorted(networks, key=lambda network: (network.path, network.number))
