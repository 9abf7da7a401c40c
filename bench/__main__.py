"""`make bench`: this project and what a user would pick instead, interleaved, medians of several rounds."""

import json
import shutil
import sys
from pathlib import Path

import click

from bench.common import interleave, one_line_errors, progress_line, report, show
from bench.contenders import OURS, ours, rivals
from vfwire.errors import UnsupportedMachine, UsageError


def program() -> list[str]:
    """The installed `vfwire` beside this Python."""
    beside = Path(sys.executable).with_name("vfwire")
    found = str(beside) if beside.exists() else shutil.which("vfwire")
    if not found:
        raise UnsupportedMachine("vfwire is not installed", "run it by `make bench`")
    return [found]


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Medians are of this many.")
@click.option("--seconds", default=1.0, show_default=True, help="How long each single measurement takes.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only contenders whose name holds TEXT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def main(rounds: int, seconds: float, only: tuple[str, ...], as_json: bool) -> None:
    """Measure this project and what a user would pick instead, in turn, several rounds."""
    with one_line_errors():
        if rounds < 1 or seconds <= 0:
            raise UsageError("there is nothing to measure", "give at least one round of more than 0 seconds")
        everyone = [*ours(program(), seconds), *rivals(seconds)]
        chosen = [one for one in everyone if not only or any(text in one.name for text in only)]
        if not chosen:
            raise UsageError("no contender is so named", "known: " + ", ".join(one.name for one in everyone))
        results = interleave(chosen, rounds, progress_line)
    if as_json:
        click.echo(json.dumps(report(results, OURS)))
    else:
        show(results, OURS)
    if results.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
