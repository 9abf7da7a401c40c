"""A journal: what was written is there, what was torn is cut, one run at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfwire.checks.ec2.journal import Journal
from vfwire.errors import BadInput, PermissionDenied, ResourceBusy


def test_what_is_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal"
    with Journal(path) as journal:
        journal.write({"a": 1})
        journal.write({"b": "é\n"}, durable=False)
        assert list(journal.lines()) == [{"a": 1}, {"b": "é\n"}]
    with Journal(path) as journal:
        journal.write({"c": None})
        assert [next(iter(entry)) for entry in journal.lines()] == ["a", "b", "c"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 30))
def test_a_torn_line_is_cut_away(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"a": 1}\n{"b": 22222222222}\n'[:kept])
    with Journal(path) as journal:
        whole = path.read_bytes()
        assert whole in (b"", b'{"a": 1}\n', b'{"a": 1}\n{"b": 22222222222}\n')
        journal.write({"c": 3})
        assert list(journal.lines())[-1] == {"c": 3}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_file_is_a_journal_or_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with Journal(path) as journal:
        try:
            assert all(isinstance(entry, dict) for entry in journal.lines())
        except BadInput:
            pass


def test_only_one_run_holds_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal"), pytest.raises(ResourceBusy):
        Journal(tmp_path / "journal")
    Journal(tmp_path / "journal").__exit__()


def test_a_place_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionDenied):
        Journal(tmp_path / "file" / "journal")
    with pytest.raises(PermissionDenied):
        Journal(tmp_path)


def test_it_outlives_a_kill(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from vfwire.checks.ec2.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for number in range(1_000_000_000):\n"
        "    journal.write({'n': number}, durable=False)\n"
        "    if number == 100: print('far', flush=True)\n"
    )
    path = tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    with Journal(path) as journal:
        numbers = [entry["n"] for entry in journal.lines()]
    assert numbers == list(range(len(numbers))) and len(numbers) > 100
