import json

import pytest
from click.testing import CliRunner

from bench import __main__ as bench_main
from bench.common import Contender
from bench.contenders import OURS
from vfwire.errors import PeerGone, UnsupportedMachine, UsageError


def dies() -> dict[str, float]:
    raise PeerGone("it died")


def is_absent() -> dict[str, float]:
    raise UnsupportedMachine("not there", "install it")


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> list[Contender]:
    """Who is measured, for a test to add to: ours at 4 packets/s, one rival at 2."""
    everyone = [Contender("slow rival", lambda: {"pps": 2.0})]
    monkeypatch.setattr(bench_main, "program", lambda: ["vfwire"])
    monkeypatch.setattr(bench_main, "ours", lambda *_: [Contender(OURS, lambda: {"pps": 4.0})])
    monkeypatch.setattr(bench_main, "rivals", lambda _seconds: everyone)
    return everyone


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(bench_main.main, arguments)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.usefixtures("contenders")
def test_json_holds_medians_and_ratios() -> None:
    code, out, err = run("--rounds", "2", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["contenders"]["slow rival"]["pps"]["baseline_is"] == 2.0
    assert report["baseline"] == OURS and report["failed"] == []
    assert "round 2/2 slow rival" in err


def test_a_rival_that_is_absent_is_no_failure(contenders: list[Contender]) -> None:
    contenders.append(Contender("absent", is_absent))
    code, out, _ = run("--rounds", "1")
    assert code == 0
    assert "absent was left out: not there; install it" in out


def test_a_rival_that_fails_is(contenders: list[Contender]) -> None:
    contenders.append(Contender("broken", dies))
    code, out, _ = run("--rounds", "1")
    assert code == 1
    assert "failed: round 1, broken: it died" in out


@pytest.mark.usefixtures("contenders")
def test_only_those_named() -> None:
    code, out, _ = run("--rounds", "1", "--only", "slow", "--json")
    assert code == 0
    assert list(json.loads(out)["contenders"]) == ["slow rival"]


@pytest.mark.usefixtures("contenders")
@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--seconds", "-1"), ("--only", "nobody")])
def test_what_makes_no_sense_is_one_line(arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert code == UsageError.exit_code and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
