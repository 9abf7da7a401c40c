"""What `vfwire verify` shows: for each interface what `ethtool -i` prints, then the rest in the same form."""

from collections.abc import Iterator
from typing import Any

import click

from vfwire.checks.allowances import NOT_TOLD, Reading, read_allowances
from vfwire.checks.host import HostReport
from vfwire.checks.interfaces import Interface
from vfwire.checks.pci_functions import PciFunction
from vfwire.checks.pci_names import device_name

# The features that say which work the card takes over; --json has them all.
_OFFLOADS = {
    "rx-checksum": "rx-checksum",
    "tx-checksum-ip-generic": "tx-checksum",
    "tx-checksum-ipv4": "tx-checksum-ipv4",
    "tx-checksum-ipv6": "tx-checksum-ipv6",
    "tx-scatter-gather": "scatter-gather",
    "tx-tcp-segmentation": "tso",
    "tx-tcp6-segmentation": "tso6",
    "tx-udp-segmentation": "udp-segmentation",
    "rx-lro": "lro",
    "rx-gro": "gro",
    "rx-gro-hw": "gro-hw",
    "rx-hashing": "rx-hashing",
    "rx-ntuple-filter": "ntuple",
    "rx-vlan-hw-parse": "rx-vlan",
    "tx-vlan-hw-insert": "tx-vlan",
}


def allowances_of(report: HostReport, before: HostReport | None) -> dict[str, list[Reading]]:
    """Each interface's allowances by name, with rates where there was a look before."""
    earlier = {one.link.index: one.settings for one in before.interfaces} if before else {}
    found = {}
    for one in report.interfaces:
        past = earlier.get(one.link.index)
        found[one.link.name] = read_allowances(
            one.settings.counters,
            past.counters if past else None,
            one.settings.taken - past.taken if past else 0.0,
        )
    return found


def report_json(report: HostReport, before: HostReport | None) -> dict[str, Any]:
    told = report.as_json()
    allowances = allowances_of(report, before)
    for interface in told["interfaces"]:
        interface["allowances"] = [reading.as_json() for reading in allowances[interface["name"]]]
    return told


def print_report(report: HostReport, before: HostReport | None) -> None:
    allowances = allowances_of(report, before)
    for one in report.interfaces:
        for line in (*_interface(one), *_allowances(one, allowances[one.link.name], before is not None)):
            click.echo(line)
        click.echo()
    for title, functions in (
        ("without a driver", report.idle),
        ("in user space or a guest", report.lent),
        ("its interface is elsewhere", report.elsewhere),
    ):
        for function in functions:
            click.echo(f"{title}: {_function(function)}")
    for label, text in (
        ("verdict", str(report.verdict.state)),
        ("reason", report.verdict.reason),
        ("next step", report.verdict.next_step),
    ):
        if text:
            click.echo(f"{label}: {text}")


def _interface(one: Interface) -> Iterator[str]:
    link, settings = one.link, one.settings
    yield f"interface: {link.name}"
    yield f"enhanced networking: {one.verdict.state} ({one.mechanism.title})"
    if settings.driver_info is not None:
        yield from settings.driver_info.lines()
    elif one.function is not None:
        yield f"driver: {one.function.driver or 'none'}"
    if one.function is not None:
        yield f"pci: {_function(one.function)}"
        size = "" if one.function.msix_size is None else f" of {one.function.msix_size}"
        yield f"msi-x vectors: {one.function.msix_in_use}{size}"
    if settings.channels:
        yield f"queues: {_of(settings.channels)}"
    if settings.rings:
        yield f"rings: {_of(settings.rings)}"
    if settings.features:
        on = [short for name, short in _OFFLOADS.items() if settings.features.get(name)]
        yield f"offloads: {' '.join(on) or 'none'}"
    speed = f"{settings.speed} Mb/s" if settings.speed else "not told"
    yield f"speed: {speed}"
    carrier = {True: "yes", False: "no", None: "not told"}[link.carrier]
    yield f"mtu: {link.mtu}"
    yield f"state: {'up' if link.up else 'down'}, link detected: {carrier}"
    yield f"mac: {link.mac}"
    if one.carriers:
        yield f"carried by: {', '.join(one.carriers)}"


def _of(counts: dict[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} {now} of {most}" for name, (now, most) in counts.items())


def _function(function: PciFunction) -> str:
    name = device_name(function.vendor, function.device)
    return (
        f"{function.address} {function.vendor:04x}:{function.device:04x}"
        f" (rev {function.revision:02x}){f' {name}' if name else ''}"
    )


def _allowances(one: Interface, readings: list[Reading], sampled: bool) -> Iterator[str]:
    if not readings:
        if one.mechanism.name == "ena" and one.settings.counters:
            yield f"allowances: {NOT_TOLD}"
        return
    for reading in readings:
        rate = "" if reading.per_second is None else f", {reading.per_second:,.1f} a second now"
        yield f"{reading.name}: {reading.value}{rate}"
        if reading.wants_action:
            yield f"    limit: {reading.allowance.limit}; {reading.allowance.meaning}"
            yield f"    what to do: {reading.allowance.remedy}"
    if not sampled and any(reading.wants_action for reading in readings):
        yield "    counted since the last reset of the device: --sample 5 shows whether it goes on"
