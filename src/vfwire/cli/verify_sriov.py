"""`vfwire verify --sriov`: this host's physical functions, and their virtual functions. Exit code 0: a guest can be
given one, 1: it cannot.
"""

import json
from collections.abc import Iterator

import click

from vfwire.checks.host import SCHEMA
from vfwire.checks.links import nearest_first
from vfwire.checks.sriov import PhysicalFunction, VirtualFunction, read_physical_functions, sriov_verdict
from vfwire.checks.tree import Tree
from vfwire.errors import UsageError


def show_sriov(tree: Tree, names: tuple[str, ...], as_json: bool) -> int:
    """All PFs, or those named by interface or PCI address. Raises UsageError for a name that no PF has."""
    functions = read_physical_functions(tree)
    chosen = [_named(functions, name) for name in names] or functions
    verdict = sriov_verdict(chosen)
    if as_json:
        told = [one.as_json() for one in chosen]
        click.echo(json.dumps({"schema": SCHEMA, **verdict.as_json(), "physical_functions": told}))
        return verdict.exit_code
    for one in chosen:
        click.echo("\n".join(_lines(one)))
    for label, text in (
        ("verdict", {0: "a guest can be given a VF", 1: "no guest can be given a VF"}[verdict.exit_code]),
        ("reason", verdict.reason),
        ("next step", verdict.next_step),
    ):
        if text:
            click.echo(f"{label}: {text}")
    return verdict.exit_code


def _named(functions: list[PhysicalFunction], name: str) -> PhysicalFunction:
    for one in functions:
        if name in (one.interface, one.function.address, one.function.address.removeprefix("0000:")):
            return one
    there = [one.interface or one.function.address for one in functions]
    raise UsageError(
        f"there is no PF {name[:40]!r}", f"there are: {', '.join(nearest_first(name, there)[:8]) or 'none'}"
    )


def _lines(one: PhysicalFunction) -> Iterator[str]:
    function = one.function
    named = f"{one.interface} " if one.interface else ""
    yield (
        f"{named}{function.address} {function.vendor:04x}:{function.device:04x}  driver {function.driver or 'none'}  "
        f"VFs {function.num_vfs} of {function.total_vfs}, {one.in_use} in use"
    )
    for vf in one.vfs:
        yield f"  vf {vf.number}  {_identity(vf)}  {_settings(vf)}"
        yield f"    {vf.use or 'free'}; passthrough: {_passthrough(vf)}"


def _identity(vf: VirtualFunction) -> str:
    interface = f"  {vf.interface}" if vf.interface else ""
    group = "none" if vf.function.iommu_group is None else vf.function.iommu_group
    return f"{vf.function.address}  driver {vf.function.driver or 'none'}{interface}  IOMMU group {group}"


def _settings(vf: VirtualFunction) -> str:
    if vf.settings is None:
        return "MAC and VLAN: not told"
    qos = f" qos {vf.settings.qos}" if vf.settings.qos else ""
    return f"mac {vf.settings.mac}  vlan {vf.settings.vlan or 'none'}{qos}"


def _passthrough(vf: VirtualFunction) -> str:
    if vf.obstacle:
        return f"no: {vf.obstacle}"
    return "ready" if vf.ready else f"possible, by vfwire sriov bind {vf.function.address}"
