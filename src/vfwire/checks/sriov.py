"""The physical functions of this host, their virtual functions, and whether each can be given to a guest."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from vfwire.checks.links import Link, read_links
from vfwire.checks.pci_functions import DEVICES, PciFunction, all_functions, read_function
from vfwire.checks.tree import Tree
from vfwire.checks.usage import interfaces_of, use_of
from vfwire.checks.verdict import State, Verdict
from vfwire.checks.vf_settings import VfSettings, read_vf_settings

_BRIDGE_CLASS = 0x0604  # a PCI-to-PCI bridge in a group stays where it is
IOMMU_OFF = (
    "the IOMMU is off",
    "turn VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on on Intel",
)


@dataclass(frozen=True)
class VirtualFunction:
    """use: who has it, "" if nobody. obstacle: why it cannot be passed through, "" if it can. ready: it is bound to
    vfio-pci already.
    """

    number: int
    function: PciFunction
    interface: str
    settings: VfSettings | None
    use: str
    obstacle: str

    @property
    def ready(self) -> bool:
        return not self.obstacle and self.function.driver == "vfio-pci"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"function": self.function.as_json(), "ready": self.ready}


@dataclass(frozen=True)
class PhysicalFunction:
    """in_use counts VFs that somebody uses."""

    function: PciFunction
    interface: str
    vfs: tuple[VirtualFunction, ...]

    @property
    def in_use(self) -> int:
        return sum(bool(one.use) for one in self.vfs)

    def as_json(self) -> dict[str, Any]:
        counts = {
            "total_vfs": self.function.total_vfs,
            "num_vfs": self.function.num_vfs,
            "in_use": self.in_use,
        }
        named = {"interface": self.interface, "function": self.function.as_json()}
        return named | counts | {"vfs": [one.as_json() for one in self.vfs]}


def read_physical_functions(tree: Tree) -> list[PhysicalFunction]:
    """Network functions that can have VFs, by address."""
    links = read_links(tree)
    found = [one for one in all_functions(tree) if one.is_network and one.total_vfs]
    return [_physical(tree, links, function) for function in found]


def _physical(tree: Tree, links: list[Link], function: PciFunction) -> PhysicalFunction:
    interface = next(iter(interfaces_of(tree, links, function)), None)
    settings = read_vf_settings(interface.index) if interface is not None and tree.live else {}
    vfs = []
    for number, address in enumerate(function.vfs):
        virtual = read_function(tree, address)
        if virtual is not None:
            vfs.append(_virtual(tree, links, number, virtual, settings.get(number)))
    return PhysicalFunction(function, interface.name if interface else "", tuple(vfs))


def _virtual(
    tree: Tree, links: list[Link], number: int, function: PciFunction, settings: VfSettings | None
) -> VirtualFunction:
    interface = next(iter(interfaces_of(tree, links, function)), None)
    return VirtualFunction(
        number=number,
        function=function,
        interface=interface.name if interface else "",
        settings=settings,
        use=use_of(tree, links, function),
        obstacle=passthrough_obstacle(tree, function),
    )


def passthrough_obstacle(tree: Tree, function: PciFunction) -> str:
    """Why VFIO cannot give it to a guest alone: no IOMMU, or others in its group (Linux driver-api/vfio.rst)."""
    if function.iommu_group is None:
        return IOMMU_OFF[0]
    others = group_members(tree, function)
    if others:
        names = ", ".join(one.address for one in others)
        return f"IOMMU group {function.iommu_group} holds {names} too: they can only go together"
    return ""


def group_members(tree: Tree, function: PciFunction) -> list[PciFunction]:
    """The other functions of its IOMMU group, bridges left out."""
    names = tree.names(f"{DEVICES}/{function.address}/iommu_group/devices")
    found = (read_function(tree, name) for name in names if name != function.address)
    return [one for one in found if one is not None and one.class_code >> 8 != _BRIDGE_CLASS]


def sriov_verdict(functions: Iterable[PhysicalFunction]) -> Verdict:
    """Can a guest of this host be given a VF: "enhanced" is yes."""
    functions = list(functions)
    vfs = [vf for function in functions for vf in function.vfs]
    able = [vf for vf in vfs if not vf.obstacle]
    free = [vf for vf in able if not vf.use]
    if not functions:
        return Verdict(
            State.NOT, "no card here has SR-IOV", "look on the host of this guest, or in the card's firmware"
        )
    if not vfs:
        first = functions[0]
        name = first.interface or first.function.address
        step = f"vfwire sriov set {name} --vfs N, up to {first.function.total_vfs}"
        return Verdict(State.NOT, f"SR-IOV is there ({name}), and no VF is enabled", step)
    if not able:
        step = (
            IOMMU_OFF[1]
            if vfs[0].obstacle == IOMMU_OFF[0]
            else "see the IOMMU groups: a slot with ACS parts them"
        )
        return Verdict(
            State.NOT, f"{len(vfs)} VFs, none of which can be passed through: {vfs[0].obstacle}", step
        )
    if not free:
        return Verdict(State.ENHANCED, f"{len(able)} VFs can be passed through, and all are in use")
    step = "" if any(vf.ready for vf in free) else f"vfwire sriov bind {free[0].function.address}"
    return Verdict(State.ENHANCED, f"{len(free)} of {len(vfs)} VFs are free and can be passed through", step)
