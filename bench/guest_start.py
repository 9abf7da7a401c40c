"""From the start of `vfwire guest` to "driver: ixgbevf", as the guest's own ethtool says it.

    python -m bench.guest_start [--runs 5] [--json]

The command is run as a user runs it, on a function of a card that runs already; the figure is taken from outside, from
the start of the process to the end of its answer. QEMU and the small guest have to be there (`vfwire guest qemu`
fetches the one, the first run builds the other). What ran the guest, KVM or emulation, is part of the answer.
"""

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bench.__main__ import program
from bench.common import one_line_errors, progress_line, run_json, stop_process
from vfwire.errors import PeerGone, VfwireError

TIMEOUT_SECONDS = 300.0
WANTED = "driver: ixgbevf\n"


@contextlib.contextmanager
def running_card() -> Iterator[str]:
    """A card with one function; gives the function's socket."""
    with tempfile.TemporaryDirectory(prefix="vfw") as folder:
        command = [*program(), "card", "--json", "--vfs", "1", "--dir", str(Path(folder) / "card")]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise PeerGone("the card did not come up", "run vfwire card by hand")
                yield json.loads(line)["vfs"][0]["socket"]
            finally:
                stop_process(process)


def start_once(socket: str) -> dict[str, Any]:
    """One run: its seconds, and what ran the guest. Raises VfwireError when another driver answers."""
    begin = time.monotonic()
    answer = run_json(
        [*program(), "guest", "--vf", socket, "--json", "--run", "ethtool -i eth0"], timeout=TIMEOUT_SECONDS
    )
    seconds = time.monotonic() - begin
    if WANTED not in answer["output"]:
        raise VfwireError(f"the guest has no ixgbevf: {answer['output'][:80]!r}")
    return {"seconds": round(seconds, 2), "ready_s": answer["ready_s"], "accelerator": answer["accelerator"]}


@click.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(runs: int, as_json: bool) -> None:
    """Seconds to the driver's name, median of the runs."""
    found = []
    with one_line_errors(), running_card() as socket:
        for number in range(runs):
            found.append(start_once(socket))
            progress_line(f"run {number + 1}: {found[-1]['seconds']} s")
    median = statistics.median(run["seconds"] for run in found)
    if as_json:
        click.echo(json.dumps({"driver_answered_s": median, "runs": found}))
        return
    how = " and ".join(sorted({run["accelerator"] for run in found}))
    click.echo(f"vfwire guest, start to 'driver: ixgbevf', under {how}: {median:.1f} s, median of {runs}")


if __name__ == "__main__":
    main()
