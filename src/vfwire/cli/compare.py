"""`vfwire compare`: the main job. The default path and those over VFs, measured in one run, shown side by side."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from vfwire.cli.progress import Steps
from vfwire.errors import UsageError

if TYPE_CHECKING:
    from vfwire.measure.compare import ComparePlan
    from vfwire.measure.record import PathRecord
    from vfwire.paths.path import PathOptions

_ENA_LINE_RATE = 100_000_000_000


@click.command()
@click.option(
    "--size", "sizes", type=int, multiple=True, help="Frame size with FCS; may be given several times."
)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Of each measured window.")
@click.option("--same-host", is_flag=True, help="Both systems on one host: one card, no link.")
@click.option(
    "--driver",
    "drivers",
    type=click.Choice(("ixgbevf", "ena")),
    multiple=True,
    help="Of the enhanced path; may be given several times. All when left out.",
)
@click.option(
    "--line-rate", help="Of functions and link: 10G, 2.5G, off.  [default: 10G, of the ENA's cards 100G]"
)
@click.option("--default-cap", default="5G", show_default=True, help="Of the default path: 5G, off.")
@click.option("--both-ways", is_flag=True, help="Both systems send at once.")
@click.option("--rate", type=int, help="Packets a second to offer; as fast as it goes when left out.")
@click.option("--full-check", is_flag=True, help="Write and check every byte, not headers and numbers alone.")
@click.option(
    "--replay", type=click.Path(path_type=Path), help="Send the frames of a capture (pcap, pcapng)."
)
@click.option("--ring-size", type=int, default=1024, show_default=True, help="Of the VFs' rings.")
@click.option("--queues", type=int, default=1, show_default=True, help="Of each VF, fed by as many flows.")
@click.option(
    "--llq",
    type=click.Choice(("off", "128", "256")),
    default="off",
    show_default=True,
    help="Bytes of an entry of the ENA's low-latency queues.",
)
@click.option(
    "--guests", is_flag=True, help="Between two virtual machines with their own drivers; takes a minute."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--plot", "plot_to", type=click.Path(path_type=Path), help="Draw the result to FILE.png.")
@click.pass_context
def compare(context: click.Context, /, *, guests: bool, **options: Any) -> None:
    """Two systems exchange packets over the default path and over a virtual function each; compare them."""
    with Steps() as steps, _ended_by_sigterm():
        steps.note("loading")
        if guests:
            from vfwire.cli.compare_guests import run_guests

            _check_for_guests(context)
            run_guests(steps, **{name: options[name] for name in FOR_GUESTS})
        else:
            _run(steps, **options)


FOR_GUESTS = ("seconds", "line_rate", "as_json", "plot_to")


def _check_for_guests(context: click.Context) -> None:
    """Raises UsageError for an option that says what to send: guests send what pktgen, iperf3 and ping do."""
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name not in (*FOR_GUESTS, "guests"):
            raise UsageError(
                f"{option.opts[0]} does not go with --guests", "pktgen, iperf3 and ping say what is sent"
            )


def _run(steps: Steps, *, as_json: bool, plot_to: Path | None, **options: Any) -> None:
    from vfwire.measure.compare import as_json as to_json
    from vfwire.measure.machine import describe_machine
    from vfwire.measure.plot import check_plot, plot
    from vfwire.measure.record import gains

    if plot_to is not None:
        check_plot(plot_to)
    drivers = options.pop("drivers")
    line_rate = options.pop("line_rate")
    drivers = drivers or ("ixgbevf", "ena")
    path_options, plan, run = _plan(**options)
    records, run["first_packet_s"] = _measure(steps, _by_driver(path_options, drivers, line_rate), plan)
    steps.note("the machine")
    machine = describe_machine()
    if plot_to is not None:
        caption = f"{machine['cpu']}, {machine['cores']} cores; checked: {run['check']}; {run['seconds']:g} s a window"
        plot(records, plot_to, caption)
    if as_json:
        click.echo(json.dumps(to_json(machine, records, run=run), indent=2))
        return
    from vfwire.cli.compare_table import show

    show(machine, records, gains(records), run)


def _plan(**options: Any) -> "tuple[PathOptions, ComparePlan, dict[str, Any]]":
    """(what the paths are, what is measured, what is said of the run). Raises UsageError, BadInput."""
    from vfwire.devices.settings import parse_rate
    from vfwire.measure.compare import LARGEST, SIZES, ComparePlan
    from vfwire.measure.phases import StreamPlan
    from vfwire.paths.applications import Packed
    from vfwire.paths.path import PathOptions

    capture = options["replay"]
    if capture and (options["both_ways"] or options["rate"] or options["sizes"] or options["queues"] != 1):
        raise UsageError(
            "--replay goes one way, in the capture's order and sizes, as fast as nothing is lost"
        )
    frames = _frames(capture, LARGEST - 4) if capture else []
    stream = StreamPlan(
        rate_pps=options["rate"],
        both_ways=options["both_ways"],
        every_byte=options["full_check"],
        flows=_flows(options["queues"]),
        replay=bool(capture),
    )
    sizes = tuple(dict.fromkeys(options["sizes"])) or ((LARGEST,) if capture else SIZES)
    seconds = options["seconds"]
    plan = ComparePlan(sizes=sizes, seconds=seconds, rtt_seconds=0 if capture else seconds / 2, stream=stream)
    plan.check()
    paths = PathOptions(
        same_host=options["same_host"],
        default_cap_bps=parse_rate(options["default_cap"]),
        ring_size=options["ring_size"],
        queues=options["queues"],
        llq=0 if options["llq"] == "off" else int(options["llq"]),
        replay=Packed.of(frames) if frames else None,
    )
    every_byte = options["full_check"] or bool(capture)
    run = {
        "same_host": paths.same_host,
        "default_cap_bps": paths.default_cap_bps,
        "seconds": seconds,
        "check": "every byte" if every_byte else "headers and sequence numbers",
        "replay": {"file": str(capture), "frames": len(frames)} if capture else None,
    }
    return paths, plan, run


def _by_driver(
    options: "PathOptions", drivers: Sequence[str], line_rate: str | None
) -> "dict[str, PathOptions]":
    """What each path is, by its driver: those that were asked for after the default path's netfront."""
    from vfwire.devices.settings import parse_rate

    if line_rate is not None:
        options = replace(options, line_rate_bps=parse_rate(line_rate))
        return dict.fromkeys(("netfront", *drivers), options)
    return {
        name: replace(options, line_rate_bps=_ENA_LINE_RATE) if name == "ena" else options
        for name in ("netfront", *drivers)
    }


def _frames(capture: Path, longest: int) -> list[bytes]:
    from vfwire.measure.capture import read_capture
    from vfwire.measure.compare import padded

    return padded(read_capture(capture, longest))


def _flows(queues: int) -> int:
    if queues not in (1, 2, 4):
        raise UsageError("a VF has 1, 2 or 4 queues")
    return 1 if queues == 1 else 64


def _measure(
    steps: Steps, options: "dict[str, PathOptions]", plan: "ComparePlan"
) -> "tuple[list[PathRecord], float | None]":
    """The records, and the seconds from this process's start until the first packet arrived."""
    from vfwire.measure import compare as comparison
    from vfwire.paths import path as base
    from vfwire.paths.default import DefaultPath
    from vfwire.paths.enhanced import EnhancedPath
    from vfwire.paths.prepare import prepare
    from vfwire.paths.process import Family

    prepare(lambda part: steps.note(f"compiling {part} (once)"))
    with Family() as family:
        paths: list[base.Path] = [
            DefaultPath(family, of) if driver == "netfront" else EnhancedPath(family, of, driver)
            for driver, of in options.items()
        ]
        try:
            records = comparison.compare(paths, plan, steps.step)
            first = paths[0].first_packet_at
            return records, first and round(first - _started_at(), 3)
        finally:
            for path in paths:
                path.close()


def _started_at() -> float:
    """When the kernel started this process, in seconds of CLOCK_BOOTTIME, to a clock tick (proc(5), stat field 22).

    psutil's create_time adds the time of boot, which the kernel tells in whole seconds.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds like an exception, so that processes and the run directory go."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
