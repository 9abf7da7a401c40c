"""`vfwire image look`: what is in an image, and what is known to leave an instance unreachable; nothing is booted."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vfwire.cli.answers import answers
from vfwire.errors import UsageError

if TYPE_CHECKING:
    from vfwire.checks.image.inside import Findings
    from vfwire.checks.image.kernels import Start

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--model", type=click.Choice(["ena", "82599", "both"]), default="ena", show_default=True,
                 help="Of the network device that it is to meet."),
    click.option("--kernel", type=click.Path(path_type=Path),
                 help="What is started instead of the disk's boot loader."),
    click.option("--initrd", type=click.Path(path_type=Path), help="With --kernel: its initramfs."),
    click.option("--append", default="", help="With --kernel: its command line."),
)  # fmt: skip


def image_options(command: _Command) -> _Command:
    """Adds IMAGE, --model, --kernel, --initrd and --append."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("path", type=click.Path(path_type=Path), metavar="[IMAGE]", required=False)(command)


@click.command()
@image_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@answers
def look(
    path: Path | None, model: str, kernel: Path | None, initrd: Path | None, append: str, as_json: bool
) -> int:
    """Look into IMAGE (raw or qcow2), or --kernel and --initrd, without booting and without root.

    Exit code 0: it has all that it takes. 1: something would leave the instance unreachable. 3: cannot tell.
    """
    found = look_at(path, model, start_of(path, kernel, initrd, append))
    if as_json:
        click.echo(json.dumps({"schema": 1, "image": str(path) if path else None, **found.to_json()}))
    else:
        for line in findings_lines(found):
            click.echo(line)
    return found.verdict.exit_code


def start_of(path: Path | None, kernel: Path | None, initrd: Path | None, append: str) -> "Start | None":
    """What is started instead of a boot loader; None for the disk's own. Raises UsageError."""
    if path is None and kernel is None:
        raise UsageError("there is nothing to start from", "name an image, or give --kernel and --initrd")
    if kernel is None and (initrd is not None or append):
        raise UsageError("--initrd and --append go with --kernel", "give the kernel too")
    from vfwire.checks.image.kernels import Start

    return Start(kernel, initrd, append) if kernel else None


def look_at(path: Path | None, model: str, start: "Start | None") -> "Findings":
    from vfwire.checks.image.inside import look_at_start, look_inside

    if path is not None:
        return look_inside(path, model, start)
    assert start is not None
    return look_at_start(start, model)


def findings_lines(found: "Findings") -> Iterator[str]:
    """Findings as text."""
    if found.format != "kernel":
        yield f"{found.system or 'a Linux without a name'}, {found.architecture}, {found.format}, {found.table}"
    yield f"  boots by: {', '.join(found.firmware) or 'nothing that is found'}"
    for kernel in found.kernels:
        drivers = (f"{name} {state}{f' {kernel.versions[name]}' if name in kernel.versions else ''}"
                   for name, state in kernel.drivers.items())  # fmt: skip
        yield f"  kernel {kernel.release}: {', '.join(drivers)}"
        if kernel.in_initramfs is not None:
            yield f"    {kernel.initramfs}: {', '.join(kernel.in_initramfs) or 'none of these'}"
    if found.interface_names:
        yield f"  first interface: {' or '.join(found.interface_names)}"
    for lease in found.leases:
        yield f"  DHCP: {lease.by} on {' '.join(lease.names) or 'any'} ({lease.source})"
    if found.format != "kernel":
        yield f"  cloud-init: {found.cloud_init or 'none'}"
    for problem in found.problems:
        yield f"{'PROBLEM' if problem.exit_code == 1 else 'UNKNOWN'}: {problem.reason}"
        yield f"  next: {problem.next_step}"
    if not found.problems:
        yield f"nothing found that would leave an instance unreachable; {found.verdict.next_step}"
