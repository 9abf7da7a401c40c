"""`vfwire catalog` and `vfwire ec2 check --all`: how long, how much memory, how many requests.

    python -m bench.ec2 [--instances 5000] [--runs 5] [--json]

The catalog is asked as a user asks it; wall-clock time, median of the runs. The check runs against the tests' local
endpoint (moto, in a process of its own), so its time is mostly that server's; what is the command's own are its peak
memory, its CPU time, and its requests. The memory is asked for twice, at a tenth of the instances and at all of them:
bounded means that the second is not ten times the first.
"""

import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click

from bench.__main__ import program
from bench.common import one_line_errors, progress_line
from vfwire.errors import VfwireError

_CHECK = ["ec2", "check", "--all", "--json"]


def catalog_seconds(runs: int) -> list[float]:
    """Wall-clock seconds of `vfwire catalog c5.large`; one run more, not counted, goes first."""
    taken = []
    for _ in range(runs + 1):
        begin = time.monotonic()
        subprocess.run([*program(), "catalog", "c5.large"], check=True, capture_output=True, timeout=60)
        taken.append(time.monotonic() - begin)
    return taken[1:]


def _serve(ready: Connection, instances: int) -> None:
    """In a process of its own: an endpoint with that many instances, until the other end closes."""
    from tests.ec2_endpoint.guests import Guest
    from tests.ec2_endpoint.server import serving

    with serving() as (endpoint, url):
        ena, plain = endpoint.image(ena=True), endpoint.image()
        endpoint.launch("c5.large", ena, count=instances * 6 // 10)
        endpoint.launch("c5.large", ena, Guest(managed=False), count=instances // 10)
        endpoint.launch("r4.large", ena, count=instances // 10)
        endpoint.launch("r4.large", plain, count=instances // 10)
        endpoint.launch("t2.micro", ena, count=instances // 10)
        ready.send(url)
        ready.poll(None)


def check_fleet(instances: int) -> dict[str, Any]:
    """One `vfwire ec2 check --all --json`: its summary, and what it cost. Raises VfwireError when it fails."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, instances), daemon=True
    )
    server.start()
    theirs.close()
    try:
        progress_line(f"making {instances} instances")
        url = ours.recv()
        progress_line("checking them")
        return _one_check(url)
    finally:
        ours.close()
        server.terminate()
        server.join()


def _one_check(url: str) -> dict[str, Any]:
    from tests.ec2_endpoint.server import CREDENTIALS

    begin = time.monotonic()
    with tempfile.TemporaryFile() as out:
        environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": url}
        with subprocess.Popen([*program(), *_CHECK], stdout=out, env=environment) as process:
            peak_kib, cpu_ticks = _watch(process)
        out.seek(0)
        if process.returncode != 1:  # some of the instances are not enhanced
            raise VfwireError(f"vfwire ec2 check ended with {process.returncode}")
        summary: dict[str, Any] = json.load(out)["summary"]
    return {
        **summary,
        "seconds": round(time.monotonic() - begin, 1),
        "cpu_s": round(cpu_ticks / os.sysconf("SC_CLK_TCK"), 1),
        "peak_mib": round(peak_kib / 1024, 1),
    }


def _watch(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Until it ends: its peak memory in KiB (VmHWM) and its CPU time in ticks, as of its last tenth of a second.

    Not by getrusage: its maximum counts the memory of whoever forked it too.
    """
    peak, ticks = 0, 0
    proc = Path(f"/proc/{process.pid}")
    while process.poll() is None:
        with contextlib.suppress(OSError, StopIteration, ValueError):
            status = (proc / "status").read_text().splitlines()
            peak = int(next(line for line in status if line.startswith("VmHWM:")).split()[1])
            fields = (proc / "stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    return peak, ticks


@click.command()
@click.option("--instances", default=5000, show_default=True, type=click.IntRange(100))
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Of vfwire catalog.")
@click.option("--json", "as_json", is_flag=True)
def main(instances: int, runs: int, as_json: bool) -> None:
    """What the questions about EC2 cost."""
    with one_line_errors():
        seconds = catalog_seconds(runs)
        fleets = [check_fleet(count) for count in (instances // 10, instances)]
    if as_json:
        click.echo(json.dumps({"catalog_s": seconds, "check": fleets}))
        return
    click.echo(f"vfwire catalog c5.large: {statistics.median(seconds):.2f} s, median of {runs}")
    for fleet in fleets:
        click.echo(
            f"vfwire ec2 check --all, {fleet['checked']} instances: {fleet['seconds']} s, of which CPU "
            f"{fleet['cpu_s']} s; peak memory {fleet['peak_mib']} MiB; {fleet['requests_total']} requests, "
            f"{fleet['requests_per_instance']} an instance"
        )


if __name__ == "__main__":
    main()
