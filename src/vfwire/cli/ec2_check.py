"""`vfwire ec2 check`: one verdict for each instance or AMI, thousands of them too."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vfwire.checks.ec2.policy import check_policy
from vfwire.checks.verdict import EXIT_CODES, State
from vfwire.cli.answers import answers
from vfwire.cli.aws_options import aws_options_of_regions
from vfwire.errors import UsageError

if TYPE_CHECKING:
    from vfwire.cli.ec2_run import Run

_ID = re.compile(r"(i|ami)-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_MOST_LINES = 50


@click.command()
@click.argument("names", nargs=-1, metavar="[i-…|ami-…]...")
@click.option("--all", "everything", is_flag=True, help="Every instance of the region.")
@click.option("--type", "type_name", help="For an AMI: on this instance type.")
@click.option("--no-guests", is_flag=True, help="Run no command in the instances.")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep verdicts in this file; the same command goes on from it.",
)
@click.option(
    "--workers", default=8, show_default=True, type=click.IntRange(1, 64), help="Requests under way at once."
)
@click.option("--iam-policy", is_flag=True, help="Print the least IAM policy that this needs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@aws_options_of_regions
@answers
def check(names: tuple[str, ...], everything: bool, as_json: bool, **options: Any) -> int:
    """Whether instances use enhanced networking, or what an AMI permits.

    Exits 0 when all do, 1 when one does not, 3 when it cannot be told of one.
    """
    if options["iam_policy"]:
        click.echo(json.dumps(check_policy(), indent=2))
        return 0
    everything = everything or options["all_regions"]
    _see_names(names, everything, options)
    from vfwire.cli.ec2_run import Run

    with Run(options) as run:
        rows = run.rows(list(names), everything)
        counted = _print_json(run, rows) if as_json else _print_text(run, rows, everything)
    for failure in run.failures:
        click.echo(f"vfwire: {failure}", err=True)
    return _exit_code(counted, bool(run.failures))


def _see_names(names: tuple[str, ...], everything: bool, options: dict[str, Any]) -> None:
    if everything == bool(names):
        raise UsageError("name instances, or say --all", "vfwire ec2 check i-0123456789abcdef0")
    if options["all_regions"] and options["regions"]:
        raise UsageError("--all-regions asks every region", "leave --region out")
    if names and len(options["regions"]) > 1:
        raise UsageError("an ID is of one region", "give one --region, or --all")
    for name in names:
        see_id(name)


def see_id(name: str) -> None:
    """Raises UsageError for what is the ID of no instance and no AMI."""
    if not _ID.fullmatch(name):
        raise UsageError(
            f"{name!r} is the ID of no instance and no AMI", "they look like i-0123456789abcdef0"
        )


def _print_json(run: "Run", rows: Iterator[dict[str, Any]]) -> Counter[str]:
    """One object, written as it comes: it may be long. What ends it early is in its summary."""
    counted: Counter[str] = Counter()
    before = '{"schema": 1, "checked": [\n'
    try:
        for row in rows:
            click.echo(before + json.dumps(row), nl=False)
            counted[row["verdict"]] += 1
            before = ",\n"
    finally:
        click.echo(f'{"" if counted else before}\n], "summary": {json.dumps(run.summary(counted))}}}')
    return counted


def _print_text(run: "Run", rows: Iterator[dict[str, Any]], everything: bool) -> Counter[str]:
    """A line for each; of --all, only those that are not enhanced, at most 50, and then how many of which kind."""
    from vfwire.checks.ec2.judge import RULES

    counted: Counter[str] = Counter()
    rules: Counter[tuple[str, str]] = Counter()
    lines = 0
    for row in rows:
        counted[row["verdict"]] += 1
        rules[row["verdict"], row["rule"]] += 1
        if everything and row["verdict"] == State.ENHANCED:
            continue
        lines += 1
        if not everything or lines <= _MOST_LINES:
            click.echo("\n".join(_lines(row)))
    if sum(counted.values()) > 1 or (everything and not run.failures):
        if everything and lines > _MOST_LINES:
            click.echo(
                f"… and {lines - _MOST_LINES} more that are not enhanced: --json or --journal has them all"
            )
        click.echo(f"\n{sum(counted.values())} checked")
        for (verdict, rule), count in sorted(rules.items(), key=lambda item: -item[1]):
            click.echo(f"  {count:>6}  {verdict:<9} {RULES[rule]}")
        click.echo(_requests(run.summary(counted)))
    return counted


def _lines(row: dict[str, Any]) -> Iterable[str]:
    next_step = f"; {row['next_step']}" if row["next_step"] else ""
    what = f" {row['type']}" if row["type"] else ""
    yield f"{row['verdict']:<9} {row['id']}{what}: {row['reason']}{next_step}"
    for note in row["notes"]:
        yield f"          {note}"


def _requests(summary: dict[str, Any]) -> str:
    parts = [f"{action} {count}" for action, count in sorted(summary["requests"].items())]
    return f"{summary['requests_total']} requests, {summary['requests_per_instance']:g} an instance: {', '.join(parts)}"


def _exit_code(counted: Counter[str], cut_off: bool) -> int:
    """What was not checked is not known."""
    counted[State.UNKNOWN] += cut_off
    for state in (State.NOT, State.UNKNOWN):
        if counted[state]:
            return EXIT_CODES[state]
    return EXIT_CODES[State.ENHANCED]
