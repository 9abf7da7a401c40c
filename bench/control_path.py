"""The control path's round trip: one register that traps, read and written over vfio-user, as a guest's exit would.

    python -m bench.control_path [--json]

The card is a process of its own (`vfwire card`), idle or with its log of accesses on (`--trace`). A read waits for its
answer; a write here does, too. What is timed holds the client's side of the message, in Python: QEMU's is shorter.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.common import one_line_errors, percentiles_us, progress_line
from bench.idle import wait_ready
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.layouts.ixgbevf import VFSTATUS, VTEIMS
from vfwire.pci.endpoint import RegionIndex

_WARM_UP = 200
_CARD = [sys.executable, "-c", "from vfwire.cli import main; main()", "card", "--vfs", "1"]


def round_trips(function: VfioUserFunction, samples: int, *, write: bool) -> dict[str, float]:
    """Percentiles in microseconds of so many accesses, one after the other."""
    taken = np.zeros(samples, np.int64)
    for number in range(-_WARM_UP, samples):
        begin = time.perf_counter_ns()
        if write:
            function.write32(RegionIndex.BAR0, VTEIMS, 1)
        else:
            function.read32(RegionIndex.BAR0, VFSTATUS)
        if number >= 0:
            taken[number] = time.perf_counter_ns() - begin
    return percentiles_us(taken)


def measure(samples: int, *, traced: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [*_CARD, "--dir", str(Path(folder) / "card")]
        if traced:
            command += ["--trace", str(Path(folder) / "trace")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                wait_ready(process)
                function = VfioUserFunction(Path(folder) / "card" / "vf0.sock")
                try:
                    read = round_trips(function, samples, write=False)
                    written = round_trips(function, samples, write=True)
                finally:
                    function.close()
            finally:
                process.terminate()
                process.wait(10)
    return {"traced": traced, "read_us": read, "write_us": written}


@click.command()
@click.option("--samples", default=20_000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(samples: int, as_json: bool) -> None:
    """What one access that traps costs, with and without a trace."""
    with one_line_errors():
        found = []
        for traced in (False, True):
            progress_line(f"{samples} reads and writes{', traced' if traced else ''}")
            found.append(measure(samples, traced=traced))
    if as_json:
        click.echo(json.dumps({"records": found}))
        return
    for record in found:
        for kind in ("read", "write"):
            figures = record[f"{kind}_us"]
            click.echo(
                f"{kind:5}{', traced' if record['traced'] else '':8}: p50 {figures['p50']:.1f} µs, "
                f"p99 {figures['p99']:.1f} µs, max {figures['max']:.0f} µs"
            )


if __name__ == "__main__":
    main()
