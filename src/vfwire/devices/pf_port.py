"""What the card's PF keeps for one function, and enters into the switch for it: MACs, VLANs, groups, sizes,
rates.

The limits are the 82599's: 128 receive addresses (RAR), of which the PF keeps 16 and each VF one; 64 VLAN
pool filters (VLVF). Sources: Linux ixgbe_sriov.c (what a PF does on a VF's behalf), 82599 datasheet 7.10.3.
"""

from dataclasses import dataclass, field

import numpy as np

from vfwire.datapath.control_words import row_of
from vfwire.datapath.switch import forget_paths, set_mac, set_vlan
from vfwire.devices.engine import Engine
from vfwire.devices.settings import NO_MAC, VfSettings, mac_to_int
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts.ethernet import ETHERNET_BYTES, FCS_BYTES, STANDARD_MTU, VLAN_ID_MASK, VLAN_PRIORITY_SHIFT

RECEIVE_ADDRESSES = 128
_PF_ADDRESSES = 16
VLAN_FILTERS = 64
SMALLEST_MTU = 68  # bytes: what IPv4 asks for (RFC 791)
STANDARD_FRAME = STANDARD_MTU + ETHERNET_BYTES


@dataclass(slots=True)
class CardFacts:
    """What all functions of one card share. rate_bps: of the line, 0 when lifted."""

    number: int
    name: str
    vfs: int
    mtu: int
    queues: int
    rate_bps: int
    api_ceiling: int
    rss_key: bytes
    reta: tuple[int, ...]
    filters: bool = (
        True  # its drivers ask for VLANs, groups, sizes; an ENA has them all, and all MACs where trusted
    )
    macvlans_left: int = 0
    ports: list["PfPort"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.macvlans_left = max(0, RECEIVE_ADDRESSES - _PF_ADDRESSES - self.vfs)

    @property
    def jumbo(self) -> bool:
        return self.mtu > STANDARD_MTU


class PfPort:
    """The PF's record of the function with number `function` in the engine's state, `pool` on its card.

    `host` marks the host's own function: trusted, not spoof-checked, and allowed to be promiscuous.
    """

    def __init__(
        self, engine: Engine, facts: CardFacts, function: int, pool: int, settings: VfSettings, *, host: bool
    ) -> None:
        self.engine = engine
        self.facts = facts
        self.function = function
        self.pool = pool
        self.settings = settings
        self.host = host
        self.record = row_of(engine.state.functions, function)
        self.mac = NO_MAC
        self.api = msg.API_10
        self.clear_to_send = False
        self.xcast = msg.XCAST_MODE_NONE
        self._hashes: tuple[int, ...] = ()
        self._multicast_on = False
        self._macvlans: list[bytes] = []
        self._vlans: set[int] = set()
        facts.ports.append(self)
        with engine.parked() as state:
            self._enter_port_vlan()
            forget_paths(state)

    # --- Life ----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """The function was reset: what its driver had asked for is gone, what the operator set holds."""
        self.api = msg.API_10
        self.xcast = msg.XCAST_MODE_NONE
        self._hashes, self._multicast_on = (), False
        with self.engine.parked() as state:
            self._drop_macvlans()
            for vlan in list(self._vlans):
                self._leave_vlan(vlan)
            if self.mac != self.settings.mac:
                self._enter_mac(self.settings.mac)
            self._enter_groups()
            self.record["spoof_check"] = int(self.settings.spoofchk)
            self.record["max_frame"] = self._first_longest_frame()
            forget_paths(state)

    def _first_longest_frame(self) -> int:
        if not self.facts.filters:
            return self.facts.mtu + ETHERNET_BYTES
        return 0 if self.facts.jumbo else STANDARD_FRAME

    def apply(self, old: VfSettings) -> None:
        """Bring the switch from the old settings to `self.settings`, while traffic runs."""
        new = self.settings
        with self.engine.parked() as state:
            if new.mac != old.mac:
                self._enter_mac(new.mac)
            if (new.vlan, new.qos) != (old.vlan, old.qos):
                for vlan in list(self._vlans) if new.vlan else []:
                    self._leave_vlan(vlan)
                set_vlan(state, self.facts.number, old.vlan, self.pool, False)
                self._enter_port_vlan()
            if new.spoofchk != old.spoofchk:
                self.record["spoof_check"] = int(new.spoofchk)
            self._enter_groups()
            self.enter_link()
            self.enter_rate()
            forget_paths(state)

    def enter_link(self) -> None:
        """Work out whether this function's link is up. `auto` follows the card's own."""
        with self.engine.parked() as state:
            card_up = bool(row_of(state.cards, self.facts.number)["link_up"])
            forced = self.settings.state
            self.record["link_up"] = int(card_up if forced == "auto" else forced == "enable")
            forget_paths(state)

    def enter_rate(self) -> None:
        """The lower of the line rate and max_tx_rate."""
        limit = self.settings.max_tx_rate * 1_000_000
        rates = [rate for rate in (self.facts.rate_bps, limit) if rate]
        with self.engine.parked():
            self.record["rate_bps"] = min(rates, default=0)
            self.record["credit"] = 0

    # --- MAC addresses -------------------------------------------------------------------------------------

    def use_mac(self, mac: bytes) -> bool:
        """Make `mac` the function's address (NO_MAC: none). False when the switch has no room for it."""
        with self.engine.parked() as state:
            entered = self._enter_mac(mac)
            forget_paths(state)
        return entered

    def _enter_mac(self, mac: bytes) -> bool:
        state = self.engine.state
        if self.mac != NO_MAC and self.mac not in self._macvlans:
            set_mac(state, self.facts.number, mac_to_int(self.mac), self.pool, False)
        entered = mac == NO_MAC or set_mac(state, self.facts.number, mac_to_int(mac), self.pool, True)
        self.mac = mac if entered else NO_MAC
        self.record["mac"] = mac_to_int(self.mac)
        return entered

    def owned_by_another(self, mac: bytes) -> bool:
        """True when another function of the card has this address."""
        return any(
            port is not self and mac in (port.mac, port.settings.mac, *port._macvlans)
            for port in self.facts.ports
        )

    def add_macvlan(self, mac: bytes, *, first: bool) -> bool:
        """One more address for the function; the first of a new list replaces the old list."""
        with self.engine.parked() as state:
            if first:
                self._drop_macvlans()
            if self.facts.macvlans_left == 0:
                return False
            if not set_mac(state, self.facts.number, mac_to_int(mac), self.pool, True):
                return False
            self._macvlans.append(mac)
            self.facts.macvlans_left -= 1
            # As the PF does: a function with several addresses would trip the check, so it is off until a
            # reset.
            self.record["spoof_check"] = 0
            forget_paths(state)
        return True

    def clear_macvlans(self) -> None:
        with self.engine.parked() as state:
            self._drop_macvlans()
            forget_paths(state)

    def _drop_macvlans(self) -> None:
        for mac in self._macvlans:
            self.facts.macvlans_left += 1
            if mac != self.mac:
                set_mac(self.engine.state, self.facts.number, mac_to_int(mac), self.pool, False)
        self._macvlans = []

    # --- VLANs ---------------------------------------------------------------------------------------------

    def set_vlan(self, vlan: int, *, add: bool) -> bool:
        """A VLAN filter of the guest's own (1 to 4095). False when the card's filters are used up."""
        with self.engine.parked() as state:
            if not add:
                self._leave_vlan(vlan)
            elif vlan not in self._vlans:
                used = {number for port in self.facts.ports for number in port.vlans_in_use}
                if vlan not in used and len(used) >= VLAN_FILTERS - 1:
                    return False
                self._vlans.add(vlan)
                set_vlan(state, self.facts.number, vlan, self.pool, True)
            self.record["vlans"] = int(bool(self._vlans))
            forget_paths(state)
        return True

    @property
    def vlans_in_use(self) -> set[int]:
        return self._vlans | ({self.settings.vlan} if self.settings.vlan else set())

    def _leave_vlan(self, vlan: int) -> None:
        if vlan in self._vlans:
            self._vlans.discard(vlan)
            set_vlan(self.engine.state, self.facts.number, vlan, self.pool, False)
        self.record["vlans"] = int(bool(self._vlans))

    def _enter_port_vlan(self) -> None:
        """In a port VLAN a function has no untagged access of its own: all it sends is tagged, all it gets is
        untagged.
        """
        state, settings = self.engine.state, self.settings
        set_vlan(state, self.facts.number, 0, self.pool, settings.vlan == 0)
        if not self.facts.filters:
            self._enter_every_vlan(settings.vlan == 0)
        if settings.vlan:
            set_vlan(state, self.facts.number, settings.vlan, self.pool, True)
        self.record["port_vlan"] = settings.vlan | settings.qos << VLAN_PRIORITY_SHIFT

    def _enter_every_vlan(self, present: bool) -> None:
        set_vlan(self.engine.state, self.facts.number, slice(1, VLAN_ID_MASK), self.pool, present)

    # --- Groups, sizes -------------------------------------------------------------------------------------

    def set_hashes(self, hashes: tuple[int, ...]) -> None:
        """Replace the multicast hashes (12 bits each) that the function listens to."""
        self._hashes, self._multicast_on = hashes, True
        with self.engine.parked() as state:
            self._enter_groups()
            forget_paths(state)

    def set_xcast(self, mode: int) -> None:
        """Cast mode by its number in the mailbox (layouts/ixgbe_mailbox.py), already granted."""
        self.xcast = mode
        self._multicast_on = mode != msg.XCAST_MODE_NONE
        with self.engine.parked() as state:
            self._enter_groups()
            forget_paths(state)

    def _enter_groups(self) -> None:
        words = self.engine.state.multicast[self.function].view(np.uint64)
        words[:] = 0
        for value in self._hashes if self._multicast_on else ():
            words[value >> 6] |= np.uint64(1 << (value & 63))
        unasked = not self.facts.filters
        self.record["all_multicast"] = int(unasked or self.xcast >= msg.XCAST_MODE_ALLMULTI)
        trusted = unasked and self.settings.trust
        self.record["promiscuous"] = int(trusted or self.xcast == msg.XCAST_MODE_PROMISC)

    def set_longest_frame(self, size: int) -> bool:
        """The longest frame in bytes with FCS that the driver takes. False when the PF refuses, which stops
        reception.

        An 82599 has all of its functions at one size (Linux ixgbe_sriov.c, ixgbe_set_vf_lpe): jumbo frames
        need a jumbo card and a driver that knows API 1.1, and on a jumbo card older drivers get nothing. A message
        only ever raises that size: iPXE counts no FCS in it, and gets frames of 1,518 bytes all the same.
        """
        if not 68 <= size <= msg.MAX_JUMBO_FRAME_SIZE:
            return False
        modern = self.api >= msg.API_11
        fits = modern if self.facts.jumbo else size <= msg.MAX_LEGACY_FRAME_SIZE
        with self.engine.parked() as state:
            longest = max(size, msg.MAX_LEGACY_FRAME_SIZE) - FCS_BYTES
            self.record["max_frame"] = longest if fits else 0
            forget_paths(state)
        return fits

    def set_mtu(self, mtu: int) -> bool:
        """An ENA driver's MTU. False where it is none that the card has."""
        if not SMALLEST_MTU <= mtu <= self.facts.mtu:
            return False
        with self.engine.parked() as state:
            self.record["max_frame"] = mtu + ETHERNET_BYTES
            forget_paths(state)
        return True

    def release(self) -> None:
        """Take the function out of the switch."""
        with self.engine.parked() as state:
            self._drop_macvlans()
            self._enter_mac(NO_MAC)
            for vlan in [*self._vlans]:
                self._leave_vlan(vlan)
            for vlan in (0, self.settings.vlan):
                set_vlan(state, self.facts.number, vlan, self.pool, False)
            if not self.facts.filters:
                self._enter_every_vlan(False)
            forget_paths(state)
