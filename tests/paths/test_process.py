"""Processes of a path: asked and answered, watched over, and gone at the end whatever ends first."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from vfwire.errors import PeerGone, UsageError, VfwireError, WaitTimeout
from vfwire.paths.process import Family, wait_exit


class Parrot:
    busy = False

    def __init__(self, fault: str = "") -> None:
        if fault:
            raise UsageError(fault, "do it right")
        self.closed = False

    def do_repeat(self, text: str) -> str:
        return text * 2

    def do_refuse(self) -> None:
        raise UsageError("no", "ask something else")

    def do_fail(self) -> None:
        raise ZeroDivisionError("a fault")

    def do_die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_write(self, path: str) -> None:
        self.path = Path(path)

    def close(self) -> None:
        if hasattr(self, "path"):
            self.path.write_text("closed")


def test_ask_and_answer() -> None:
    with Family() as family:
        one, two = family.fork("one", Parrot), family.fork("two", Parrot)
        family.send(one, "repeat", text="a")
        assert family.call(two, "repeat", text="b") == "bb"
        assert family.wait_answer(one) == "aa"
        assert one.cpu_ns() > 0


def test_a_refusal_keeps_its_kind_and_its_hint() -> None:
    with Family() as family:
        child = family.fork("parrot", Parrot)
        with pytest.raises(UsageError, match="parrot: no; ask something else"):
            family.call(child, "refuse")
        with pytest.raises(VfwireError, match="ZeroDivisionError: a fault"):
            family.call(child, "fail")
        assert family.call(child, "repeat", text="x") == "xx"


def test_a_role_that_cannot_be_made_says_so_at_the_first_call() -> None:
    with Family() as family:
        child = family.fork("parrot", lambda: Parrot("wrong"))
        with pytest.raises(UsageError, match="parrot: wrong; do it right"):
            family.call(child, "repeat", text="x")


def test_the_end_of_one_is_known_while_waiting_for_another() -> None:
    with Family() as family:
        one, two = family.fork("one", Parrot), family.fork("two", Parrot)
        family.send(one, "die")
        with pytest.raises(PeerGone, match="one ended by signal 9"):
            family.wait_time(10)
        with pytest.raises(PeerGone, match="one ended"):
            family.call(two, "repeat", text="x")


def test_a_condition_that_never_comes_is_named() -> None:
    with Family() as family:
        family.fork("one", Parrot)
        with pytest.raises(WaitTimeout, match="the flood did not happen"):
            family.wait_until(lambda: False, 0.05, "the flood")


def test_closing_closes_the_role_and_removes_the_directory(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Family() as family:
        directory = family.directory.path
        assert directory.stat().st_mode & 0o777 == 0o700
        family.call(family.fork("one", Parrot), "write", path=str(mark))
    assert mark.read_text() == "closed"
    assert not directory.exists()


PROGRAM = """
    import os, signal, sys, time
    sys.path.insert(0, {here!r})
    from test_process import Parrot
    from vfwire.paths.process import Family

    family = Family()
    children = [family.fork("one", Parrot), family.fork("two", Parrot)]
    for child in children:
        family.call(child, "repeat", text="x")
    print(family.directory.path, *(child.pid for child in children), flush=True)
    family.wait_time(60)
"""


def test_all_go_when_the_parent_is_killed() -> None:
    program = textwrap.dedent(PROGRAM.format(here=str(Path(__file__).parent)))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        directory, *pids = parent.stdout.readline().split()
        pidfds = [os.pidfd_open(int(pid)) for pid in pids]
        assert Path(directory).is_dir()
        parent.kill()
        parent.wait()
    try:
        assert all(wait_exit(pidfd, 5) for pidfd in pidfds)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)
    deadline = time.monotonic() + 2
    while Path(directory).exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert not Path(directory).exists()


def test_the_next_run_removes_what_a_killed_one_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr("tempfile.tempdir", name)
        with subprocess.Popen([sys.executable, "-c", ""]) as gone:
            gone.wait()
        left = Path(name) / f"vfwire-run-{gone.pid}-abc"
        left.mkdir()
        mine = Path(name) / f"vfwire-run-{os.getpid()}-abc"
        mine.mkdir()
        with Family():
            assert not left.exists()
        assert mine.exists()


def test_a_path_too_long_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(UsageError, match="too long a path"):
        Family()
    assert list(deep.iterdir()) == []
