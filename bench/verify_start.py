"""How long `vfwire verify` takes to answer, started as a user starts it.

    python -m bench.verify_start [--runs 9] [--json]

Wall clock from before the process starts to its end, and the CPU time that it took (user and system). One run more,
not counted, goes first: it fills the page cache and writes the .pyc files.
"""

import json
import resource
import statistics
import subprocess
import time

import click

from bench.__main__ import program
from bench.common import one_line_errors, progress_line
from vfwire.errors import VfwireError

_ANSWERS = (0, 1, 3)


def once() -> tuple[float, float]:
    """Seconds of wall clock and of CPU that one answer took. Raises VfwireError if there was none."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*program(), "verify", "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in _ANSWERS:
        raise VfwireError(f"vfwire verify failed: {done.stderr.strip()[:200]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@click.command()
@click.option("--runs", default=9, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(runs: int, as_json: bool) -> None:
    """Seconds to the answer, median of the runs."""
    with one_line_errors():
        once()
        found = [once() for _ in range(runs)]
    progress_line(
        f"{runs} runs, wall clock {min(wall for wall, _ in found):.2f} to {max(wall for wall, _ in found):.2f} s"
    )
    wall, cpu = (statistics.median(times) for times in zip(*found, strict=True))
    if as_json:
        click.echo(json.dumps({"wall_s": wall, "cpu_s": cpu, "runs": found}))
        return
    click.echo(f"vfwire verify: answered in {wall:.2f} s ({cpu:.2f} s of CPU), median of {runs}")


if __name__ == "__main__":
    main()
