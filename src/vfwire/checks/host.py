"""Is this host on it: every physical interface, or those that are named, and one verdict on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vfwire.checks.environment import Environment, read_environment
from vfwire.checks.ethtool import Ethtool, Settings
from vfwire.checks.interfaces import Interface, inspect
from vfwire.checks.links import Link, nearest_first, read_links
from vfwire.checks.mechanisms import mechanism_of_function
from vfwire.checks.modules import how_to_load
from vfwire.checks.pci_functions import PciFunction, all_functions, function_of_device
from vfwire.checks.tree import Tree
from vfwire.checks.usage import USER_SPACE_DRIVERS
from vfwire.checks.verdict import State, Verdict, worst
from vfwire.errors import UsageError

SCHEMA = 1


@dataclass(frozen=True)
class HostReport:
    """Of the network functions that are no VF of a PF here, idle: without a driver; lent: given to a program or a
    guest; elsewhere: with a driver, and no interface that can be seen from this network namespace.
    """

    interfaces: tuple[Interface, ...]
    idle: tuple[PciFunction, ...]
    lent: tuple[PciFunction, ...]
    elsewhere: tuple[PciFunction, ...]
    environment: Environment
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **self.verdict.as_json(),
            "virtual_machine": self.environment.virtual_machine,
            "vendor": self.environment.vendor,
            "interfaces": [one.as_json() for one in self.interfaces],
            "without_driver": [function.as_json() for function in self.idle],
            "in_user_space": [function.as_json() for function in self.lent],
            "elsewhere": [function.as_json() for function in self.elsewhere],
        }


def check_host(tree: Tree, names: Sequence[str] = ()) -> HostReport:
    """Raises UsageError for a name that no interface has."""
    environment = read_environment(tree)
    links = {link.name: link for link in read_links(tree)}
    chosen = [_named(links, name) for name in names] or [link for link in links.values() if link.physical]
    settings = _settings(tree, chosen)
    interfaces = tuple(inspect(tree, environment, links, link, settings[link.name]) for link in chosen)
    idle, lent, elsewhere = ((), (), ()) if names else _functions(tree, list(links.values()))
    verdict = _overall(tree, environment, interfaces, idle, elsewhere, list(links.values()))
    return HostReport(interfaces, idle, lent, elsewhere, environment, verdict)


_Functions = tuple[PciFunction, ...]


def _functions(tree: Tree, links: list[Link]) -> tuple[_Functions, _Functions, _Functions]:
    """(idle, lent, elsewhere) of a HostReport."""
    seen = {
        one.address for link in links if (one := function_of_device(tree, link.bus, link.device)) is not None
    }
    found = [one for one in all_functions(tree) if one.is_network and one.physfn is None]
    idle = [one for one in found if one.driver is None]
    lent = [one for one in found if one.driver in USER_SPACE_DRIVERS]
    elsewhere = [one for one in found if one not in idle and one not in lent and one.address not in seen]
    return tuple(idle), tuple(lent), tuple(elsewhere)


def _named(links: dict[str, Link], name: str) -> Link:
    for link in links.values():
        if name == link.name or name in link.other_names:
            return link
    there = ", ".join(nearest_first(name, links)[:8]) or "none at all"
    raise UsageError(f"there is no interface {name[:40]!r}", f"there are: {there}")


def _settings(tree: Tree, links: list[Link]) -> dict[str, Settings]:
    if not tree.live:
        return {link.name: Settings() for link in links}  # a copy of sysfs cannot be asked
    with Ethtool() as ethtool:
        return {link.name: ethtool.ask(link.name) for link in links}


def _overall(
    tree: Tree,
    environment: Environment,
    interfaces: tuple[Interface, ...],
    idle: tuple[PciFunction, ...],
    elsewhere: tuple[PciFunction, ...],
    links: list[Link],
) -> Verdict:
    """What is off counts before what is not known; a VF that waits for its driver is the best next step there is."""
    found = worst(one.verdict for one in interfaces)
    for function in idle:
        mechanism = mechanism_of_function(function, environment.virtual_machine)
        if mechanism.state is State.ENHANCED and (found is None or found.state is not State.ENHANCED):
            step = how_to_load(tree, mechanism.module) if mechanism.module else "bind its driver"
            where = f"{function.address} is there ({mechanism.title}, {function.vendor:04x}:{function.device:04x})"
            return Verdict(State.NOT, f"{where} and has no driver", step)
    if found is not None:
        return _of_several(found, interfaces)
    return _nothing_physical(environment, elsewhere, [link.name for link in links if not link.loopback])


def _nothing_physical(environment: Environment, elsewhere: _Functions, virtual: list[str]) -> Verdict:
    """As in a container: what can be seen of the host is a hint, and no more."""
    seen = [
        f"{one.address} ({mechanism_of_function(one, environment.virtual_machine).title}, driver {one.driver})"
        for one in elsewhere
    ]
    behind = f"; the interface of {', '.join(seen)} is not in this network namespace" if seen else ""
    if not virtual and not seen:
        return Verdict(
            State.UNKNOWN, "this system has no network interface", "attach one, or look in another namespace"
        )
    return Verdict(
        State.UNKNOWN,
        f"no physical interface can be seen from here, only {', '.join(virtual) or 'loopback'}{behind}",
        "run it on the host, in the network namespace of the physical interface",
    )


def _of_several(found: Verdict, interfaces: tuple[Interface, ...]) -> Verdict:
    if len(interfaces) == 1 or found.state is not State.ENHANCED:
        return found
    kinds = sorted({one.mechanism.title for one in interfaces})
    return Verdict(State.ENHANCED, f"all {len(interfaces)} interfaces are on it: {', '.join(kinds)}")
