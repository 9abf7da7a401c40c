"""Which mechanism an instance type has, now and as first published.

Sources: Amazon EC2 User Guide, "Enhanced networking on Amazon EC2 instances" (the lists by family); EC2 API
Reference, NetworkInfo (`EnaSupport`: unsupported, supported, required). No API tells of the 82599: it is derived from
the guide's list.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Mechanism(StrEnum):
    """How a guest gets past the hypervisor, if at all."""

    ENA = "ena"
    VF82599 = "82599"
    NONE = "none"


# The guest's driver for each, as `ethtool -i` names it. Xen's default path is driven by xen-netfront, named "vif".
DRIVERS = {Mechanism.ENA: "ena", Mechanism.VF82599: "ixgbevf"}
DEFAULT_DRIVER = "vif"

# The type inside a family of the other mechanism: M4 has the 82599, its largest the ENA.
_APART = "m4.16xlarge"
_82599_FAMILIES = frozenset({"c3", "c4", "d2", "i2", "m4", "r3"})

# As first published. "G4" has only ever been sold as g4dn and g4ad.
SEED_ENA = frozenset(
    f"a1 c5 c5a c5d c5n c6g f1 g3 g4 h1 i3 i3en p2 p3 r4 x1 x1e {_APART}".split(),
)
SEED_82599 = _82599_FAMILIES
_SOLD_AS = {"g4dn": "g4", "g4ad": "g4"}


def label(type_name: str) -> str:
    """What the lists call it: the family, but the one type that is listed by its own name."""
    return type_name if type_name == _APART else type_name.partition(".")[0]


def mechanism_of(type_name: str, ena_support: str) -> Mechanism:
    """`ena_support` is DescribeInstanceTypes' NetworkInfo.EnaSupport."""
    if ena_support in ("supported", "required"):
        return Mechanism.ENA
    return Mechanism.VF82599 if label(type_name) in _82599_FAMILIES else Mechanism.NONE


def seed_mechanism(listed: str) -> Mechanism:
    """The mechanism of a family (or m4.16xlarge) in the first published lists; NONE when it is in neither."""
    name = _SOLD_AS.get(listed, listed)
    if name in SEED_ENA:
        return Mechanism.ENA
    return Mechanism.VF82599 if name in SEED_82599 else Mechanism.NONE


@dataclass(frozen=True)
class Differences:
    """Families (and m4.16xlarge) between the first published lists and now.

    gone: in the lists, no type of it in the data. new: has a mechanism, in neither list.
    changed: (family, mechanism then, mechanism now).
    """

    gone: tuple[str, ...]
    new: tuple[str, ...]
    changed: tuple[tuple[str, Mechanism, Mechanism], ...]


def differences(now: Iterable[tuple[str, Mechanism]]) -> Differences:
    """From (type name, its mechanism now) of every type of the present."""
    present = {label(name): mechanism for name, mechanism in now}
    listed = {_SOLD_AS.get(name, name) for name in present}
    return Differences(
        gone=tuple(sorted((SEED_ENA | SEED_82599) - listed)),
        new=tuple(
            sorted(
                name
                for name, mechanism in present.items()
                if mechanism != Mechanism.NONE and seed_mechanism(name) == Mechanism.NONE
            )
        ),
        changed=tuple(
            (name, seed_mechanism(name), mechanism)
            for name, mechanism in sorted(present.items())
            if seed_mechanism(name) not in (Mechanism.NONE, mechanism)
        ),
    )
