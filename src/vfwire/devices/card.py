"""A card: one PF's resources, its virtual functions, the switch between them, and the uplink.

No guest sees the PF. Whoever runs the card sets its functions up through `change`, as `ip link set … vf` does
through a PF's driver, and takes counters from it. Sockets are not its business (devices/hosting.py).
"""

import re
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from vfwire.datapath.rss import KEY_BYTES, build_toeplitz_table
from vfwire.datapath.state import DROP_NAMES, NOWHERE, RETA_ENTRIES, Drop
from vfwire.datapath.switch import forget_paths
from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.engine import Engine
from vfwire.devices.function import CardFunction
from vfwire.devices.models import Model, model_named
from vfwire.devices.pf_port import SMALLEST_MTU, CardFacts, PfPort
from vfwire.devices.settings import (
    NO_MAC,
    VfSettings,
    change_settings,
    default_mac,
    format_mac,
    parse_mac,
)
from vfwire.devices.ticker import Ticker
from vfwire.errors import UsageError
from vfwire.layouts.ixgbe_mailbox import API_15, API_17, API_20, API_NAMES

MOST_VFS = 63
MODEL_RATE = -1  # as line_rate_bps: the model's own
_TICK_SECONDS = 0.25
_HOST = "host"
_UNLIMITED_MBPS = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}")


def functions_of(vfs: int, *, host_function: bool = False) -> int:
    """How many functions an `Engine` has to keep for such a card."""
    return vfs + int(host_function)


def api_number(name: str) -> int:
    """The mailbox's number of an API version ("1.3"). Raises UsageError."""
    allowed = [text for text in API_NAMES if API_NAMES.index(text) not in (API_20, API_15)]
    if name not in allowed:
        raise UsageError(f"{name!r} is no mailbox API version", f"choose among {', '.join(allowed)}")
    return API_NAMES.index(name)


class Card:
    """Card `number` of an engine. Build it before the engine starts, or while it runs.

    model: a row of devices/models.py; ena: what an ENA shall be. vfs: 1 to 63. mtu: 68 to the model's largest
    (its own when None); above 1,500 an 82599 card is a jumbo one. line_rate_bps: of the uplink and of each
    function, None when lifted. host_function: one more function, the last pool, that belongs to the host
    itself. mac_prefix: the first five bytes of its functions' MACs (default: locally administered, from the
    name). api_ceiling: the highest mailbox API that the PF accepts. rss_key: 40 bytes, random when None, as
    Linux's PF has it. exact: see devices/ixgbevf.py. Raises UsageError.
    """

    def __init__(
        self,
        engine: Engine,
        number: int,
        name: str,
        vfs: int,
        *,
        mtu: int | None = None,
        line_rate_bps: int | None = MODEL_RATE,
        mac_prefix: bytes | None = None,
        host_function: bool = False,
        api_ceiling: str = API_NAMES[API_17],
        rss_key: bytes | None = None,
        exact: bool = False,
        model: str = "82599",
        ena: EnaOptions | None = None,
    ) -> None:
        self.kind = model_named(model)
        mtu = self.kind.mtu if mtu is None else mtu
        rate_bps = (self.kind.line_rate_bps if line_rate_bps == MODEL_RATE else line_rate_bps) or 0
        _check(name, vfs, mtu, rate_bps, self.kind, mac_prefix, rss_key)
        self.engine = engine
        self.number = number
        self.name = name
        self.model = model
        self._ena = ena or EnaOptions()
        self.facts = CardFacts(
            number=number,
            name=name,
            vfs=vfs,
            mtu=mtu,
            queues=self.kind.queues(vfs, self._ena),
            rate_bps=rate_bps,
            api_ceiling=api_number(api_ceiling),
            rss_key=rss_key or secrets.token_bytes(KEY_BYTES),
            reta=tuple(entry % 4 for entry in range(RETA_ENTRIES)),
            filters=self.kind.filters,
        )
        first, count = self._enter_tables()
        if count < functions_of(vfs, host_function=host_function):
            raise UsageError(f"the engine keeps {count} functions for card {number}, which is too few")
        self._mac_prefix = mac_prefix
        self.vfs = [self._new_function(first, pool, exact=exact) for pool in range(vfs)]
        self.host = self._new_function(first, vfs, exact=exact, host=True) if host_function else None
        ticks = [function.tick for function in self.functions]
        self._clock = Ticker(_TICK_SECONDS, ticks) if self.kind.clocked else None

    def _enter_tables(self) -> tuple[int, int]:
        with self.engine.parked() as state:
            record = state.cards[self.number]
            record.rate_bps = self.facts.rate_bps
            key = np.frombuffer(self.facts.rss_key, np.uint8)
            first, count = int(record.first), int(record.functions)
            state.toeplitz[first : first + count] = build_toeplitz_table(key)
            state.reta[first : first + count] = self.facts.reta
            return first, count

    def _new_function(self, first: int, pool: int, *, exact: bool, host: bool = False) -> CardFunction:
        mac = default_mac(self.name, pool) if self._mac_prefix is None else self._mac_prefix + bytes([pool])
        settings = VfSettings(mac=mac, spoofchk=not host, trust=host)
        port = PfPort(self.engine, self.facts, first + pool, pool, settings, host=host)
        name = f"{self.name}/{_HOST if host else pool}"
        return self.kind.build(self.engine, first + pool, port, name, exact, self._ena)

    @property
    def functions(self) -> list[CardFunction]:
        """All of them: the VFs, then the host's own where there is one."""
        return [*self.vfs, *([self.host] if self.host else [])]

    def function(self, index: int | str) -> CardFunction:
        """VF `index`, or the host's function by the name "host". Raises UsageError."""
        if index == _HOST and self.host:
            return self.host
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.vfs):
            raise UsageError(f"{self.name} has no VF {str(index)[:20]}", f"it has 0 to {len(self.vfs) - 1}")
        return self.vfs[index]

    # --- Settings ------------------------------------------------------------------------------------------

    def settings(self, index: int | str) -> VfSettings:
        return self.function(index).port.settings

    def change(self, index: int | str, changes: Mapping[str, Any]) -> VfSettings:
        """Change a VF's settings while traffic runs (names and values as in devices/settings.py).

        The guest is told what an 82599's PF tells it: a new link state or trust takes its CTS away and makes
        it reset; a new MAC takes effect at once, and its driver learns of it when it resets. Raises
        UsageError, nothing changed.
        """
        function = self.function(index)
        port = function.port
        limit = self.facts.rate_bps // 1_000_000 or _UNLIMITED_MBPS
        with function.lock, self.engine.parked():
            function.check_changes(changes)
            old = port.settings
            new = change_settings(old, changes, limit)
            if new.mac not in (old.mac, NO_MAC) and port.owned_by_another(new.mac):
                raise UsageError(f"{format_mac(new.mac)} belongs to another function of {self.name}")
            port.settings = new
            port.apply(old)
        if (new.trust, new.state) != (old.trust, old.state):
            function.tell(restart=True)
        return new

    # --- Link ----------------------------------------------------------------------------------------------

    @property
    def link_up(self) -> bool:
        return bool(self.engine.state.cards[self.number].link_up)

    def set_link(self, up: bool) -> None:
        """The uplink has come up or gone down. Functions that follow it are told."""
        with self.engine.parked() as state:
            state.cards[self.number].link_up = int(up)
            for function in self.functions:
                function.port.enter_link()
            forget_paths(state)
        for function in self.functions:
            function.tell()

    def join(self, other: "Card") -> None:
        """Link the uplinks of two cards of one engine: a frame then crosses both in one copy. Raises
        UsageError.
        """
        if other is self or other.engine is not self.engine:
            raise UsageError("a link joins two cards of one process", "for two processes use --link")
        with self.engine.parked() as state:
            for card in (self, other):
                if state.cards[card.number].peer != NOWHERE:
                    raise UsageError(f"{card.name} is linked already")
            state.cards[self.number].peer = other.number
            state.cards[other.number].peer = self.number
        for card in (self, other):
            card.set_link(True)

    def part(self) -> None:
        """Take the link to a card of the same engine away; both ends go down."""
        with self.engine.parked() as state:
            peer = int(state.cards[self.number].peer)
            if peer == NOWHERE:
                return
            state.cards[self.number].peer = state.cards[peer].peer = NOWHERE
            state.cards[peer].link_up = 0
            forget_paths(state)
        self.set_link(False)

    # --- What it says of itself ----------------------------------------------------------------------------

    def address(self, pool: int) -> str:
        """As lspci would name it: the VFs of an 82599 lie 128 routing IDs after their PF, two apart."""
        routing = 128 + 2 * pool
        return f"0000:{self.number + 1:02x}:{routing >> 3:02x}.{routing & 7}"

    def describe(self) -> dict[str, Any]:
        """Everything that `vfwire vf show` shows, as JSON."""
        vfs = []
        for function in self.functions:
            port = function.port
            vfs.append(
                {
                    "vf": _HOST if port.host else port.pool,
                    "name": function.name,
                    "address": self.address(port.pool),
                    "model": function.pci_id,
                    "queues": self.facts.queues,
                    "in_use": function.attached,
                    "active_mac": format_mac(port.mac),
                    "link_up": bool(self.engine.state.functions[port.function].link_up),
                    **function.describe(),
                    **port.settings.to_json(),
                }
            )
        return {
            "card": self.name,
            "model": self.model,
            "mtu": self.facts.mtu,
            "line_rate_bps": self.facts.rate_bps or None,
            "link_up": self.link_up,
            "vfs": vfs,
        }

    def counters(self) -> dict[str, Any]:
        """Counters since the start: of the card, of the loop (of all cards of the process), and of each
        function.
        """
        state = self.engine.state
        record, control = state.cards[self.number], state.control[0]
        own = ("loopback", "link_frames", "link_bytes", "link_in_frames", "unknown")
        loop = ("rounds", "busy_rounds", "sleeps", "nap_ns", "spin_ns")
        return {
            "card": self.name,
            **{name: int(record[name]) for name in own},
            "loop": {name: int(control[name]) for name in loop},
            "vfs": {
                function.name.split("/")[-1]: self.function_counters(function) for function in self.functions
            },
        }

    def function_counters(self, function: CardFunction) -> dict[str, Any]:
        """One function's: frames, bytes, drops by cause (only those that happened), interrupts, traps, copied
        bytes.
        """
        state, number = self.engine.state, function.port.function
        record = state.functions[number]
        names = (
            *("tx_frames", "tx_bytes", "rx_frames", "rx_bytes", "rx_multicast"),
            *("copied", "interrupts", "bad_dma", "throttled"),
        )
        drops = {DROP_NAMES[cause]: int(state.drops[number, cause]) for cause in Drop}
        return {
            **{name: int(record[name]) for name in names},
            **function.counters(),
            "drops": {cause: count for cause, count in drops.items() if count},
            "fault": DROP_NAMES[Drop(int(record.fault))] if record.fault >= 0 else None,
        }

    def close(self) -> None:
        """Take all functions out, and the link down."""
        self.engine.end_idle_watch()
        if self._clock is not None:
            self._clock.close()
        self.part()
        for function in self.functions:
            function.close()
        self.facts.ports.clear()


def _check(
    name: str,
    vfs: int,
    mtu: int,
    rate_bps: int,
    kind: Model,
    mac_prefix: bytes | None,
    rss_key: bytes | None,
) -> None:
    if not 1 <= vfs <= MOST_VFS:
        raise UsageError(f"a card has 1 to {MOST_VFS} VFs, not {vfs}")
    if not SMALLEST_MTU <= mtu <= kind.largest_mtu:
        raise UsageError(f"this card's MTU is {SMALLEST_MTU} to {kind.largest_mtu}, not {mtu}")
    if rate_bps > kind.most_bps:
        raise UsageError(f"this card's line rate is at most {kind.most_bps // 10**9}G, or off")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:40]!r} is no name for a card", "use letters, digits, - and _")
    if mac_prefix is not None:
        if len(mac_prefix) != 5:
            raise UsageError("a MAC prefix has five bytes")
        parse_mac(format_mac(mac_prefix + b"\x00"))
    if rss_key is not None and len(rss_key) != KEY_BYTES:
        raise UsageError(f"an RSS key has {KEY_BYTES} bytes")
