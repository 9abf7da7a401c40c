"""`vfwire sriov`: how many VFs a PF has, and which driver has a function. Says what is wanted; does what is missing."""

import json
from pathlib import Path

import click

from vfwire.checks.sriov_plan import Plan, carry_out, find_function, plan_bind, plan_unbind, plan_vfs
from vfwire.checks.tree import Tree
from vfwire.errors import UsageError, VfwireError

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be done, as shell commands.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/"),
    help="With --dry-run: of a copy of another host's sys/ below this directory.",
)


@click.group()
def sriov() -> None:
    """Change this host's physical and virtual functions (vfwire verify --sriov shows them).

    What is in use is not taken away: an interface that is up, in a bridge or bond, carries the default route or is in
    another network namespace, and a function that a program or guest has open.
    """


@sriov.command(name="set")
@click.argument("pf")
@click.option("--vfs", type=int, required=True, metavar="N", help="How many VFs PF shall have.")
@click.option("--autoprobe", type=click.Choice(["on", "off"]), help="Whether new VFs get this host's driver.")
@_DRY_RUN
@_ROOT
@_JSON
def set_(pf: str, vfs: int, autoprobe: str | None, dry_run: bool, root: Path, as_json: bool) -> None:
    """Give PF (an interface or a PCI address) exactly N VFs."""
    tree = _tree(root, dry_run)
    plan = plan_vfs(tree, pf, vfs, None if autoprobe is None else autoprobe == "on")
    _do(tree, plan, dry_run, as_json)
    if not dry_run and find_function(tree, [], _address(tree, pf)).num_vfs != vfs:
        raise VfwireError(
            f"{pf} does not have {vfs} VFs now", "somebody else changes it: vfwire verify --sriov"
        )


@sriov.command()
@click.argument("function")
@click.option(
    "--driver", default="vfio-pci", show_default=True, help="vfio-pci gives it to a guest or a program."
)
@_DRY_RUN
@_ROOT
@_JSON
def bind(function: str, driver: str, dry_run: bool, root: Path, as_json: bool) -> None:
    """Have FUNCTION (eth0/3, an interface, or a PCI address) driven by a driver."""
    tree = _tree(root, dry_run)
    address = _address(tree, function)
    _do(tree, plan_bind(tree, address, driver), dry_run, as_json)
    _check_driver(tree, address, driver, dry_run)


@sriov.command()
@click.argument("function")
@_DRY_RUN
@_ROOT
@_JSON
def unbind(function: str, dry_run: bool, root: Path, as_json: bool) -> None:
    """Leave FUNCTION (eth0/3, an interface, or a PCI address) without a driver."""
    tree = _tree(root, dry_run)
    address = _address(tree, function)
    _do(tree, plan_unbind(tree, address), dry_run, as_json)
    _check_driver(tree, address, None, dry_run)


def _tree(root: Path, dry_run: bool) -> Tree:
    tree = Tree(root)
    if not tree.live and not dry_run:
        raise UsageError("a copy cannot be changed", "add --dry-run")
    return tree


def _address(tree: Tree, name: str) -> str:
    """Names may change by what is done: an interface goes with its driver."""
    from vfwire.checks.links import read_links

    return find_function(tree, read_links(tree), name).address


def _do(tree: Tree, plan: Plan, dry_run: bool, as_json: bool) -> None:
    if plan.note:
        click.echo(f"vfwire: {plan.note}", err=True)
    if not dry_run:
        carry_out(tree, plan, lambda step: None if as_json else click.echo(f"{step.command}    # {step.why}"))
    elif not as_json:
        for step in plan.steps:
            click.echo(f"{step.command}    # {step.why}")
    if as_json:
        steps = [{"path": f"/{step.path}", "value": step.value, "why": step.why} for step in plan.steps]
        click.echo(json.dumps({"changed": bool(steps) and not dry_run, "dry_run": dry_run, "steps": steps}))
    elif not plan.steps:
        click.echo(f"nothing to do: {plan.done}")


def _check_driver(tree: Tree, address: str, driver: str | None, dry_run: bool) -> None:
    if dry_run:
        return
    now = find_function(tree, [], address).driver
    if now != driver:
        raise VfwireError(
            f"{address} is driven by {now or 'nothing'} now, not by {driver or 'nothing'}",
            f"dmesg | grep {address} has the driver's reason",
        )
