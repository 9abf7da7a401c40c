"""`vfwire image check`: will this image come up on EC2. Exit code 0 it will, 1 it will not, 3 cannot tell."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vfwire.checks.verdict import State, Verdict, worst
from vfwire.cli.answers import answers
from vfwire.cli.image_look import findings_lines, image_options, look, look_at, start_of
from vfwire.errors import CannotTell, UsageError

if TYPE_CHECKING:
    from vfwire.checks.image.boot import Report
    from vfwire.checks.image.inside import Findings
    from vfwire.checks.image.kernels import Start
    from vfwire.checks.image.steps import Step

_MODELS = {"ena": ("ena",), "82599": ("82599",), "both": ("ena", "82599")}


@click.group()
def image() -> None:
    """Will an image come up on EC2 with enhanced networking, before it is uploaded."""


image.add_command(look)


@image.command()
@image_options
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
@answers
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
    start = start_of(path, kernel, initrd, append)
    if not 1 <= seconds <= 86400:
        raise UsageError(f"{seconds:g} is no time to wait", "give 1 to 86400 seconds")
    public_key = _public_key(key)
    inside, unseen = _look_inside(path, model, start)
    if inside is not None and not as_json:
        for line in findings_lines(inside):
            click.echo(line)
    click.echo("vfwire: loading", err=True)
    from vfwire.checks.image.boot import SETTLE_SECONDS, SOON_SECONDS, Options, boot_image

    settle = SETTLE_SECONDS if inside is None or inside.cloud_init or path is None else SOON_SECONDS
    reports = []
    for one in _MODELS[model]:
        options = Options(one, firmware, seconds, memory, vcpus, kernel, initrd, append, settle)
        click.echo(f"vfwire: booting with {_device(one)}; up to {seconds:g} s", err=True)
        report = boot_image(path, options, public_key, _tell, _echo if console else None)
        reports.append(_with_cause(report, path, start))
    verdict = worst(report.verdict for report in reports)
    assert verdict is not None
    if as_json:
        seen = unseen.as_json() if inside is None else inside.to_json()
        boots = [report.to_json() for report in reports]
        told = {
            "schema": 1,
            "image": str(path) if path else None,
            **verdict.as_json(),
            "inside": seen,
            "boots": boots,
        }
        click.echo(json.dumps(told))
    else:
        for report in reports:
            _show(report)
    return verdict.exit_code


def _look_inside(path: Path | None, model: str, start: "Start | None") -> "tuple[Findings | None, Verdict]":
    """None where it cannot be read from here (btrfs), and why: whether it boots can be seen all the same."""
    try:
        found = look_at(path, model, start)
    except CannotTell as error:
        click.echo(f"vfwire: {error.message}", err=True)
        return None, Verdict(State.UNKNOWN, error.message, error.hint)
    return found, found.verdict


def _with_cause(report: "Report", path: Path | None, start: "Start | None") -> "Report":
    """What was found inside, where that is why it does not come up: a boot shows only how far it came."""
    if report.verdict.state is not State.NOT:
        return report
    found, cause = _look_inside(path, report.options.model, start)
    if found is None or cause.state is not State.NOT:
        return report
    reason = f"{report.verdict.reason}; inside: {cause.reason}"
    return replace(report, verdict=Verdict(State.NOT, reason, cause.next_step))


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
