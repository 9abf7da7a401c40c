"""Carry a plan out, step by step, so that whoever is interrupted can take it up again at the step where it was.

Each step looks first and does only what is not done yet, so it may be run any number of times. Before a step begins and
when it is done there is a line in the journal, on the disk. What a step makes has a name that follows from the plan.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vfwire.checks.ec2 import ask, plan
from vfwire.checks.ec2.aws import Aws, AwsRefused, told
from vfwire.checks.ec2.catalog import Catalog
from vfwire.checks.ec2.facts import Instance
from vfwire.checks.ec2.fleet import Checked, Fleet
from vfwire.checks.ec2.journal import Journal
from vfwire.checks.ec2.mechanism import Mechanism
from vfwire.checks.ec2.plan import Plan, one_instance
from vfwire.checks.verdict import State, Verdict
from vfwire.errors import BadInput, CannotTell, UsageError, VfwireError, WaitTimeout

PATIENCE_S = 900.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.25, 10.0
ROLL_BACK = "roll back"
_END = "end"

Tell = Callable[[str], None]


def unfinished(entries: Iterable[dict[str, Any]]) -> tuple[Plan, list[dict[str, Any]]] | None:
    """The plan that a journal holds and has not ended, and what is known of its steps. Raises BadInput."""
    held: Plan | None = None
    since: list[dict[str, Any]] = []
    for entry in entries:
        try:
            if "plan" in entry:
                held, since = Plan.from_json(entry["plan"]), []
                continue
            if entry["step"] == _END:
                held = None
            since.append(entry)
        except (KeyError, TypeError, AttributeError):
            raise BadInput("this is another command's journal", "give another --journal") from None
    return (held, since) if held else None


@dataclass
class Enabling:
    """One plan under way. `run` carries it out from wherever its journal says it was."""

    aws: Aws
    catalog: Catalog
    plan: Plan
    journal: Journal
    tell: Tell
    patience_s: float = PATIENCE_S

    def run(self, known: list[dict[str, Any]]) -> Verdict:
        """known: the journal's entries since the plan. Raises VfwireError; the same command then goes on."""
        done = {entry["step"]: entry["done"] for entry in known if "done" in entry}
        for entry in known:
            if entry["step"] == ROLL_BACK:
                return self._give_up(str(entry.get("why", "")), done, begun=True)
        for step in self.plan.steps:
            if step in done:
                self.tell(f"{step}: was done")
                continue
            self.journal.write({"step": step, "begun": time.time()})
            try:
                done[step] = self._step(step)
            except AwsRefused as error:
                if step != plan.START:
                    raise
                return self._give_up(str(error), done)
            self.journal.write({"step": step, "done": done[step]})
        return self._conclude(done)

    def _conclude(self, done: dict[str, Any]) -> Verdict:
        """Every step is done: what it comes to."""
        if not self.plan.was_running:
            reason = f"the flag is on; it was not running, and is left {self._instance().state}"
            hint = f"start it, then vfwire ec2 check {self.plan.instance}"
            return self._end(Verdict(State.UNKNOWN, reason, hint))
        state, reason = State(done[plan.VERIFY]["state"]), done[plan.VERIFY]["reason"]
        if state == State.NOT:
            return self._give_up(reason, done)
        hint = self._keep(done) if state == State.ENHANCED else f"look into it; {self._keep(done)}"
        return self._end(Verdict(state, reason, hint))

    def _step(self, step: str) -> dict[str, Any]:
        self.tell(f"{step}: {_TITLES[step]}")
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            plan.BACKUP: self._backup,
            plan.STOP: self._stop,
            plan.MODIFY: lambda: self._modify(True),
            plan.START: self._start,
            plan.VERIFY: self._verify,
        }
        return steps[step]()

    def _backup(self) -> dict[str, Any]:
        """An AMI of the instance as it is, without a reboot: consistent as after a power failure."""
        image = self._find_backup()
        if image is None:
            try:
                with told():
                    image = self.aws.ec2.create_image(
                        InstanceId=self.plan.instance,
                        Name=self.plan.backup_name,
                        Description=f"before {self.plan.option} by vfwire ec2 enable",
                        NoReboot=True,
                    )["ImageId"]
            except AwsRefused as error:
                if error.code != "InvalidAMIName.Duplicate":
                    raise
        self.tell(f"backup: {self.plan.backup_name}, {image or 'asked for before'}")

        def state() -> str:
            with told():
                answer = self.aws.ec2.describe_images(
                    Owners=["self"], Filters=[{"Name": "name", "Values": [self.plan.backup_name]}]
                )
            return answer["Images"][0]["State"] if answer["Images"] else "not there yet"

        self._wait("the backup AMI", state, {"available"}, {"failed", "error", "invalid"})
        return {"image": self._find_backup()}

    def _find_backup(self) -> str | None:
        with told():
            answer = self.aws.ec2.describe_images(
                Owners=["self"], Filters=[{"Name": "name", "Values": [self.plan.backup_name]}]
            )
        return answer["Images"][0]["ImageId"] if answer["Images"] else None

    def _instance(self) -> Instance:
        return one_instance(self.aws, self.plan.instance)

    def _stop(self) -> dict[str, Any]:
        if self._instance().state in ("running", "pending"):
            with told():
                self.aws.ec2.stop_instances(InstanceIds=[self.plan.instance])
        self._wait("the instance", lambda: self._instance().state, {"stopped"})
        return {}

    def _modify(self, value: bool) -> dict[str, Any]:
        held = self._instance()
        ena = self.plan.mechanism == Mechanism.ENA
        if (held.ena if ena else held.sriov) == value:
            return {}
        with told():
            if ena:
                self.aws.ec2.modify_instance_attribute(
                    InstanceId=self.plan.instance, EnaSupport={"Value": value}
                )
            else:
                self.aws.ec2.modify_instance_attribute(
                    InstanceId=self.plan.instance, SriovNetSupport={"Value": "simple"}
                )
        return {}

    def _start(self) -> dict[str, Any]:
        if self._instance().state == "stopped":
            with told():
                self.aws.ec2.start_instances(InstanceIds=[self.plan.instance])
        self._wait("the instance", lambda: self._instance().state, {"running"}, {"stopped"})
        return {}

    def _verify(self) -> dict[str, Any]:
        """Ask until the guest says what it uses, or time is up. Not: it is cut off, or on the default path."""
        fleet = Fleet(self.aws, self.catalog)
        until, pause = time.monotonic() + self.patience_s, _FIRST_LOOK_S
        while True:
            (checked,) = fleet.check([self.plan.instance])
            verdict = checked.finding.verdict
            if verdict.state != State.UNKNOWN:
                return {"state": verdict.state, "reason": verdict.reason}
            if time.monotonic() > until:
                return self._out_of_sight(checked)
            self._pause(pause)
            pause = min(pause * 2, _LONGEST_LOOK_S)

    def _out_of_sight(self, checked: Checked) -> dict[str, Any]:
        """After all patience: whether AWS's status check reaches it decides between "cannot tell" and "cut off"."""
        reached = ask.reached(self.aws, [self.plan.instance]).get(self.plan.instance)
        if reached:
            return {"state": State.UNKNOWN, "reason": checked.finding.verdict.reason}
        reason = f"it does not come up: after {self.patience_s:g} s AWS's status check does not reach it"
        return {"state": State.NOT, "reason": reason}

    def _give_up(self, why: str, done: dict[str, Any], begun: bool = False) -> Verdict:
        """Put the flag back where that can be done, and say what is left to do where it cannot."""
        image = done.get(plan.BACKUP, {}).get("image")
        if not self.plan.can_roll_back:
            hint = f"it is left as it is; launch anew from the backup {image} to have it as it was"
            return self._end(Verdict(State.NOT, why, hint))
        if not begun:
            self.journal.write({"step": ROLL_BACK, "begun": time.time(), "why": why})
        self.tell(f"roll back: {why}")
        try:
            self._stop()
            self._modify(False)
            self._start()
        except VfwireError as error:
            raise CannotTell(
                f"{why}; rolling back stopped: {error}", f"the same command goes on; the backup is {image}"
            ) from None
        reason = f"{why}; rolled back, it runs as before"
        return self._end(Verdict(State.NOT, reason, f"the backup {image} is yours to deregister"))

    def _end(self, verdict: Verdict) -> Verdict:
        self.journal.write({"step": _END, **verdict.as_json()})
        return verdict

    def _keep(self, done: dict[str, Any]) -> str:
        return (
            f"deregister the backup {done.get(plan.BACKUP, {}).get('image')} when it is not wanted any more"
        )

    def _wait(self, what: str, look: Callable[[], str], wanted: set[str], never: Iterable[str] = ()) -> None:
        """Raises WaitTimeout after the patience, CannotTell when it comes to a state out of which nothing leads."""
        until, pause, seen = time.monotonic() + self.patience_s, _FIRST_LOOK_S, ""
        while (state := look()) not in wanted:
            came = bool(seen) and state != seen
            if state != seen:
                self.tell(f"  {what} is {state}")
                seen = state
            if came and state in never:
                raise CannotTell(f"{what} is {state}", "the same command tries that step again")
            if time.monotonic() > until:
                raise WaitTimeout(
                    f"{what} is still {state} after {self.patience_s:g} s",
                    "the same command goes on from there",
                )
            self._pause(pause)
            pause = min(pause * 2, _LONGEST_LOOK_S)

    def _pause(self, seconds: float) -> None:
        self.aws.stopping.wait(seconds)


_TITLES = {
    plan.BACKUP: "make a backup AMI, without a reboot",
    plan.STOP: "stop the instance",
    plan.MODIFY: "set the flag",
    plan.START: "start the instance",
    plan.VERIFY: "ask the guest which driver is bound",
}


def titles(steps: Iterable[str]) -> list[str]:
    return [_TITLES[step] for step in steps]


def same_plan(held: Plan, wanted: Mechanism | None) -> None:
    """Raises UsageError when a run is taken up with another option than it was begun with."""
    if wanted is not None and wanted != held.mechanism:
        raise UsageError(
            f"a run with {held.option} is under way for {held.instance}", f"say {held.option} to go on"
        )
