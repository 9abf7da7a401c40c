"""Two guests side by side, joined by several networks at once: cards, QEMU's own network, a Linux bridge.

The same two guests on every network, so that only what lies between them differs.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
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
MODELS = {"82599": 10_000_000_000, "ena": 100_000_000_000}
"""What cards there are, each with a VF for either guest, and their line rate in bits a second unless said otherwise."""
_NAME_INTERFACES = """number=0
for entry in /sys/class/net/*; do
    [ -e $entry/device ] && echo $(readlink -f $entry/device) ${{entry##*/}}
done | sort | while read -r path name; do
    ip link set $name down
    ip link set $name name net$number
    ip address add 10.82.$number.{host}/24 dev net$number
    ip link set net$number up
    echo net$number
    number=$((number + 1))
done"""
APPEND = "quiet cryptomgr.notests=1"  # less to wait for at boot; the same for all


@dataclass(frozen=True, slots=True)
class Network:
    """One way from guest to guest. path: "default" or "enhanced". via: what it is. number: of its interface, netN.

    model: of the card, "" where there is none.
    """

    path: str
    via: str
    number: int
    model: str = ""

    @property
    def interface(self) -> str:
        return f"net{self.number}"

    def address(self, guest: int) -> str:
        """The IPv4 address of guest 0 or 1 on it."""
        return f"10.82.{self.number}.{guest + 1}"


@dataclass(frozen=True, slots=True)
class PairOptions:
    """line_rate_bps: of each card's functions, by MODELS; None when lifted."""

    line_rate_bps: Mapping[str, int | None]
    vcpus: int = 1
    memory_mib: int = 256


class GuestPair:
    """Fork the cards first (here), then `open`; use as a context manager. Raises what Guest raises.

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
        self.cards: dict[str, Child] = {model: self._fork_card(model) for model in options.line_rate_bps}

    def _fork_card(self, model: str) -> Child:
        directory = self.family.directory.path
        return self.family.fork(
            f"{model} card",
            lambda: CardRole(directory, None, 1, 2, host=False, shared=True, model=model, polled=False),
        )

    def open(self, tell: Callable[[str], None]) -> None:
        """Start cards and guests, and wait until both take commands. `tell` is given each step."""
        tell("starting the cards")
        functions = [self._open_card(model, card) for model, card in self.cards.items()]
        nics = self._join()
        for number, name in enumerate(NAMES):  # the second dials the first's socket
            tell(f"starting {name}")
            machine = Machine(
                name,
                kernel=self._image.program,
                initrds=(self._image.initrd,),
                functions=tuple(ends[number] for ends in functions),
                nics=tuple(texts[number] for texts in nics),
                vcpus=self.options.vcpus,
                memory_mib=self.options.memory_mib,
                append=APPEND,
            )
            self.guests.append(self._open.enter_context(Guest(machine, qemu=self._qemu)))
        for number, guest in enumerate(self.guests):
            tell(f"booting {guest.machine.name}")
            guest.wait_ready(READY_SECONDS)
            self._name_interfaces(guest, number)

    def _name_interfaces(self, guest: Guest, number: int) -> None:
        """netN in the order of the slots, whichever driver came first; and their addresses."""
        found = guest.check(_NAME_INTERFACES.format(host=number + 1)).split()
        if found != [network.interface for network in self.networks]:
            raise UnsupportedMachine(
                f"{guest.machine.name} has drivers for {len(found)} of {len(self.networks)} interfaces",
                "its kernel wants ixgbevf, ena and virtio_net",
            )

    def _open_card(self, model: str, card: Child) -> list[Path]:
        """Note its network; returns the sockets of both VFs."""
        rate = self.options.line_rate_bps[model]
        (sockets,) = self.family.call(card, "open", line_rate_bps=rate, name=model)
        via = "82599 VF" if model == "82599" else "ENA VF"
        self.networks.append(Network("enhanced", via, len(self.networks), model))
        return [Path(sockets[key]) for key in sorted(sockets)]

    def _join(self) -> list[tuple[str, str]]:
        """Note the networks without a card; returns -netdev texts for both guests of each."""
        socket = self.family.directory.path / "net"
        nics = [tuple(f"stream,server={on},addr.type=unix,addr.path={socket}" for on in ("on", "off"))]
        self.networks.append(Network("default", "virtio-net, QEMU stream", len(self.networks)))
        via = "virtio-net, tap and bridge"
        try:
            bridge = self._open.enter_context(Bridge(len(NAMES)))
        except (PermissionDenied, UnsupportedMachine) as error:
            self.left_out[via] = str(error)
        else:
            nics.append(tuple(bridge.netdev(guest) for guest in range(len(NAMES))))
            self.networks.append(Network("default", via, len(self.networks)))
        return [(first, second) for first, second in nics]

    @property
    def accelerators(self) -> list[str]:
        return sorted({guest.accelerator for guest in self.guests})

    def count(self, network: Network) -> dict[str, Any]:
        """What its card has counted so far (see paths.roles.CardRole.do_count): nothing, where there is none."""
        if not network.model:
            return {"copied": 0, "notified": 0, "traps": 0, "drops": {}}
        counted: dict[str, Any] = self.family.call(self.cards[network.model], "count")
        return counted

    def card_cpu_ns(self, network: Network) -> int:
        """CPU time of its card so far, 0 where there is none."""
        return self.cards[network.model].cpu_ns() if network.model else 0

    def check(self) -> None:
        """Raises PeerGone, with the reason, when a card or a guest has ended."""
        self.family.check()
        for guest in self.guests:
            if not guest.alive:
                raise guest.end or VfwireError(f"{guest.machine.name} has ended")

    def close(self) -> None:
        """End guests, bridge and cards. Safe to call twice."""
        self._open.close()
        self.family.close([card for card in self.cards.values() if card in self.family.children])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_table_order(networks: Sequence[Network]) -> list[Network]:
    """Default first, as everywhere."""
    return sorted(networks, key=lambda network: (network.path, network.number))
