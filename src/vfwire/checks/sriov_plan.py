"""Changes to physical and virtual functions: first a plan, which is what --dry-run shows, then each step of it.

A plan is the difference between what is and what is wanted: nothing to do is an empty plan. sysfs is how Linux has it:
Documentation/ABI/testing/sysfs-bus-pci (sriov_numvfs, driver_override, drivers_probe).
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass

from vfwire.checks.links import Link, nearest_first, read_links
from vfwire.checks.pci_functions import (
    ADDRESS,
    DEVICES,
    PciFunction,
    all_functions,
    function_of_device,
    read_function,
)
from vfwire.checks.sriov import IOMMU_OFF, group_members
from vfwire.checks.tree import Tree
from vfwire.checks.usage import interfaces_of, use_of
from vfwire.errors import PermissionDenied, ResourceBusy, UnsupportedMachine, UsageError, VfwireError

DRIVERS = "sys/bus/pci/drivers"


@dataclass(frozen=True)
class Step:
    """Write `value` to the file `path` of sysfs, relative to the root."""

    path: str
    value: str
    why: str

    @property
    def command(self) -> str:
        return f"echo {self.value or chr(39) * 2} > /{self.path}"


@dataclass(frozen=True)
class Plan:
    """steps: in order. note: what else to know, "" for nothing. done: what holds afterwards, in words."""

    steps: tuple[Step, ...]
    done: str
    note: str = ""


def find_function(tree: Tree, links: list[Link], name: str) -> PciFunction:
    """By interface (eth0), PCI address (0000:03:10.1 or 03:10.1), or VF number of a PF (eth0/3). Raises UsageError."""
    physical, slash, number = name.partition("/")
    function = _by_name(tree, links, physical)
    if not slash:
        return function
    if not number.isdecimal() or len(number) > 5 or int(number) >= len(function.vfs):
        raise UsageError(
            f"{physical} has no VF {number[:10]!r}", f"it has {len(function.vfs)}: vfwire verify --sriov"
        )
    found = read_function(tree, function.vfs[int(number)])
    if found is None:
        raise UsageError(f"VF {number} of {physical} has gone", "vfwire verify --sriov shows what is there")
    return found


def _by_name(tree: Tree, links: list[Link], name: str) -> PciFunction:
    for link in links:
        if name in (link.name, *link.other_names):
            found = function_of_device(tree, link.bus, link.device)
            if found is None:
                raise UsageError(f"{name} is no PCI function", "vfwire verify --sriov shows those that are")
            return found
    address = name.lower() if name.count(":") == 2 else f"0000:{name.lower()}"
    found = read_function(tree, address) if ADDRESS.fullmatch(address) else None
    if found is None:
        there = [one.address for one in all_functions(tree) if one.is_network] + [link.name for link in links]
        raise UsageError(
            f"there is no {name[:40]!r}", f"there are: {', '.join(nearest_first(name, there)[:8])}"
        )
    return found


def plan_vfs(tree: Tree, name: str, wanted: int, autoprobe: bool | None = None) -> Plan:
    """To have exactly `wanted` VFs. autoprobe: whether new ones get this host's driver, None to leave that as it is.

    Raises UsageError (no PF, too many), ResourceBusy (a VF that would go is in use).
    """
    links = read_links(tree)
    function = find_function(tree, links, name)
    where = f"{DEVICES}/{function.address}"
    if not function.total_vfs:
        of = f"a VF of {function.physfn}" if function.physfn else "a function without SR-IOV"
        raise UsageError(f"{name} is {of}", "name a PF: vfwire verify --sriov shows them")
    if not 0 <= wanted <= function.total_vfs:
        raise UsageError(f"{name} cannot have {wanted} VFs", f"0 to {function.total_vfs} are possible")
    steps = []
    if autoprobe is not None and tree.number(f"{where}/sriov_drivers_autoprobe") != int(autoprobe):
        why = "new VFs get this host's driver" if autoprobe else "new VFs stay without a driver"
        steps.append(Step(f"{where}/sriov_drivers_autoprobe", str(int(autoprobe)), why))
    if function.num_vfs != wanted:
        if function.num_vfs:
            _refuse_if_used(
                tree, links, [one for address in function.vfs if (one := read_function(tree, address))]
            )
            steps.append(Step(f"{where}/sriov_numvfs", "0", "Linux changes the number of VFs from 0 only"))
        if wanted:
            steps.append(Step(f"{where}/sriov_numvfs", str(wanted), f"{wanted} VFs of {function.total_vfs}"))
    carries = [link.name for link in interfaces_of(tree, links, function) if link.default_route]
    note = (
        f"{carries[0]} carries the default route: its link may go for a moment" if carries and steps else ""
    )
    return Plan(tuple(steps), f"{name} has {wanted} VFs", note)


def plan_bind(tree: Tree, name: str, driver: str) -> Plan:
    """To have a function driven by `driver`. Raises UsageError, ResourceBusy, UnsupportedMachine (no IOMMU)."""
    links = read_links(tree)
    function = find_function(tree, links, name)
    where = f"{DEVICES}/{function.address}"
    if "/" in driver or driver in ("", ".", ".."):
        raise UsageError(f"{driver!r} is no name of a driver")
    done = f"{function.address} is driven by {driver}"
    if function.driver == driver:
        return Plan((), done)
    _refuse_if_used(tree, links, [function])
    if not tree.exists(f"{DRIVERS}/{driver}"):
        raise UsageError(f"the driver {driver} is not loaded", f"modprobe {driver}")
    if driver == "vfio-pci":
        _refuse_without_iommu(tree, function)
    steps = []
    if tree.text(f"{where}/driver_override") != driver:
        steps.append(Step(f"{where}/driver_override", driver, f"{driver} alone may have it"))
    if function.driver:
        steps.append(
            Step(f"{DRIVERS}/{function.driver}/unbind", function.address, f"{function.driver} lets it go")
        )
    steps.append(Step("sys/bus/pci/drivers_probe", function.address, f"{driver} takes it"))
    return Plan(tuple(steps), done)


def plan_unbind(tree: Tree, name: str) -> Plan:
    """To have a function without a driver, free for any. Raises UsageError, ResourceBusy."""
    links = read_links(tree)
    function = find_function(tree, links, name)
    where = f"{DEVICES}/{function.address}"
    steps = []
    if function.driver:
        _refuse_if_used(tree, links, [function])
        steps.append(
            Step(f"{DRIVERS}/{function.driver}/unbind", function.address, f"{function.driver} lets it go")
        )
    if tree.text(f"{where}/driver_override") not in (None, "(null)"):
        steps.append(Step(f"{where}/driver_override", "", "any driver may have it again"))
    return Plan(tuple(steps), f"{function.address} has no driver")


def _refuse_if_used(tree: Tree, links: list[Link], functions: list[PciFunction]) -> None:
    for function in functions:
        use = use_of(tree, links, function)
        if use:
            raise ResourceBusy(f"{function.address} is in use: {use}", "free it first; nothing was changed")


def _refuse_without_iommu(tree: Tree, function: PciFunction) -> None:
    if function.iommu_group is None:
        raise UnsupportedMachine(f"{function.address} has no IOMMU group: {IOMMU_OFF[0]}", IOMMU_OFF[1])
    held = [one for one in group_members(tree, function) if one.driver and not one.driver.startswith("vfio")]
    if held:
        names = ", ".join(f"{one.address} ({one.driver})" for one in held)
        raise ResourceBusy(
            f"IOMMU group {function.iommu_group} holds {names} too",
            "unbind those, or take a function of its own group",
        )


def carry_out(tree: Tree, plan: Plan, tell: Callable[[Step], None] = lambda _step: None) -> None:
    """Each step in order. One that fails ends it, and the error says what was done before.

    Raises PermissionDenied, ResourceBusy, VfwireError. sysfs answers a write when it has been done.
    """
    for number, step in enumerate(plan.steps):
        try:
            with (tree.root / step.path).open("w") as file:
                file.write(step.value + "\n")
        except OSError as error:
            raise _failed(step, plan.steps[:number], error) from error
        tell(step)


def _failed(step: Step, before: tuple[Step, ...], error: OSError) -> VfwireError:
    done = f"done before: {'; '.join(one.command for one in before)}" if before else "nothing was changed"
    cause = f"{step.command} failed: {error.strerror or error}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(cause, f"run it as root on the host; {done}")
    kind = ResourceBusy if error.errno == errno.EBUSY else VfwireError
    return kind(cause, f"dmesg has the driver's reason; {done}")
