"""This system's interfaces: from the kernel by rtnetlink, or from a copy of its sysfs.

The kernel's answer is that of this process's network namespace; /sys/class/net is that of whoever mounted /sys, so it
is asked only where rtnetlink cannot tell (the device below an interface, before Linux 5.14) and only if it means the
same interface.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vfwire.checks.tree import Tree

NET = "sys/class/net"
_IFF_UP = 0x1  # Linux include/uapi/linux/if.h
_IFF_LOOPBACK = 0x8
_STACKED_KINDS = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap")


@dataclass(frozen=True)
class Link:
    """kind: IFLA_INFO_KIND or "". bus, device: what is below it, as ("pci", "0000:00:05.0"), or both "". lower: names
    of the interfaces that carry its packets (a bond's, a bridge's, a VLAN's). carrier: None if the kernel does not say.
    """

    name: str
    index: int
    kind: str
    bus: str
    device: str
    mac: str
    mtu: int
    up: bool
    carrier: bool | None
    loopback: bool
    default_route: bool
    master: str
    lower: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()

    @property
    def physical(self) -> bool:
        return bool(self.device)


def read_links(tree: Tree) -> list[Link]:
    """All interfaces, in the kernel's order."""
    return _from_kernel(tree) if tree.live else _from_tree(tree)


def nearest_first(name: str, names: Iterable[str]) -> list[str]:
    """Names by how much they look like one that is not there."""
    return sorted(names, key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())


def _from_kernel(tree: Tree) -> list[Link]:
    from pyroute2 import IPRoute  # a quarter of a second: not for those who read a copy

    with IPRoute() as ip:
        messages = list(ip.get_links())
        routes = {index for route in ip.get_default_routes() for index in _outputs(route)}
    names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in messages}
    lower: dict[int, list[str]] = {index: [] for index in names}
    for message in messages:
        kind, below = _kind(message), message.get_attr("IFLA_LINK")
        if kind in _STACKED_KINDS and below in names and message.get_attr("IFLA_LINK_NETNSID") is None:
            lower[message["index"]].append(names[below])
        if message.get_attr("IFLA_MASTER") in lower:
            lower[message.get_attr("IFLA_MASTER")].append(names[message["index"]])
    return [_link(tree, message, names, lower[message["index"]], routes) for message in messages]


def _outputs(route: Any) -> list[int]:
    """Indices of the interfaces that a route leaves by: one, or one for each next hop."""
    hops = [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()]
    return [index for index in (route.get_attr("RTA_OIF"), *hops) if index]


def _kind(message: Any) -> str:
    info = message.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _link(tree: Tree, message: Any, names: dict[int, str], lower: list[str], routes: set[int]) -> Link:
    name, carrier = message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_CARRIER")
    bus, device = message.get_attr("IFLA_PARENT_DEV_BUS_NAME"), message.get_attr("IFLA_PARENT_DEV_NAME")
    if not device and tree.number(f"{NET}/{name}/ifindex") == message["index"]:
        bus, device = _device_below(tree, name)
    properties = message.get_attr("IFLA_PROP_LIST")
    return Link(
        name=name,
        index=message["index"],
        kind=_kind(message),
        bus=bus or "",
        device=device or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & _IFF_UP),
        carrier=None if carrier is None else bool(carrier),
        loopback=bool(message["flags"] & _IFF_LOOPBACK),
        default_route=message["index"] in routes,
        master=names.get(message.get_attr("IFLA_MASTER"), ""),
        lower=tuple(lower),
        other_names=tuple(properties.get_attrs("IFLA_ALT_IFNAME")) if properties is not None else (),
    )


def _device_below(tree: Tree, name: str) -> tuple[str, str]:
    """(bus, name on it) of the device below an interface, ("", "") if there is none."""
    where = f"{NET}/{name}/device"
    return tree.target(f"{where}/subsystem") or "", tree.target(where) or ""


def _from_tree(tree: Tree) -> list[Link]:
    names = [name for name in tree.names(NET) if tree.exists(f"{NET}/{name}/ifindex")]
    routes = _default_routes(tree)
    found = [_link_of_tree(tree, name, name in routes) for name in names]
    return sorted(found, key=lambda link: link.index)


def _link_of_tree(tree: Tree, name: str, default_route: bool) -> Link:
    where = f"{NET}/{name}"
    bus, device = _device_below(tree, name)
    flags, carrier = tree.number(f"{where}/flags") or 0, tree.number(f"{where}/carrier")
    lower = [entry.removeprefix("lower_") for entry in tree.names(where) if entry.startswith("lower_")]
    return Link(
        name=name,
        index=tree.number(f"{where}/ifindex") or 0,
        kind=_kind_of_tree(tree, name),
        bus=bus,
        device=device,
        mac=tree.text(f"{where}/address") or "",
        mtu=tree.number(f"{where}/mtu") or 0,
        up=bool(flags & _IFF_UP),
        carrier=None if carrier is None else bool(carrier),
        loopback=bool(flags & _IFF_LOOPBACK),
        default_route=default_route,
        master=tree.target(f"{where}/master") or "",
        lower=tuple(lower),
    )


def _kind_of_tree(tree: Tree, name: str) -> str:
    """sysfs says it by what else is there; DEVTYPE names most kinds that are left."""
    for entry, kind in (("tun_flags", "tun"), ("bridge", "bridge"), ("bonding", "bond")):
        if tree.exists(f"{NET}/{name}/{entry}"):
            return kind
    lines = (tree.text(f"{NET}/{name}/uevent") or "").splitlines()
    return next((line.removeprefix("DEVTYPE=") for line in lines if line.startswith("DEVTYPE=")), "")


def _default_routes(tree: Tree) -> set[str]:
    """Interfaces of the default routes in a copy of /proc/net/route and ipv6_route (proc(5): hexadecimal columns)."""
    ipv4 = [line.split() for line in (tree.text("proc/net/route") or "").splitlines()]
    found = {words[0] for words in ipv4 if len(words) > 7 and words[1] == words[7] == "00000000"}
    ipv6 = [line.split() for line in (tree.text("proc/net/ipv6_route") or "").splitlines()]
    everywhere = [words for words in ipv6 if len(words) == 10 and words[0] == "0" * 32 and words[1] == "00"]
    return found | {
        words[9] for words in everywhere if words[9] != "lo"
    }  # lo: where IPv6 has no route at all
