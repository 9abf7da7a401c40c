"""Who uses a PCI function now: an interface that carries something, a program or guest that has it open by VFIO."""

from collections.abc import Iterable
from pathlib import Path

from vfwire.checks.links import Link
from vfwire.checks.pci_functions import DEVICES, PciFunction, function_of_device
from vfwire.checks.tree import Tree

USER_SPACE_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
_PROC = Path("/proc")


def interfaces_of(tree: Tree, links: Iterable[Link], function: PciFunction) -> list[Link]:
    """The interfaces that stand on a function, directly or on a device of its (virtio)."""
    found = ((link, function_of_device(tree, link.bus, link.device)) for link in links if link.device)
    return [link for link, below in found if below is not None and below.address == function.address]


def use_of(tree: Tree, links: Iterable[Link], function: PciFunction) -> str:
    """Why it may not be taken away, half a sentence; "" if nobody uses it.

    What cannot be seen counts as a use: an interface in another network namespace, a holder in a process of others.
    """
    if function.driver is None:
        return ""
    if function.driver in USER_SPACE_DRIVERS:
        return _held(tree, function)
    interfaces = interfaces_of(tree, links, function)
    if not interfaces:
        return f"driven by {function.driver}, and its interface is not in this network namespace"
    return next((use for link in interfaces if (use := _carries(link))), "")


def _carries(link: Link) -> str:
    if link.default_route:
        return f"its interface {link.name} carries the default route"
    if link.master:
        return f"its interface {link.name} is part of {link.master}"
    return f"its interface {link.name} is up" if link.up else ""


def _held(tree: Tree, function: PciFunction) -> str:
    """By the descriptors that processes hold on /dev/vfio (group, or device node of iommufd)."""
    nodes = {f"/dev/vfio/devices/{name}" for name in tree.names(f"{DEVICES}/{function.address}/vfio-dev")}
    if function.iommu_group is not None:
        nodes.add(f"/dev/vfio/{function.iommu_group}")
    if not tree.live:
        return f"given to {function.driver}, and a copy does not tell who has it open"
    unseen = False
    for process in (entry for entry in _PROC.iterdir() if entry.name.isdecimal()):
        try:
            held = {str(entry.readlink()) for entry in (process / "fd").iterdir()}
        except PermissionError:
            unseen = True
            continue
        except OSError:  # it ended
            continue
        if held & nodes:
            name = tree.text(f"proc/{process.name}/comm") or "a process"
            return f"open in {name} (pid {process.name})"
    return f"given to {function.driver}, and who has it open is told to root alone" if unseen else ""
