"""`vfwire image check`: will this image come up on EC2. Exit code 0 it will, 1 it will not, 3 cannot tell."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vfwire.cli.image_look import findings_lines, look
from vfwire.errors import CannotTell, UsageError

if TYPE_CHECKING:
    from vfwire.checks.image.boot import Report
    from vfwire.checks.image.inside import Findings
    from vfwire.checks.image.steps import Step

_MODELS = {"ena": ("ena",), "82599": ("82599",), "both": ("ena", "82599")}


@click.group()
def image() -> None:
    """Will an image come up on EC2 with enhanced networking, before it is uploaded."""


image.add_command(look)


@image.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="IMAGE", required=False)
@click.option("--model", type=click.Choice(list(_MODELS)), default="ena", show_default=True,
              help="Of the network device that it is to meet.")  # fmt: skip
@click.option(
    "--kernel", type=click.Path(path_type=Path), help="Start this kernel instead of the disk's boot loader."
)
@click.option("--initrd", type=click.Path(path_type=Path), help="With --kernel: its initramfs.")
@click.option("--append", default="", help="With --kernel: its command line.")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="uefi", show_default=True,
              help="What the disk is started by.")  # fmt: skip
@click.option(
    "--seconds", type=float, default=300.0, show_default=True, help="How long it has to become reachable."
)
@click.option("--memory", type=click.IntRange(128, 65536), default=1024, show_default=True, metavar="MIB")
@click.option("--vcpus", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--key", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="An OpenSSH public key for the metadata service to hand out.")  # fmt: skip
@click.option("--console", is_flag=True, help="Show the guest's console as it comes, on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    path: Path | None,
    model: str,
    kernel: Path | None,
    initrd: Path | None,
    append: str,
    firmware: str,
    seconds: float,
    memory: int,
    vcpus: int,
    key: Path | None,
    console: bool,
    as_json: bool,
) -> int:
    """Look into IMAGE, boot it (or --kernel and --initrd) as EC2 would present itself, and watch from outside.

    Its root disk is on NVMe, the system says "Amazon EC2", its network device is on a card whose uplink answers DHCP
    and the instance metadata service. No agent, no login: PASS only if the guest becomes reachable. The image is
    not written to.
    """
    if path is None and kernel is None:
        raise UsageError("there is nothing to start from", "name an image, or give --kernel and --initrd")
    if kernel is None and (initrd is not None or append):
        raise UsageError("--initrd and --append go with --kernel", "give the kernel too")
    if not 1 <= seconds <= 86400:
        raise UsageError(f"{seconds:g} is no time to wait", "give 1 to 86400 seconds")
    inside = None if path is None else _look_inside(path, model)
    if inside is not None and not as_json:
        for line in findings_lines(inside):
            click.echo(line)
    click.echo("vfwire: loading", err=True)
    from vfwire.checks.image.boot import Options, boot_image

    reports = []
    for one in _MODELS[model]:
        options = Options(one, firmware, seconds, memory, vcpus, kernel, initrd, append)
        click.echo(f"vfwire: booting with {_device(one)}; up to {seconds:g} s", err=True)
        reports.append(boot_image(path, options, _public_key(key), _tell, _echo if console else None))
    if as_json:
        click.echo(json.dumps(_summary(path, inside, reports)))
    else:
        for report in reports:
            _show(report)
    return max((report.verdict.exit_code for report in reports), key=lambda code: (code == 1, code))


def _look_inside(path: Path, model: str) -> "Findings | None":
    """None where it cannot be read from here (btrfs, LVM): whether it boots can be seen all the same."""
    from vfwire.checks.image.inside import look_inside

    try:
        return look_inside(path, model)
    except CannotTell as error:
        click.echo(f"vfwire: {error.message}", err=True)
        return None


def _device(model: str) -> str:
    return "an ENA" if model == "ena" else "an 82599 VF"


def _public_key(path: Path | None) -> str | None:
    if path is None:
        return None
    text = path.read_text(errors="replace").strip()
    if "PRIVATE KEY" in text or len(text.split()) < 2:
        raise UsageError(f"{path} is no OpenSSH public key", "give the file that ends in .pub")
    return text


def _tell(step: "Step") -> None:
    click.echo(f"vfwire: {step.seconds:6.1f} s  {step.name}", err=True)


def _echo(data: bytes) -> None:
    click.echo(data, nl=False, err=True)


def _summary(path: Path | None, inside: "Findings | None", reports: "list[Report]") -> dict[str, Any]:
    return {
        "schema": 1,
        "image": str(path) if path else None,
        "inside": inside.to_json() if inside else None,
        "boots": [report.to_json() for report in reports],
    }


def _show(report: "Report") -> None:
    emulated = " (software emulation)" if report.accelerator == "tcg" else ""
    click.echo(f"{_device(report.options.model)}, {report.options.firmware}{emulated}")
    for step in report.steps:
        when = "      -  " if step.seconds is None else f"{step.seconds:7.1f} s"
        click.echo(f"  {when}  {step.name}{': ' + step.detail if step.detail else ''}")
    verdict = report.verdict
    click.echo(f"{'PASS' if verdict.exit_code == 0 else 'FAIL'}: {verdict.reason}")
    if verdict.next_step:
        click.echo(f"next: {verdict.next_step}")
    if verdict.exit_code:
        click.echo("the console's last lines:")
        for line in report.console:
            click.echo(f"  | {line}")
