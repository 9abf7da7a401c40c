"""From the start of `vfwire compare` to the first packet that arrives, machine code cached.

    python -m bench.start [--runs 5] [--json]

The command is run as a user runs it and reports the figure itself (`run.first_packet_s` in its JSON): from the start
of its process, as the kernel has it, to the first packet that the second system received. One run more, not counted,
goes first: it fills the cache.
"""

import json
import statistics

import click

from bench.__main__ import program
from bench.common import one_line_errors, progress_line, run_json


@click.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(runs: int, as_json: bool) -> None:
    """Seconds to the first packet, median of the runs."""
    found = []
    with one_line_errors():
        for number in range(runs + 1):
            answer = run_json(
                [*program(), "compare", "--json", "--size", "64", "--seconds", "0.1"], timeout=300
            )
            progress_line(f"run {number}: {answer['run']['first_packet_s']} s")
            found.append(answer["run"]["first_packet_s"])
    median = statistics.median(found[1:])
    if as_json:
        click.echo(json.dumps({"first_packet_s": median, "runs": found[1:]}))
        return
    click.echo(
        f"vfwire compare, start to first packet, machine code cached: {median:.2f} s, median of {runs}"
    )


if __name__ == "__main__":
    main()
