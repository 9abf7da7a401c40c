"""Instance types and their networks: the data that ships with the package, and what a user has taken live since.

The data is DescribeInstanceTypes' answer (EC2 API Reference: InstanceTypeInfo, NetworkInfo, NetworkCardInfo), cut to
what a network is made of. Bandwidths are in Gbit/s and the provider's words are kept as they are. What AWS does not
publish is not here: packets a second have no field.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from vfwire.checks.ec2.mechanism import Mechanism, mechanism_of
from vfwire.errors import BadInput

SCHEMA = 1
_SHIPPED = "data/instance_types.json"


@dataclass(frozen=True, slots=True)
class Cards:
    """`count` alike network cards of an instance. None: not told. Card figures are each card's, not to be summed."""

    count: int
    performance: str
    baseline_gbps: float | None
    peak_gbps: float | None
    interfaces: int
    queues: int | None
    queues_per_interface: int | None
    default_queues: int | None


@dataclass(frozen=True, slots=True)
class InstanceType:
    """hypervisor: the type's, "nitro", "xen" or "none" (bare metal); an instance's own says xen for both."""

    name: str
    hypervisor: str
    current: bool
    ena: str
    ena_express: bool
    efa: bool
    performance: str
    cards: tuple[Cards, ...]
    virtualization: tuple[str, ...]
    root_devices: tuple[str, ...]
    instance_storage: bool

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def mechanism(self) -> Mechanism:
        return mechanism_of(self.name, self.ena)

    @property
    def falls_back(self) -> bool:
        """Whether it comes up on the default path when the mechanism is not used. Only Xen types have that path."""
        return self.hypervisor == "xen"


@dataclass(frozen=True)
class Catalog:
    """types by name; sources: where they are from and when, as {"source": …, "date": …, "types": how many}."""

    types: Mapping[str, InstanceType]
    sources: tuple[Mapping[str, Any], ...]

    def nearest(self, name: str) -> list[str]:
        """Known names that resemble one that is not known, nearest first."""
        import difflib

        return difflib.get_close_matches(name, self.types, n=3, cutoff=0.5)


def from_description(info: Mapping[str, Any]) -> InstanceType:
    """One InstanceTypeInfo of DescribeInstanceTypes."""
    network = info["NetworkInfo"]
    return InstanceType(
        name=info["InstanceType"],
        hypervisor=info.get("Hypervisor") or "none",
        current=bool(info.get("CurrentGeneration")),
        ena=network.get("EnaSupport", "unsupported"),
        ena_express=bool(network.get("EnaSrdSupported")),
        efa=bool(network.get("EfaSupported")),
        performance=network.get("NetworkPerformance", ""),
        cards=_alike(network.get("NetworkCards", [])),
        virtualization=tuple(info.get("SupportedVirtualizationTypes", ())),
        root_devices=tuple(info.get("SupportedRootDeviceTypes", ())),
        instance_storage=bool(info.get("InstanceStorageSupported")),
    )


def _alike(described: Iterable[Mapping[str, Any]]) -> tuple[Cards, ...]:
    """Cards in order, alike neighbours told once."""
    found: list[list[Any]] = []
    for card in described:
        told = [
            card.get("NetworkPerformance", ""),
            card.get("BaselineBandwidthInGbps"),
            card.get("PeakBandwidthInGbps"),
            card.get("MaximumNetworkInterfaces", 0),
            card.get("MaximumEnaQueueCount"),
            card.get("MaximumEnaQueueCountPerInterface"),
            card.get("DefaultEnaQueueCountPerInterface"),
        ]
        if found and found[-1][1:] == told:
            found[-1][0] += 1
        else:
            found.append([1, *told])
    return tuple(Cards(*row) for row in found)


def to_text(types: Iterable[InstanceType], source: str, date: str) -> str:
    """The data file: JSON, a type on each line so that differences can be read."""
    rows = []
    for one in sorted(types, key=lambda each: each.name):
        row = asdict(one)
        row["cards"] = [list(card.values()) for card in row["cards"]]
        rows.append(json.dumps(row, separators=(",", ":")))
    head = json.dumps({"schema": SCHEMA, "source": source, "date": date})[:-1]
    return head + ', "types": [\n' + ",\n".join(rows) + "\n]}\n"


def from_text(text: str, where: str) -> Catalog:
    """Raises BadInput for anything but a data file; `where` names it."""
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        types = {row["name"]: _from_row(row) for row in data["types"]}
        source = {"source": str(data["source"]), "date": str(data["date"]), "types": len(types)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{where} is no catalog of instance types ({error!r})", "vfwire catalog --refresh writes it anew"
        ) from None
    return Catalog(types, (source,))


_TEXTS = ("name", "hypervisor", "ena", "performance")
_FLAGS = ("current", "ena_express", "efa", "instance_storage")


def _from_row(row: Mapping[str, Any]) -> InstanceType:
    if set(row) != {field.name for field in fields(InstanceType)}:
        raise ValueError(f"fields {sorted(row)}")
    if not all(isinstance(row[name], str) for name in _TEXTS) or not all(
        isinstance(row[name], bool) for name in _FLAGS
    ):
        raise ValueError(f"values of {row['name']}")
    held = dict(row)
    held["cards"] = tuple(Cards(*card) for card in row["cards"])
    held["virtualization"] = tuple(row["virtualization"])
    held["root_devices"] = tuple(row["root_devices"])
    return InstanceType(**held)


def refreshed_path() -> Path:
    """Where `vfwire catalog --refresh` keeps what it took live."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vfwire" / "instance_types.json"


def shipped() -> Catalog:
    """The data of the package alone."""
    return from_text((files("vfwire.checks.ec2") / _SHIPPED).read_text(), "the shipped data")


def load() -> Catalog:
    """The package's data, and over it what was taken live. Raises BadInput when the latter is damaged."""
    base = shipped()
    path = refreshed_path()
    try:
        live = from_text(path.read_text(errors="replace"), str(path))
    except FileNotFoundError:
        return base
    return Catalog({**base.types, **live.types}, base.sources + live.sources)
