"""`vfwire image look`: what is in an image, and what is known to leave an instance unreachable; nothing is booted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vfwire.checks.image.inside import Findings


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="IMAGE")
@click.option("--model", type=click.Choice(["ena", "82599", "both"]), default="ena", show_default=True,
              help="The network device whose driver it must have.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def look(path: Path, model: str, as_json: bool) -> int:
    """Look into IMAGE (raw or qcow2) without booting it and without root.

    Exit code 0: it has all that it takes. 1: something would leave the instance unreachable. 3: cannot tell.
    """
    from vfwire.checks.image.inside import look_inside

    found = look_inside(path, model)
    if as_json:
        click.echo(json.dumps({"schema": 1, "image": str(path), **found.to_json()}))
    else:
        for line in findings_lines(found):
            click.echo(line)
    return found.verdict.exit_code


def findings_lines(found: "Findings") -> Iterator[str]:
    """Findings as text."""
    yield f"{found.system or 'a Linux without a name'}, {found.architecture}, {found.format}, {found.table}"
    yield f"  boots by: {', '.join(found.firmware) or 'nothing that is found'}"
    for kernel in found.kernels:
        drivers = (f"{name} {state}{f' {kernel.versions[name]}' if name in kernel.versions else ''}"
                   for name, state in kernel.drivers.items())  # fmt: skip
        yield f"  kernel {kernel.release}: {', '.join(drivers)}"
        if kernel.in_initramfs is not None:
            yield f"    {kernel.initramfs}: {', '.join(kernel.in_initramfs) or 'none of these'}"
    yield f"  first interface: {' or '.join(found.interface_names)}"
    for lease in found.leases:
        yield f"  DHCP: {lease.by} on {' '.join(lease.names) or 'any'} ({lease.source})"
    yield f"  cloud-init: {found.cloud_init or 'none'}"
    for problem in found.problems:
        yield f"{'PROBLEM' if problem.exit_code == 1 else 'UNKNOWN'}: {problem.reason}"
        yield f"  next: {problem.next_step}"
    if not found.problems:
        yield f"nothing found that would leave an instance unreachable; {found.verdict.next_step}"
