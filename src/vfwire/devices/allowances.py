"""Allowances of an instance, as text and on a card: which VFs are one instance, and what EC2 would allow it.

0,1:bw-in=5G,bw-out=5G,burst=1G,pps=1M,conntrack=5k,linklocal=1024
"""

import re
from dataclasses import dataclass

from vfwire.datapath.allowance import LARGEST_BURST, set_allowance
from vfwire.datapath.instance import CONNTRACK_MOST
from vfwire.devices.card import Card
from vfwire.errors import UsageError

_LIMITS = {  # name: (field of datapath/instance.py, the most there is)
    "bw-in": ("bw_in_bps", 400 * 10**9),
    "bw-out": ("bw_out_bps", 400 * 10**9),
    "burst": ("burst_bits", LARGEST_BURST),
    "pps": ("pps", 10**9),
    "conntrack": ("conntrack_most", CONNTRACK_MOST),
    "linklocal": ("linklocal_pps", 10**9),
}
NAMES = tuple(_LIMITS)
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_TEXT = re.compile(r"(\d{1,3}(?:,\d{1,3})*):(.+)")
_NUMBER = re.compile(r"(\d{1,12})([kMG]?)")


@dataclass(frozen=True, slots=True)
class Allowance:
    """vfs: the VFs that are one instance. limits: by the fields of datapath/instance.py. linklocal_pps: of each VF."""

    vfs: tuple[int, ...]
    limits: dict[str, int]
    linklocal_pps: int = 0


def parse_allowance(text: str) -> Allowance:
    """Raises UsageError."""
    found = _TEXT.fullmatch(text)
    if not found:
        raise UsageError(f"{text[:60]!r} is no allowance", "write VFs and limits, as 0,1:pps=1M,bw-in=5G")
    limits: dict[str, int] = {}
    for part in found[2].split(","):
        name, _, value = part.partition("=")
        number = _NUMBER.fullmatch(value)
        if name not in _LIMITS or not number:
            raise UsageError(f"{part[:40]!r} is no limit", f"choose among {', '.join(NAMES)}, as pps=1M")
        field, most = _LIMITS[name]
        limits[field] = int(number[1]) * _UNITS[number[2]]
        if limits[field] > most:
            raise UsageError(f"{name} is at most {most:,}, not {limits[field]:,}")
    vfs = tuple(int(vf) for vf in found[1].split(","))
    if len(set(vfs)) != len(vfs):
        raise UsageError(f"a VF is there twice in {text[:60]!r}")
    return Allowance(vfs, limits, limits.pop("linklocal_pps", 0))


def allow(card: Card, allowance: Allowance) -> None:
    """Make those VFs one instance with these limits, from now on. Raises UsageError for a VF that the card has not."""
    functions = [card.function(vf).port.function for vf in allowance.vfs]
    with card.engine.parked() as state:
        set_allowance(state, functions[0], functions, allowance.limits, allowance.linklocal_pps)
