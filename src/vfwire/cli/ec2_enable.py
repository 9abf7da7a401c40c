"""`vfwire ec2 enable`: the plan for one instance or AMI, and carrying it out."""

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import click

from vfwire.checks.ec2.mechanism import Mechanism
from vfwire.checks.ec2.policy import enable_policy
from vfwire.checks.verdict import State, Verdict
from vfwire.cli.answers import answers
from vfwire.cli.aws_options import aws_options
from vfwire.cli.ec2_check import see_id
from vfwire.errors import UsageError

_CARRY_OUT = "--yes carries it out"


@click.command()
@click.argument("name", required=False, metavar="i-…|ami-…")
@click.option("--ena", "wanted", flag_value="ena", help="The ENA [default: what the type has].")
@click.option("--sriov", "wanted", flag_value="82599", help="The 82599 VF; cannot be undone.")
@click.option("--plan", "plan_only", is_flag=True, help="Print the plan and change nothing; the default.")
@click.option("--yes", is_flag=True, help="Carry it out, or go on with what was interrupted.")
@click.option("--driver-checked", is_flag=True, help="Do not ask the guest: it was looked into by hand.")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="[default: one for each instance under XDG_STATE_HOME]",
)
@click.option(
    "--patience", default=900.0, show_default=True, type=click.FloatRange(0), help="Seconds for each wait."
)
@click.option("--iam-policy", is_flag=True, help="Print the least IAM policy that this needs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@aws_options
@answers
def enable(name: str | None, plan_only: bool, yes: bool, as_json: bool, **options: Any) -> int:
    """Turn enhanced networking on for an instance: backup AMI, stop, set the flag, start, verify, roll back if need be.
    For an AMI: register it anew with the flag.

    Exits 0 when it is verified (or the plan can be carried out), 1 when it is not or was refused, 3 when it cannot be
    told.
    """
    if options["iam_policy"]:
        click.echo(json.dumps(enable_policy(), indent=2))
        return 0
    if name is None:
        raise UsageError("name an instance or an AMI", "vfwire ec2 enable i-0123456789abcdef0 --plan")
    if plan_only and yes:
        raise UsageError("--plan changes nothing and --yes does", "give one of them")
    see_id(name)
    from vfwire.checks.ec2.aws import Aws

    aws = Aws(options["profile"], options["region"], options["endpoint_url"])
    wanted = Mechanism(options["wanted"]) if options["wanted"] else None
    act = _image if name.startswith("ami-") else _instance
    answer, verdict, lines = act(aws, name, wanted, yes, options)
    if as_json:
        click.echo(json.dumps({"schema": 1, "plan": answer, **verdict.as_json()}))
    else:
        next_step = f"; {verdict.next_step}" if verdict.next_step else ""
        click.echo("\n".join([*lines, f"{_WORDS[verdict.state]}: {verdict.reason}{next_step}"]))
    return verdict.exit_code


_WORDS = {State.ENHANCED: "good", State.NOT: "not", State.UNKNOWN: "unknown"}


def _tell(text: str) -> None:
    print(f"vfwire: {text}", file=sys.stderr, flush=True)


def _journal_path(region: str, name: str, given: Path | None) -> Path:
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return given or base / "vfwire" / "ec2" / f"{region}-{name}.jsonl"


def _instance(
    aws: Any, name: str, wanted: Mechanism | None, yes: bool, options: dict[str, Any]
) -> tuple[dict[str, Any], Verdict, list[str]]:
    from vfwire.checks.ec2 import catalog, plan
    from vfwire.checks.ec2.enable import Enabling, same_plan, unfinished
    from vfwire.checks.ec2.journal import Journal

    path, held = _journal_path(aws.region, name, options["journal"]), catalog.load()
    if not yes:
        made = plan.make(aws, held, name, wanted, "plan", options["driver_checked"])
        return made.as_json(), _of_plan(aws, held, made), _lines(made)
    with Journal(path) as journal:
        if (under_way := unfinished(journal.lines())) is not None:
            made, known = under_way
            if (made.instance, made.region) != (name, aws.region):
                raise UsageError(f"{path} is of {made.instance} in {made.region}", "give another --journal")
            same_plan(made, wanted)
            _tell(f"going on with what was begun: {path}")
        else:
            made = plan.make(aws, held, name, wanted, uuid.uuid4().hex[:8], options["driver_checked"])
            known = []
            if (verdict := _of_plan(aws, held, made)).state != State.ENHANCED or made.already:
                return made.as_json(), verdict, _lines(made)
            journal.write({"plan": made.as_json()})
        _tell(f"every step is in {path}")
        enabling = Enabling(aws, held, made, journal, _tell, options["patience"])
        return made.as_json(), enabling.run(known), []


def _of_plan(aws: Any, held: Any, made: Any) -> Verdict:
    """Whether the plan can be carried out; where the flag is on already, what the guest uses."""
    from vfwire.checks.ec2.fleet import Fleet

    if made.already:
        (checked,) = Fleet(aws, held).check([made.instance])
        found = checked.finding.verdict
        return Verdict(found.state, f"the flag is on already; {found.reason}", found.next_step)
    if made.refused:
        return Verdict(State.NOT, "refused: " + "; ".join(made.refused))
    if made.unseen:
        reason = f"whether it would come up cannot be seen: {made.unseen}"
        hint = "connect it to Systems Manager, or look into it and say --driver-checked"
        return Verdict(State.UNKNOWN, reason, hint)
    return Verdict(State.ENHANCED, "it can be done", _CARRY_OUT)


def _lines(made: Any) -> list[str]:
    """The plan for people."""
    from vfwire.checks.ec2.enable import titles

    if made.already or made.refused:
        return []
    lines = [f"{made.instance} {made.type} in {made.region}: {made.mechanism}"]
    lines += [f"  {number}. {title}" for number, title in enumerate(titles(made.steps), 1)]
    lines += [f"  lost: {text}" for text in made.loses]
    lines += [f"  note: {text}" for text in made.remarks]
    undo = "the flag is taken back if it does not come up" if made.can_roll_back else _no_way_back(made)
    return [*lines, f"  back: {undo}"]


def _no_way_back(made: Any) -> str:
    if made.mechanism == Mechanism.VF82599:
        return "sriovNetSupport=simple cannot be undone; what is left is an instance of the backup AMI"
    return f"{made.type} does not start without the flag; what is left is an instance of the backup AMI"


def _image(
    aws: Any, name: str, wanted: Mechanism | None, yes: bool, options: dict[str, Any]
) -> tuple[dict[str, Any], Verdict, list[str]]:
    from vfwire.checks.ec2 import register

    made = register.make(aws, name, wanted or Mechanism.ENA)
    lines = [
        f"{name} in {made.region}: the flags of an AMI cannot be modified",
        f"  1. register its snapshots anew as {made.name!r}, with the flag",
        f"  or: {made.instead}",
    ]
    look = "vfwire image check tells whether the system in it has the driver"
    if made.already:
        return made.as_json(), Verdict(State.ENHANCED, "the flag is on already", look), []
    if made.refused:
        return made.as_json(), Verdict(State.NOT, "refused: " + "; ".join(made.refused), made.instead), []
    if not yes:
        return made.as_json(), Verdict(State.ENHANCED, "it can be done", f"{look}; {_CARRY_OUT}"), lines
    new = register.carry_out(aws, made)
    return {**made.as_json(), "made": new}, Verdict(State.ENHANCED, f"{new} has the flag", look), []
