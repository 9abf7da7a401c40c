"""What `ip link … vf` can set on a virtual function, and how it is written down.

MAC addresses are six bytes on the wire, `aa:bb:cc:dd:ee:ff` in text; the state of the data path keeps them as
little-endian ints.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from vfwire.errors import UsageError

LINK_STATES = ("auto", "enable", "disable")
NO_MAC = bytes(6)
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_RATE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)(?:bit|bps|bit/s)?")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
MINIMUM_TX_RATE = 11  # Mbps; an 82599's PF refuses 10 and less (Linux ixgbe_sriov.c, ixgbe_ndo_set_vf_bw)


@dataclass(frozen=True, slots=True)
class VfSettings:
    """Settings of one VF. max_tx_rate is in Mbps, 0 for none. `mac_is_set`: set by the operator, so not the
    guest's to change.
    """

    mac: bytes = NO_MAC
    mac_is_set: bool = False
    vlan: int = 0
    qos: int = 0
    spoofchk: bool = True
    trust: bool = False
    query_rss: bool = False
    state: str = "auto"
    max_tx_rate: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mac": format_mac(self.mac)}


NAMES = tuple(field.name for field in fields(VfSettings) if field.name != "mac_is_set")


def format_mac(mac: bytes) -> str:
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Six bytes. Raises UsageError for anything but a unicast address; all zeros stands for none."""
    if not _MAC.fullmatch(text):
        raise UsageError(f"{text!r} is no MAC address", "write it as 02:00:00:00:00:01")
    mac = bytes.fromhex(text.replace("-", ":").replace(":", ""))
    if mac[0] & 1:
        raise UsageError(f"{text} is a group address, not a MAC that a function can have")
    return mac


def mac_to_int(mac: bytes) -> int:
    """As the data path's state keeps it (datapath/state.py)."""
    return int.from_bytes(mac, "little")


def is_valid_mac(mac: bytes) -> bool:
    """Unicast and not all zeros."""
    return mac != NO_MAC and not mac[0] & 1


def parse_rate(text: str) -> int | None:
    """A line rate in bit/s: "10G", "2.5g", "100M"; None for "off". Raises UsageError."""
    if text.strip().lower() in ("off", "none", "unlimited"):
        return None
    match = _RATE.fullmatch(text.strip())
    rate = round(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not 1_000_000 <= rate <= 10**12:
        raise UsageError(f"{text!r} is no line rate", "write 10G, 100M, or off")
    return rate


def _parse_switch(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"on": True, "off": False, "true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise UsageError(f"{name} is on or off, not {value!r}")


def _parse_number(name: str, value: Any, most: int) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UsageError(f"{name} is a number from 0 to {most}, not {value!r}")
    return value


def change_settings(settings: VfSettings, changes: Mapping[str, Any], line_rate_mbps: int) -> VfSettings:
    """The settings after `changes` (names as in NAMES, values as text or JSON). Raises UsageError and changes
    nothing.

    line_rate_mbps bounds max_tx_rate.
    """
    new: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "mac":
            new["mac"] = parse_mac(value if isinstance(value, str) else repr(value))
            new["mac_is_set"] = new["mac"] != NO_MAC
        elif name == "vlan":
            new[name] = _parse_number(name, value, 4094)
        elif name == "qos":
            new[name] = _parse_number(name, value, 7)
        elif name in ("spoofchk", "trust", "query_rss"):
            new[name] = _parse_switch(name, value)
        elif name == "state":
            if value not in LINK_STATES:
                raise UsageError(f"state is one of {', '.join(LINK_STATES)}, not {value!r}")
            new[name] = value
        elif name == "max_tx_rate":
            new[name] = _parse_number(name, value, line_rate_mbps)
            if 0 < new[name] < MINIMUM_TX_RATE:
                raise UsageError(f"max_tx_rate is 0 or at least {MINIMUM_TX_RATE} Mbps")
        else:
            raise UsageError(f"a VF has no setting {str(name)[:40]!r}", f"it has {', '.join(NAMES)}")
    return replace(settings, **new)


def default_mac(card: str, index: int) -> bytes:
    """A locally administered MAC (02:…) that is always the same for a card's name and VF, and no other's.

    The card's name gives four bytes (a 32-bit FNV-1a hash), the VF's number the last one.
    """
    digest = 0x811C9DC5
    for byte in card.encode():
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return bytes([0x02]) + digest.to_bytes(4, "big") + bytes([index & 0xFF])
