import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from bench import common
from vfwire.errors import PeerGone, UnsupportedMachine, VfwireError, WaitTimeout


def in_turn(values: list[float | Exception], log: list[str], name: str) -> common.Contender:
    """A contender that gives these values, one a round, and notes when it ran."""
    left = iter(values)

    def run() -> dict[str, float]:
        log.append(name)
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return {"pps": value}

    return common.Contender(name, run)


def test_everyone_runs_once_a_round_in_turn() -> None:
    log: list[str] = []
    contenders = [in_turn([1.0, 2.0], log, "a"), in_turn([3.0, 4.0], log, "b")]
    results = common.interleave(contenders, 2)
    assert log == ["a", "b", "a", "b"]
    assert results.rounds == {"a": {"pps": [1.0, 2.0]}, "b": {"pps": [3.0, 4.0]}}
    assert len(results.cache_line_ns) == len(results.handover_ns) == 2


def test_ratio_is_taken_within_rounds() -> None:
    # The machine halves its speed after each round: the ratio of medians would be 1, theirs is 2 in every round.
    contenders = [in_turn([8.0, 4.0, 2.0], [], "ours"), in_turn([4.0, 2.0, 1.0], [], "theirs")]
    results = common.interleave(contenders, 3)
    assert results.ratio("ours", "theirs", "pps") == 2.0
    assert results.median("ours", "pps") == 4.0
    assert results.median("ours", "no such figure") is None
    assert results.ratio("ours", "nobody", "pps") is None


def test_what_is_not_installed_is_left_out_once() -> None:
    log: list[str] = []
    contenders = [
        in_turn([UnsupportedMachine("no dpdk", "install it")], log, "dpdk"),
        in_turn([1, 1], log, "b"),
    ]
    results = common.interleave(contenders, 2)
    assert log == ["dpdk", "b", "b"]
    assert results.absent == {"dpdk": "no dpdk; install it"}
    assert list(results.rounds) == ["b"]


def test_a_failed_round_is_named_and_the_rounds_go_on() -> None:
    lines: list[str] = []
    contenders = [in_turn([PeerGone("it died"), 5.0], [], "a"), in_turn([1.0, PeerGone("again")], [], "b")]
    results = common.interleave(contenders, 2, lines.append)
    assert results.rounds == {"a": {"pps": [None, 5.0]}, "b": {"pps": [1.0, None]}}
    assert results.failed == ["round 1, a: it died", "round 2, b: again"]
    assert results.ratio("a", "b", "pps") is None
    assert "round 1, a: it died" in lines


def test_report_and_tables_say_the_same() -> None:
    results = common.interleave([in_turn([30e6], [], "ours"), in_turn([10e6], [], "theirs")], 1)
    report = json.loads(json.dumps(common.report(results, "ours")))
    assert report["contenders"]["theirs"]["pps"] == {"median": 10e6, "rounds": [10e6], "baseline_is": 3.0}
    assert report["machine"]["cores"] >= 1
    screen = io.StringIO()
    common.show(results, "ours", Console(file=screen, width=100))
    assert "3.00 x" in screen.getvalue() and "10.00 M" in screen.getvalue()


def test_records_of_a_command() -> None:
    program = "import json; print(json.dumps({'records': [{'a': 1}]}))"
    assert common.records_of([sys.executable, "-c", program], 30) == [{"a": 1}]


@pytest.mark.parametrize(("code", "kind"), [(3, UnsupportedMachine), (1, VfwireError)])
def test_a_commands_last_line_is_its_error(code: int, kind: type[VfwireError]) -> None:
    program = f"import sys; print('first\\nthe cause', file=sys.stderr); sys.exit({code})"
    with pytest.raises(kind, match=r"^the cause$"):
        common.records_of([sys.executable, "-c", program], 30)


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(WaitTimeout, match=r"not done after 0\.2 s"):
        common.records_of([sys.executable, "-c", "import signal; signal.pause()"], 0.2)


def test_a_process_that_will_not_go_is_killed() -> None:
    program = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        common.stop_process(process, patience=0.1)
        assert process.returncode == -9


def test_percentiles() -> None:
    figures = common.percentiles_us(np.arange(1, 1001) * 1000)
    assert figures["p50"] == 500.5 and figures["max"] == 1000.0 and figures["samples"] == 1000
    with pytest.raises(WaitTimeout):
        common.percentiles_us(np.zeros(0))


def test_errors_end_a_program_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, common.one_line_errors():
        raise UnsupportedMachine("no such tool", "install it")
    assert ended.value.code == UnsupportedMachine.exit_code
    assert capsys.readouterr().err == "error: no such tool; install it\n"


def test_one_core_is_not_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "usable_cores", lambda: [0])
    with pytest.raises(UnsupportedMachine, match="one core"):
        common.core_pair()
