"""`vfwire compare --guests`: the main job between two virtual machines with the drivers of their distribution."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from vfwire.cli.compare_table import NONE, number, percentiles, print_whole, scaled, show_gains
from vfwire.cli.progress import Steps

if TYPE_CHECKING:
    from vfwire.measure.guests import GuestRecord


def run_guests(
    steps: Steps, *, seconds: float, line_rate: str | None, as_json: bool, plot_to: Path | None
) -> None:
    """Boot, measure, show. Raises UnsupportedMachine without a fit QEMU, and what guests raise."""
    from vfwire.devices.settings import parse_rate
    from vfwire.errors import UsageError
    from vfwire.guests.pair import MODELS, PairOptions
    from vfwire.measure.compare import as_json as to_json
    from vfwire.measure.guests import guest_gains
    from vfwire.measure.machine import describe_machine
    from vfwire.measure.plot import check_plot, plot

    if not 0.5 <= seconds <= 3600:
        raise UsageError("between guests a measured window takes 0.5 to 3600 seconds")
    if plot_to is not None:
        check_plot(plot_to)
    rates = MODELS if line_rate is None else dict.fromkeys(MODELS, parse_rate(line_rate))
    options = PairOptions(line_rate_bps=rates)
    records, run = _measure(steps, options, seconds)
    steps.note("the machine")
    machine = describe_machine()
    if plot_to is not None:
        plot(
            records,
            plot_to,
            f"{machine['cpu']}, {machine['cores']} cores; {_kind(run)}; {seconds:g} s a window",
        )
    if as_json:
        click.echo(json.dumps(to_json(machine, records, run=run, gains=guest_gains(records)), indent=2))
        return
    _show(machine, records, guest_gains(records), run)


def _measure(steps: Steps, options: Any, seconds: float) -> "tuple[list[GuestRecord], dict[str, Any]]":
    from vfwire.devices.engine import Engine
    from vfwire.guests.image import cached_image
    from vfwire.guests.pair import GuestPair
    from vfwire.guests.qemu import find_qemu
    from vfwire.measure.guests import compare_guests
    from vfwire.paths.process import Family

    qemu = find_qemu()
    steps.note("the guests' image (built once, from Debian's packages)")
    image = cached_image(progress=steps.note)
    Engine.warm_up(lambda part: steps.note(f"compiling {part}, or loading it"))
    with Family() as family, GuestPair(family, image, qemu, options) as pair:
        pair.open(steps.note)
        records = compare_guests(pair, seconds, steps.step)
        run = {
            "same_host": True,
            "seconds": seconds,
            "check": "counters: nobody looks into the frames",
            "vcpus": options.vcpus,
            "memory_mib": options.memory_mib,
            "kernel": image.manifest["kernel"],
            "qemu": qemu.version,
            "accelerators": pair.accelerators,
            "left_out": pair.left_out,
        }
    return records, run


def _kind(run: dict[str, Any]) -> str:
    emulated = "tcg" in run["accelerators"]
    return "guests are emulated (QEMU's TCG, no KVM)" if emulated else "guests run on KVM"


def _show(
    machine: dict[str, Any],
    records: "Sequence[GuestRecord]",
    gains: Sequence[dict[str, Any]],
    run: dict[str, Any],
) -> None:
    console = Console(highlight=False)
    title = f"two guests, one host, {run['vcpus']} vCPU and {run['memory_mib']} MiB each; {_kind(run)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for record in records:
        better = "\nthe better default" if record.better_default else "\n"
        table.add_column(f"{record.path} path\n{record.via}{better}", justify="right", min_width=16)
    for name, value in _ROWS:
        cells = [value(record) for record in records]
        if any(cell != NONE for cell in cells):
            table.add_row(name, *cells)
    print_whole(console, table)
    show_gains(console, gains, "enhanced over the better default")
    for via, reason in run["left_out"].items():
        console.print(f"left out: {via}: {reason}")
    console.print(
        f"{_kind(run)}: what a guest does itself takes most of the time; compare columns, not figures"
    )
    console.print(f"pktgen's 64-byte frames, dropped behind the receiving interface; checked: {run['check']}")
    console.print(f"guests: Debian's kernel {run['kernel']} and its drivers, QEMU {run['qemu']}")
    console.print(f"on {machine['cpu']}, {machine['cores']} cores")


def _tcp(direction: str) -> "Callable[[GuestRecord], str]":
    return lambda record: scaled(record.tcp_bits_per_second[direction], "bit/s")


def _loss(record: "GuestRecord") -> str:
    causes = "\n".join(f"{cause} {count:,}" for cause, count in record.lost_to.items())
    return f"{record.lost:,} of {record.sent:,}" + (f"\n{causes}" if causes else "")


def _offered(record: "GuestRecord") -> str:
    return "as fast as it goes" if record.offered_pps is None else scaled(record.offered_pps, "")


def _percent(share: float) -> str:
    return f"{share:.0%}"


_ROWS: "list[tuple[str, Callable[[GuestRecord], str]]]" = [
    ("driver, says the guest", lambda record: record.driver),
    ("packets a second", lambda record: scaled(record.packets_per_second, "")),
    ("offered", _offered),
    ("lost", _loss),
    ("TCP to vm2", _tcp("forward")),
    ("TCP to vm1", _tcp("reverse")),
    *percentiles(),
    ("round trips", lambda record: f"{record.rtt_us['samples']:,}"),
    ("vCPU of vm1, vm2", lambda r: f"{_percent(r.guest_cpu['sender'])}, {_percent(r.guest_cpu['receiver'])}"),
    ("host CPU, cores: QEMU", lambda record: number(record.cores_used["guests"])),
    ("  the card", lambda record: number(record.cores_used["card"])),
    ("host CPU a packet", lambda record: number(record.cpu_ns_per_packet["systems"], "ns")),
    ("copies", lambda record: number(record.hops["copies"])),
    ("interrupts a packet", lambda record: number(record.hops["wakeups_per_packet"])),
    ("trapped accesses a packet", lambda record: number(record.hops["traps_per_packet"])),
    ("receive ring", lambda record: f"{record.ring_size:,}"),
]
