"""Ask the systems inside instances, through Systems Manager's Run Command.

A command is one shell script for up to 50 instances; it only reads. Output of list_command_invocations is cut at 2,500
characters, so a script prints little (Systems Manager API Reference: SendCommand, CommandPlugin).
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from vfwire.checks.ec2.ask import by_halves
from vfwire.checks.ec2.aws import Aws, AwsRefused, told
from vfwire.checks.ec2.facts import Guest, Interface
from vfwire.errors import CannotTell

BATCH = 50
_PATIENCE_S = 90.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.25, 5.0
_UNDER_WAY = ("Pending", "InProgress", "Delayed", "Cancelling")
_LONGEST_TOLD = 64  # characters of a name that a guest tells of itself

# `ethtool -i` of each interface that has a device; the sysfs link where ethtool is not installed.
DRIVERS_SCRIPT = """cd /
PATH=$PATH:/usr/sbin:/sbin
for device in sys/class/net/*/device; do
    [ -e "$device" ] || continue
    name=${device#sys/class/net/}
    name=${name%/device}
    echo "interface: $name"
    { ethtool -i "$name" 2>/dev/null || echo "driver: $(basename "$(readlink "$device/driver")")"; } |
        grep -E '^(driver|version): '
done
"""


def ask_drivers(aws: Aws, names: Sequence[str]) -> dict[str, Guest]:
    """What each of at most BATCH running instances says, or why it was not asked. Every name is in the answer."""
    try:
        online, silent = _online(aws, names)
        answers = by_halves(online, lambda some: run(aws, some, DRIVERS_SCRIPT), {"InvalidInstanceId"})
    except CannotTell as error:
        return dict.fromkeys(names, Guest(silent=error.message))
    found = {name: parse_drivers(text) for name, text in answers.items()}
    lost = Guest(silent="Systems Manager lost it meanwhile")
    return {name: found.get(name) or silent.get(name, lost) for name in names}


def run_one(aws: Aws, name: str, script: str) -> str:
    """The script's output in one instance, 24,000 characters at most. Raises CannotTell with why there is none."""
    online, silent = _online(aws, [name])
    if not online:
        raise CannotTell(
            silent[name].silent, "connect it to Systems Manager, or look into it and say --driver-checked"
        )
    command = _send(aws, online, script)
    until, pause = time.monotonic() + _PATIENCE_S, _FIRST_LOOK_S
    while True:
        try:
            with told():
                answer = aws.ssm.get_command_invocation(CommandId=command, InstanceId=name)
        except AwsRefused as error:
            if error.code != "InvocationDoesNotExist":  # it is not there just after it was sent
                raise
        else:
            if answer["Status"] == "Success":
                return answer["StandardOutputContent"]
            if answer["Status"] not in _UNDER_WAY:
                raise CannotTell(f"Run Command ended with {answer['Status']} in {name}")
        if time.monotonic() > until:
            raise CannotTell(f"Run Command has no answer of {name} after {_PATIENCE_S:g} s")
        if aws.stopping.wait(pause):
            raise CannotTell("interrupted while a guest was asked")
        pause = min(pause * 2, _LONGEST_LOOK_S)


def _online(aws: Aws, names: Sequence[str]) -> tuple[list[str], dict[str, Guest]]:
    """Those that take commands for a shell, and for the others why not."""
    with told():
        answer = aws.ssm.describe_instance_information(
            Filters=[{"Key": "InstanceIds", "Values": list(names)}], MaxResults=BATCH
        )
    known = {one["InstanceId"]: one for one in answer["InstanceInformationList"]}
    silent = {}
    for name in names:
        if name not in known:
            silent[name] = Guest(silent="Systems Manager does not manage it")
        elif known[name].get("PingStatus") != "Online":
            silent[name] = Guest(silent=f"its Systems Manager agent is {known[name].get('PingStatus')}")
        elif known[name].get("PlatformType") != "Linux":
            silent[name] = Guest(
                silent=f"it runs {known[name].get('PlatformType')}, and the question is for Linux"
            )
    return [name for name in names if name not in silent], silent


def run(aws: Aws, names: Sequence[str], script: str) -> dict[str, str]:
    """The script's output in each of at most BATCH instances; who failed is not in the answer.

    Raises CannotTell when AWS refuses, or when nobody has answered after 90 s.
    """
    answered = _wait_answers(aws, _send(aws, names, script), len(names))
    return {
        name: (one.get("CommandPlugins") or [{}])[0].get("Output", "")
        for name, one in answered.items()
        if one["Status"] == "Success"
    }


def _send(aws: Aws, names: Sequence[str], script: str) -> str:
    """The command's ID."""
    with told():
        sent = aws.ssm.send_command(
            DocumentName="AWS-RunShellScript",
            InstanceIds=list(names),
            Parameters={"commands": script.splitlines()},
            TimeoutSeconds=60,
            Comment="vfwire ec2: what is in the guest",
        )
    return sent["Command"]["CommandId"]


def _wait_answers(aws: Aws, command: str, expected: int) -> Mapping[str, Any]:
    """Invocations that have ended, by instance: all, or those that have after 90 s."""
    until = time.monotonic() + _PATIENCE_S
    pause = _FIRST_LOOK_S
    while True:
        try:
            with told():
                answer = aws.ssm.list_command_invocations(CommandId=command, Details=True, MaxResults=BATCH)
        except AwsRefused as error:
            if error.code != "InvalidCommandId" or time.monotonic() > until:
                raise
            answer = {"CommandInvocations": []}  # type: ignore[typeddict-item]
        ended = {
            one["InstanceId"]: one for one in answer["CommandInvocations"] if one["Status"] not in _UNDER_WAY
        }
        if len(ended) >= expected or time.monotonic() > until:
            return ended
        if aws.stopping.wait(pause):
            raise CannotTell("interrupted while guests were asked")
        pause = min(pause * 2, _LONGEST_LOOK_S)


def parse_drivers(text: str) -> Guest:
    """What DRIVERS_SCRIPT printed. A guest may print anything: other lines are passed over, names cut to 64."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        value = "".join(letter for letter in value.strip() if letter.isprintable())[:_LONGEST_TOLD]
        if key == "interface" and colon:
            found.append({"name": value})
        elif found and key in ("driver", "version"):
            found[-1].setdefault(key, value)
    if not found:
        return Guest(silent="it named no interface with a device")
    return Guest(
        tuple(Interface(one["name"], one.get("driver", ""), one.get("version", "")) for one in found)
    )
