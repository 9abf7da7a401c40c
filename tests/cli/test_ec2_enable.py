"""`vfwire ec2 enable` against the local endpoint: it does it, refuses, rolls back, and goes on after a kill."""

import itertools
import json
import os
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from tests.ec2_endpoint.guests import Guest, guest_of, install_in
from tests.ec2_endpoint.server import Endpoint
from vfwire.checks.ec2 import catalog
from vfwire.checks.ec2.policy import actions, enable_policy
from vfwire.cli import run

CHANGES = ("CreateImage", "StopInstances", "ModifyInstanceAttribute", "StartInstances", "RegisterImage")
NO_DRIVER = Guest(kernels={"6.12.1": {"nvme"}})


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = run(["ec2", "enable", *words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {"error": err.splitlines()[-1]}


def changed(ec2: Endpoint) -> list[str]:
    return [action for action in ec2.calls if action.endswith(CHANGES)]


def backups(ec2: Endpoint, name: str) -> list[Any]:
    return [ami for ami in ec2.backend.amis.values() if str(ami.name).startswith(f"vfwire-backup-{name}-")]


def test_a_plan_changes_nothing(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    for words in ((one.id,), (one.id, "--plan"), (one.id, "--ena", "--plan")):
        code, answer = asked(capsys, *words)
        assert code == 0 and answer["verdict"] == "enhanced"
        assert answer["plan"]["steps"] == ["backup", "stop", "modify", "start", "verify"]
    assert run(["ec2", "enable", one.id]) == 0
    text = capsys.readouterr().out
    assert "1. make a backup AMI" in text and "lost: its network" in text and "taken back" in text
    assert changed(ec2) == [] and one.ena_support is False


@pytest.mark.parametrize(
    ("type_name", "flags", "driver"), [("r4.large", ("--ena",), "ena"), ("c4.large", ("--sriov",), "ixgbevf")]
)
def test_it_is_turned_on_and_verified(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], type_name: str, flags: tuple[str, ...], driver: str
) -> None:
    (one,) = ec2.launch(type_name, ec2.image())
    groups = [group.id for group in one.nics[0].group_set]
    assert guest_of(one).driver == "vif"
    code, answer = asked(capsys, one.id, *flags, "--yes")
    assert (code, answer["verdict"]) == (0, "enhanced") and f"eth0 on {driver}" in answer["reason"]
    assert one.state == "running" and guest_of(one).driver == driver
    assert [group.id for group in one.nics[0].group_set] == groups and groups
    (backup,) = backups(ec2, one.id)
    assert backup.id in answer["next_step"]
    assert [action.partition(":")[2] for action in changed(ec2)] == list(CHANGES[:4])
    code, answer = asked(capsys, one.id, "--yes")
    assert code == 0 and "already" in answer["reason"] and len(changed(ec2)) == 4


def locked(ec2: Endpoint, kind: str) -> Any:
    """An instance that it would be wrong to stop or change."""
    if kind == "instance store":
        return ec2.launch("r4.large", ec2.image(root="instance-store"))[0]
    if kind == "paravirtual":
        return ec2.launch("c3.large", ec2.image(virtualization="paravirtual"))[0]
    if kind == "type":
        return ec2.launch("t2.micro", ec2.image())[0]
    if kind == "no driver":
        return ec2.launch("r4.large", ec2.image(), NO_DRIVER)[0]
    (one,) = ec2.launch("r4.large", ec2.image())
    if kind == "group":
        one.add_tags({"aws:autoscaling:groupName": "web"})
    elif kind == "protected":
        one.disable_api_stop = True
    return one


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("instance store", "register a new AMI instead"),
        ("paravirtual", "paravirtual"),
        ("type", "no enhanced networking"),
        ("no driver", "kernel 6.12.1 has no ena"),
        ("group", "Auto Scaling group web"),
        ("protected", "disableApiStop"),
    ],
)
def test_it_refuses_what_would_lock_out(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], kind: str, said: str
) -> None:
    one = locked(ec2, kind)
    for words in ((one.id, "--plan"), (one.id, "--yes")):
        code, answer = asked(capsys, *words)
        assert (code, answer["verdict"]) == (1, "not") and said in answer["reason"]
    assert changed(ec2) == []


def test_what_cannot_be_seen_is_not_touched(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = ec2.launch("r4.large", ec2.image(), Guest(managed=False))
    code, answer = asked(capsys, one.id, "--yes")
    assert (code, answer["verdict"]) == (3, "unknown") and "--driver-checked" in answer["next_step"]
    assert changed(ec2) == []


def test_the_wrong_option_is_said(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    assert asked(capsys, one.id, "--sriov")[0] == 2
    assert asked(capsys, one.id, "--plan", "--yes")[0] == 2
    assert asked(capsys, "i-zz")[0] == 2
    assert asked(capsys)[0] == 2
    assert asked(capsys, "i-00000000000000000")[0] == 3
    assert changed(ec2) == []


def test_it_is_rolled_back_when_it_does_not_come_up(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = ec2.launch("r4.large", ec2.image(), NO_DRIVER)
    code, answer = asked(capsys, one.id, "--yes", "--driver-checked", "--patience", "2")
    assert (code, answer["verdict"]) == (1, "not") and "rolled back" in answer["reason"]
    assert one.state == "running" and one.ena_support is False and guest_of(one).reachable
    assert len(backups(ec2, one.id)) == 1


def test_the_82599_is_not_rolled_back_and_that_is_said(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = ec2.launch("c4.large", ec2.image(), NO_DRIVER)
    code, answer = asked(capsys, one.id, "--yes", "--driver-checked", "--patience", "2")
    (backup,) = backups(ec2, one.id)
    assert code == 1 and backup.id in answer["next_step"] and one.sriov_net_support == "simple"


def test_a_roll_back_that_stops_is_taken_up_again(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    ec2.denied.add("ec2:StartInstances")
    code, answer = asked(capsys, one.id, "--yes")
    assert (
        code == 3
        and "rolling back stopped" in answer["error"]
        and "the same command goes on" in answer["error"]
    )
    ec2.denied.clear()
    code, answer = asked(capsys, one.id, "--yes")
    assert code == 1 and "rolled back" in answer["reason"]
    assert one.state == "running" and one.ena_support is False


def test_a_stopped_instance_is_changed_and_left_stopped(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    ec2.backend.stop_instances([one.id])
    assert asked(capsys, one.id, "--yes")[0] == 3
    assert changed(ec2) == []
    code, answer = asked(capsys, one.id, "--yes", "--driver-checked")
    assert code == 3 and "start it" in answer["next_step"]
    assert one.ena_support is True and one.state == "stopped"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", ["ssm:SendCommand", *(f"ec2:{name}" for name in CHANGES[:4])])
def test_killed_at_any_step_it_goes_on(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], action: str, when: str
) -> None:
    """kill -9 just before a change takes effect, and just after, before the answer is heard."""
    (one,) = ec2.launch("r4.large", ec2.image())
    calls = kill_at(ec2, one.id, lambda asked_for, _number, at: (asked_for, at) == (action, when))
    assert calls, "it was killed"
    goes_on(ec2, capsys, one)


@pytest.mark.soak
def test_killed_at_every_request_it_goes_on(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    for number in itertools.count():
        (one,) = ec2.launch("r4.large", ec2.image())
        if not kill_at(ec2, one.id, partial(at_number, number)):
            return  # it came to its end: there are no more requests
        goes_on(ec2, capsys, one)


def at_number(number: int, _action: str, count: int, when: str) -> bool:
    return count == number and when == "after"


def kill_at(ec2: Endpoint, name: str, here: Any) -> bool:
    """Run the command in a process, which is killed where `here(action, number, when)` says so. Whether it was."""
    program = "import sys; from vfwire.cli import main; main(sys.argv[1:])"
    started: list[subprocess.Popen[bytes]] = []
    killed: list[str] = []
    ec2.calls.clear()

    def hook(action: str, when: str) -> bool:
        if not killed and here(action, len(ec2.calls) - 1, when):
            killed.append(action)
            os.kill(started[0].pid, signal.SIGKILL)
            started[0].wait(10)
            return when == "before"
        return False

    ec2.hook = hook
    command = [sys.executable, "-c", program, "ec2", "enable", name, "--yes", "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        started.append(process)
        process.wait(120)
    ec2.hook = None
    return bool(killed)


def goes_on(ec2: Endpoint, capsys: pytest.CaptureFixture[str], one: Any) -> None:
    """The same command comes to the end that it would have come to, with nothing done twice."""
    code, answer = asked(capsys, one.id, "--yes")
    assert (code, answer["verdict"]) == (0, "enhanced"), answer
    assert one.state == "running" and one.ena_support is True and guest_of(one).driver == "ena"
    assert len(backups(ec2, one.id)) == 1


def test_another_option_does_not_go_on(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    ec2.denied.add("ec2:StopInstances")
    assert asked(capsys, one.id, "--yes")[0] == 3
    code, answer = asked(capsys, one.id, "--sriov", "--yes")
    assert code == 2 and "--ena" in answer["error"]


def test_one_that_is_terminated_in_the_middle_is_one_line(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    ec2.hook = lambda action, when: (
        ec2.backend.terminate_instances([one.id]) and False
        if (action, when) == ("ec2:ModifyInstanceAttribute", "before")
        else False
    )
    code, answer = asked(capsys, one.id, "--yes")
    assert code == 3 and one.id in answer["error"]


def test_an_image_is_registered_anew(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    source = ec2.image(sriov=True)
    code, answer = asked(capsys, source)
    assert code == 0 and changed(ec2) == [] and "create-image" in answer["plan"]["instead"]
    code, answer = asked(capsys, source, "--yes")
    made = ec2.backend.amis[answer["plan"]["made"]]
    assert code == 0 and made.id != source
    assert (
        made.ena_support is True and made.sriov_net_support == "simple" and made.virtualization_type == "hvm"
    )
    assert made.ebs_snapshot is ec2.backend.amis[source].ebs_snapshot
    code, answer = asked(capsys, source, "--yes")  # and only once
    assert code == 0 and answer["plan"]["made"] == made.id and len(changed(ec2)) == 1
    assert asked(capsys, made.id)[1]["reason"] == "the flag is on already"


def test_images_that_are_not_registered_anew(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    paravirtual, sold = ec2.image(virtualization="paravirtual"), ec2.image()
    ec2.backend.amis[sold].product_codes = [{"ProductCodeId": "abc", "ProductCodeType": "marketplace"}]
    for name, said in ((paravirtual, "paravirtual"), (sold, "product codes")):
        code, answer = asked(capsys, name, "--yes")
        assert code == 1 and said in answer["reason"] and "create-image" in answer["next_step"]
    assert asked(capsys, "ami-00000000000000000", "--yes")[0] == 3
    assert changed(ec2) == []


def test_the_policy_is_what_is_called(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every action that is asked for is in it, and none besides."""
    types = {name: kind for name, kind in catalog.shipped().types.items() if name != "r4.large"}
    monkeypatch.setattr(catalog, "load", lambda: catalog.Catalog(types, ()))
    (one,) = ec2.launch("r4.large", ec2.image())
    assert asked(capsys, one.id, "--yes")[0] == 0
    install_in(one, NO_DRIVER)
    (cut,) = ec2.launch("r4.large", ec2.image(), NO_DRIVER)
    assert asked(capsys, cut.id, "--yes", "--driver-checked", "--patience", "1")[0] == 1
    assert asked(capsys, ec2.image(), "--yes")[0] == 0
    assert set(ec2.calls) == actions(enable_policy())
    run(["ec2", "enable", "--iam-policy"])
    assert json.loads(capsys.readouterr().out) == enable_policy()
