"""`vfwire ec2 check`, as it is typed: exit codes, JSON, journals and what it says when it cannot."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.ec2_endpoint.guests import Guest
from tests.ec2_endpoint.server import REGION, Endpoint
from vfwire.checks.ec2 import ask, catalog
from vfwire.checks.ec2.policy import actions, check_policy
from vfwire.cli import run

GONE = "i-00000000000000000"


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(["ec2", "check", *words])
    out, err = capsys.readouterr()
    return code, out, err


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(asked(capsys, *words, "--json")[1])
    return answer


def complaints(err: str) -> list[str]:
    """What it says on stderr but its progress, which a slow machine shows."""
    return [line for line in err.splitlines() if " checked, " not in line]


def test_exit_codes(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    good = ec2.launch("c5.large", ec2.image(ena=True))[0].id
    bad = ec2.launch("r4.large", ec2.image())[0].id
    dark = ec2.launch("r4.large", ec2.image(ena=True), Guest(managed=False))[0].id
    code, out, _ = asked(capsys, good)
    assert code == 0 and out.startswith(f"enhanced  {good} c5.large: eth0 on ena")
    code, out, _ = asked(capsys, bad)
    assert code == 1 and out.startswith("not ") and f"vfwire ec2 enable {bad} --ena" in out
    code, out, _ = asked(capsys, dark)
    assert code == 3 and out.startswith("unknown ") and "Systems Manager" in out
    assert asked(capsys, good, bad, dark)[0] == 1
    assert asked(capsys, good, GONE)[0] == 3
    for words in ((), ("--all", good), ("i-12",), ("eth0",), ("--type", "c5.large")):
        code, out, err = asked(capsys, *words)
        assert code == 2 and not out and err.count("\n") == 1, words


def test_images(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    ena, plain = ec2.image(ena=True), ec2.image()
    assert asked(capsys, ena)[0] == 0
    assert asked(capsys, plain)[0] == 1
    assert asked(capsys, ena, "--type", "c4.large")[0] == 1
    assert asked(capsys, ena, "--type", "c5.larg")[0] == 2
    assert asked(capsys, "ami-00000000000000000")[0] == 3


def test_all_is_summed_up_and_requests_are_counted(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    ec2.launch("c5.large", ec2.image(ena=True), count=3)
    ec2.launch("r4.large", ec2.image(), count=2)
    code, out, _ = asked(capsys, "--all")
    assert code == 1
    assert "5 checked" in out and "3  enhanced" in out and "2  not" in out
    assert (
        out.count("\nnot ") + out.startswith("not ") == 2
    )  # those that are not are named, the others counted
    summary = told(capsys, "--all")["summary"]
    assert summary["enhanced"] == 3 and summary["not"] == 2 and summary["checked"] == 5
    assert sum(summary["requests"].values()) == summary["requests_total"]
    assert summary["requests_per_instance"] == round(summary["requests_total"] / 5, 4)


def test_an_empty_region_is_no_error(ec2: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "--all")["checked"] == []


def test_several_regions_are_one_answer(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (here,) = ec2.launch("c5.large", ec2.image(ena=True))
    with ec2.elsewhere("eu-west-1"):
        (there,) = ec2.launch("r4.large", ec2.image())
    words = ["--all", "--region", REGION, "--region", "eu-west-1", "--journal", str(tmp_path / "journal")]
    answer = told(capsys, *words)
    assert [(row["id"], row["region"]) for row in answer["checked"]] == [
        (here.id, REGION),
        (there.id, "eu-west-1"),
    ]
    assert answer["summary"]["requests"]["ec2:DescribeInstances"] == 2
    assert told(capsys, *words)["summary"]["asked_now"] == 0
    for wrong in ((here.id, *words[1:5]), ("--all-regions", "--region", REGION), ("--all-regions", here.id)):
        assert asked(capsys, *wrong)[0] == 2


def test_a_region_that_is_refused_leaves_the_others(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service control policy does it: every region is listed, not every one may be asked."""
    (one,) = ec2.launch("c5.large", ec2.image(ena=True))
    monkeypatch.setattr(ask, "regions", lambda _aws: ["eu-west-1", REGION])
    ec2.hook = lambda action, when: bool(refuse and refuse.pop()) if when == "before" else None
    refuse = [True]
    code, out, err = asked(capsys, "--all-regions", "--json")
    answer = json.loads(out)
    (line,) = complaints(err)
    assert code == 3 and line.startswith("vfwire: eu-west-1: ")
    assert [row["id"] for row in answer["checked"]] == [one.id]
    assert [failure["region"] for failure in answer["summary"]["failures"]] == ["eu-west-1"]


def test_json_that_is_cut_off_is_whole_and_says_why(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second page is not allowed any more: what the first had is there."""
    monkeypatch.setattr(ask, "PAGE", 50)
    ec2.launch("c5.large", ec2.image(ena=True), count=60)

    ec2.hook = lambda action, when: (
        when == "before" and action == "ec2:DescribeInstances" and ec2.calls.count(action) == 2
    )
    code, out, err = asked(capsys, "--all", "--json")
    answer = json.loads(out)
    (line,) = complaints(err)
    assert code == 3 and "Dropped" in line
    assert len(answer["checked"]) == answer["summary"]["enhanced"] == 50
    (failure,) = answer["summary"]["failures"]
    assert failure["region"] == REGION and "DescribeInstances" in failure["error"]


def test_a_journal_is_taken_up_again_after_a_kill(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Killed while a batch's command is under way: the same command asks only for what is not in the journal."""
    image = ec2.image(ena=True)
    names = {one.id for one in ec2.launch("c5.large", image, count=120)}
    held, go = threading.Event(), threading.Event()
    sent = []

    def hook(action: str, when: str) -> None:
        if action == "ssm:SendCommand" and when == "before":
            sent.append(action)
            if len(sent) == 3:
                held.set()
                assert go.wait(60)

    ec2.hook = hook
    journal = tmp_path / "journal"
    words = ["ec2", "check", "--all", "--journal", str(journal), "--workers", "1"]
    program = "import sys; from vfwire.cli import main; main(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL) as process:
        try:
            assert held.wait(60)
            wait_lines(journal, 50)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        finally:
            go.set()
            ec2.hook = None
    before = {json.loads(line)["id"] for line in journal.read_text().splitlines()}
    assert 0 < len(before) < 120
    answer = told(capsys, "--all", "--journal", str(journal))
    assert {row["id"] for row in answer["checked"]} == names and len(answer["checked"]) == 120
    assert answer["summary"]["asked_now"] == 120 - len(before)
    answer = told(capsys, "--all", "--journal", str(journal))
    assert answer["summary"]["asked_now"] == 0 and answer["summary"]["enhanced"] == 120


def wait_lines(path: Path, count: int) -> None:
    """Bounded: until the file has that many lines."""
    for _ in range(600):
        if path.exists() and path.read_text().count("\n") >= count:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"{path} has no {count} lines")


def test_another_file_is_no_journal(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "x").write_text('{"step": "stop"}\n')
    code, _, err = asked(capsys, "--all", "--journal", str(tmp_path / "x"))
    assert code == 3 and err.count("\n") == 1


def test_the_policy_is_what_is_called(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every action that is asked for is in it, and none besides; a type that no catalog has is asked for too."""
    real_regions = ask.regions
    types = {name: kind for name, kind in catalog.shipped().types.items() if name != "c5.large"}
    monkeypatch.setattr(catalog, "load", lambda: catalog.Catalog(types, ()))
    code, out, _ = asked(capsys, "--iam-policy")
    assert code == 0 and json.loads(out) == check_policy()
    assert not ec2.calls
    ec2.launch("c5.large", ec2.image(ena=True), Guest(managed=False))
    ec2.launch("c5.large", ec2.image(ena=True))
    monkeypatch.setattr(ask, "regions", lambda aws: real_regions(aws) and [REGION])
    asked(capsys, "--all-regions")
    assert set(ec2.calls) == actions(check_policy())


@pytest.mark.parametrize(
    "missing", [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY",)]
)
def test_no_credentials(
    ec2: Endpoint,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    missing: tuple[str, ...],
) -> None:
    for name in missing:
        monkeypatch.delenv(name)
    code, _, err = asked(capsys, "--all")
    assert code == 3 and err.count("\n") == 1 and "credentials" in err and "--profile" in err


def test_an_endpoint_that_is_not_there(
    ec2: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vfwire.checks.ec2 import aws

    monkeypatch.setattr(aws, "_ATTEMPTS", 1)
    code, _, err = asked(capsys, "--all", "--endpoint-url", "http://127.0.0.1:9")
    assert code == 3 and err.count("\n") == 1 and "--endpoint-url" in err


def test_without_boto3_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    code, _, err = asked(capsys, "--all")
    assert code == 3 and "pip install 'vfwire[ec2]'" in err
