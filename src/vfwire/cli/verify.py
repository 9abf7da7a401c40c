"""`vfwire verify`: is this host on enhanced networking. Exit code 0 it is, 1 it is not, 3 cannot tell."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import click

from vfwire.checks.host import HostReport, check_host
from vfwire.checks.tree import Tree
from vfwire.cli.answers import answers
from vfwire.cli.stopping import stop_signals
from vfwire.errors import UsageError

_WATCH_SECONDS = 2.0
_QUIET_SECONDS = 2.0  # what takes longer says so


@click.command()
@click.argument("interfaces", nargs=-1, metavar="[IFACE]...")
@click.option("--sriov", is_flag=True, help="Show this host's physical and virtual functions instead.")
@click.option(
    "--sample", type=float, metavar="SECONDS", help="Read the counters twice, so far apart, and show rates."
)
@click.option("--watch", is_flag=True, help="Look again every --sample seconds (2 unless told otherwise).")
@click.option("--count", type=int, metavar="N", help="Stop watching after N looks.")
@click.option("--prometheus", metavar="[HOST:]PORT", help="Serve the counters under node_exporter's names.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/"),
    help="Look at a copy of another host's sys/, proc/ and lib/modules/ below this directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (one a line with --watch).")
@answers
def verify(
    interfaces: tuple[str, ...],
    sriov: bool,
    sample: float | None,
    watch: bool,
    count: int | None,
    prometheus: str | None,
    root: Path,
    as_json: bool,
) -> int:
    """Is enhanced networking on: all physical interfaces of this host, or those named.

    Exit code 0: it is on. 1: it is not. 3: cannot tell. 2: the command was wrong. Needs no privilege.
    """
    tree = Tree(root)
    _check_options(tree, sriov, sample, watch, count, prometheus, as_json)
    if sriov:
        from vfwire.cli.verify_sriov import show_sriov

        return show_sriov(tree, interfaces, as_json)

    def look() -> HostReport:
        return check_host(tree, interfaces)

    if prometheus is not None:
        return _serve(look, prometheus)
    return _look(look, sample, watch, count, as_json)


def _check_options(
    tree: Tree,
    sriov: bool,
    sample: float | None,
    watch: bool,
    count: int | None,
    prometheus: str | None,
    as_json: bool,
) -> None:
    if sample is not None and not 0.01 <= sample <= 86400:
        raise UsageError(f"{sample:g} is no time between two readings", "give 0.01 to 86400 seconds")
    if count is not None and (count < 1 or not watch):
        raise UsageError("--count says how often --watch looks", "give both, and at least 1")
    if sriov and (sample is not None or watch or prometheus is not None):
        raise UsageError("--sriov shows what is there once", "leave --sample, --watch and --prometheus out")
    if prometheus is not None and (sample is not None or watch or as_json):
        raise UsageError("--prometheus looks when it is asked", "leave --sample, --watch and --json out")
    if not tree.live and (sample is not None or watch or prometheus is not None):
        raise UsageError("a copy does not change", "leave --sample, --watch and --prometheus out")


def _look(
    look: Callable[[], HostReport], sample: float | None, watch: bool, count: int | None, as_json: bool
) -> int:
    """Once, twice for rates, or until it is stopped. The exit code is the last verdict's."""
    from vfwire.cli.verify_text import print_report, report_json

    seconds = sample or _WATCH_SECONDS
    before, report = None, look()
    looks = 1
    stopped = threading.Event()
    with stop_signals() as stop:
        if sample is not None and not watch:
            if seconds > _QUIET_SECONDS:
                click.echo(f"vfwire: reading the counters again in {seconds:g} s", err=True)
            stop.arm(stopped.set)
            stopped.wait(seconds)
            before, report = report, look()
        while True:
            if as_json:
                click.echo(json.dumps(report_json(report, before)))
            else:
                if watch:
                    click.clear()
                print_report(report, before)
            if not watch or looks == count:
                break
            stop.arm(stopped.set)
            if stopped.wait(seconds):
                break
            before, report, looks = report, look(), looks + 1
    return report.verdict.exit_code


def _serve(look: Callable[[], HostReport], where: str) -> int:
    host, _, number = where.rpartition(":")
    if not number.isdecimal() or int(number) > 65535:
        raise UsageError(
            f"{where[:40]!r} is no port", "give --prometheus 9101 or --prometheus 127.0.0.1:9101"
        )
    report = look()  # what is wrong is told now, not to the first who asks
    from vfwire.checks.exporter import serve

    stopped = threading.Event()
    with stop_signals() as stop:
        server, thread = serve(look, host.strip("[]") or "127.0.0.1", int(number))
        try:
            shown = (
                f"[{server.server_address[0]!s}]"
                if ":" in str(server.server_address[0])
                else server.server_address[0]
            )
            click.echo(f"http://{shown!s}:{server.server_port}/metrics")
            stop.arm(stopped.set)
            stopped.wait()
        finally:
            stop.disarm()
            server.shutdown()
            server.server_close()
            thread.join()
    return report.verdict.exit_code
