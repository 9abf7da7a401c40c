"""One interface: everything that is known of it, which mechanism it is, and the verdict on it."""

from dataclasses import asdict, dataclass
from typing import Any

from vfwire.checks.advice import next_step
from vfwire.checks.environment import Environment
from vfwire.checks.ethtool import Settings
from vfwire.checks.links import Link
from vfwire.checks.mechanisms import Mechanism, mechanism_of_link
from vfwire.checks.pci_functions import PciFunction, function_of_device, read_function
from vfwire.checks.tree import Tree
from vfwire.checks.verdict import State, Verdict, worst


@dataclass(frozen=True)
class Interface:
    """function: the PCI function that it is or stands on. carriers: the interfaces whose verdict is its own."""

    link: Link
    mechanism: Mechanism
    function: PciFunction | None
    settings: Settings
    verdict: Verdict
    carriers: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        link, settings = asdict(self.link), asdict(self.settings)
        taken = settings.pop("taken")
        named = {"name": link.pop("name"), "mechanism": self.mechanism.name, "title": self.mechanism.title}
        named |= {"driver": self.settings.driver_info and self.settings.driver_info.driver}
        pci = {"pci": None if self.function is None else self.function.as_json(), "carriers": self.carriers}
        last = {"counters": settings.pop("counters"), "counters_at": taken}
        return named | self.verdict.as_json() | link | settings | pci | last


def inspect(
    tree: Tree, environment: Environment, links: dict[str, Link], link: Link, settings: Settings
) -> Interface:
    """All of it together. links: every interface by name, to look through those that others carry."""
    function = _function(tree, link, settings)
    mechanism = _mechanism(environment, link, function)
    carriers = carriers_of(links, link)
    if carriers:
        verdict = _carried(tree, environment, links, link, carriers)
    else:
        driver = settings.driver_info.driver if settings.driver_info else ""
        verdict = verdict_of(tree, environment, link, mechanism, driver)
    return Interface(link, mechanism, function, settings, verdict, tuple(one.name for one in carriers))


def _function(tree: Tree, link: Link, settings: Settings) -> PciFunction | None:
    if link.device:
        return function_of_device(tree, link.bus, link.device)
    bus_info = settings.driver_info.bus_info if settings.driver_info else ""
    return read_function(tree, bus_info)  # a driver may tell what the interface itself does not


def _mechanism(environment: Environment, link: Link, function: PciFunction | None) -> Mechanism:
    bus = link.bus or ("pci" if function is not None else "")
    return mechanism_of_link(bus, link.kind, link.loopback, function, environment.virtual_machine)


def carriers_of(links: dict[str, Link], link: Link) -> list[Link]:
    """The physical interfaces that carry what a stacked one sends: through bonds, bridges, VLANs, and netvsc's VF."""
    found: dict[str, Link] = {}
    seen, waiting = {link.name}, list(link.lower)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in links:
            continue
        seen.add(name)
        if links[name].physical:
            found[name] = links[name]
        else:
            waiting.extend(links[name].lower)
    return sorted(found.values(), key=lambda one: one.index)


def _carried(
    tree: Tree, environment: Environment, links: dict[str, Link], link: Link, carriers: list[Link]
) -> Verdict:
    """A stacked interface is as enhanced as what carries it: a paravirtual one with a VF in it uses the VF."""
    verdicts = []
    for carrier in carriers:
        function = function_of_device(tree, carrier.bus, carrier.device)
        mechanism = _mechanism(environment, carrier, function)
        verdicts.append(
            verdict_of(tree, environment, carrier, mechanism, function.driver or "" if function else "")
        )
    of = worst(verdicts)
    assert of is not None
    names = ", ".join(carrier.name for carrier in carriers)
    return Verdict(of.state, f"{link.name} is carried by {names}: {of.reason}", of.next_step)


def verdict_of(
    tree: Tree, environment: Environment, link: Link, mechanism: Mechanism, driver: str
) -> Verdict:
    """On one interface by what it is itself."""
    with_driver = f", driver {driver}" if driver else ""
    reason = f"{link.name}: {mechanism.title}{with_driver}: {mechanism.why}"
    if mechanism.state is State.ENHANCED:
        return Verdict(State.ENHANCED, reason)
    return Verdict(mechanism.state, reason, next_step(tree, environment, mechanism))
