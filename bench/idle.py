"""An idle card: private memory, share of a core, and the round trip at one and at a hundred pings a second.

    python -m bench.idle [--vfs 4] [--seconds 10] [--json]

The card polls while there is traffic and naps when there is none (devices/engine.py states its longest nap), so
a lone ping meets a napping card twice on its way.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import psutil

from bench.common import one_line_errors, progress_line
from vfwire.devices.engine import NAP_NS, SPIN_NS
from vfwire.errors import WaitTimeout
from vfwire.measure.phases import measure_round_trips
from vfwire.measure.record import percentiles_us
from vfwire.paths.enhanced import EnhancedPath
from vfwire.paths.path import PathOptions
from vfwire.paths.prepare import prepare
from vfwire.paths.process import Family

PINGS_A_SECOND = (1, 100)
_READY_SECONDS = 60.0


def wait_ready(process: subprocess.Popen[str]) -> None:
    """Until the card has said that it is up: its first line of output."""
    deadline = time.monotonic() + _READY_SECONDS
    assert process.stdout is not None
    if not process.stdout.readline() or time.monotonic() > deadline:
        raise WaitTimeout("the card did not come up")


def footprint(vfs: int, seconds: float) -> dict[str, Any]:
    """Private memory (USS) and CPU of a `vfwire card` that nobody uses."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from vfwire.cli import main; main()", "card"]
        command += ["--vfs", str(vfs), "--dir", str(Path(folder) / "card")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                wait_ready(process)
                card = psutil.Process(process.pid)
                card.cpu_percent(None)
                busy = card.cpu_percent(seconds)
                private = card.memory_full_info().uss
            finally:
                process.terminate()
                process.wait(10)
    return {"vfs": vfs, "private_mib": round(private / 2**20, 1), "cpu_percent": round(busy, 2)}


def lone_pings(seconds: float) -> dict[str, Any]:
    """Percentiles of the round trip in microseconds, for each rate of pings."""
    result = {}
    with Family() as family:
        path = EnhancedPath(family, PathOptions())
        path.open()
        for rate in PINGS_A_SECOND:
            samples = measure_round_trips(path, 64, seconds, interval=1 / rate)
            result[str(rate)] = percentiles_us(samples)
        path.close()
    return result


@click.command()
@click.option("--vfs", default=4, show_default=True)
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(vfs: int, seconds: float, as_json: bool) -> None:
    """What a card costs when nothing happens, and what that costs the first packet."""
    with one_line_errors():
        prepare(progress_line)
        card = footprint(vfs, seconds)
        pings = lone_pings(seconds)
    if as_json:
        nap = {"spin_ns": SPIN_NS, "longest_nap_ns": NAP_NS}
        click.echo(json.dumps({**card, **nap, "rtt_us": pings, "cores": os.cpu_count()}))
        return
    click.echo(f"idle card, {vfs} VFs: {card['private_mib']} MiB private, {card['cpu_percent']} % of a core")
    click.echo(
        f"it polls for {SPIN_NS / 1e6} ms without traffic, then naps for {NAP_NS / 1e6} ms at the most"
    )
    for rate, found in pings.items():
        click.echo(f"{rate:>4} pings a second: p50 {found['p50']:.1f} µs, p99 {found['p99']:.1f} µs")


if __name__ == "__main__":
    main()
