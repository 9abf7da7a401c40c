"""kill -9 at random moments: who is left goes on or ends with one line, nothing stays behind, a new start works."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from vfwire.devices.engine import Engine
from vfwire.devices.models import MODELS
from vfwire.errors import PeerGone
from vfwire.paths.prepare import prepare
from vfwire.paths.process import wait_exit

VFWIRE = [sys.executable, "-c", "from vfwire.cli import main; main()"]
SYSTEM = [sys.executable, str(Path(__file__).with_name("kill_system.py"))]
SECONDS = 60.0
START_SECONDS = 300.0  # a first start compiles


@pytest.fixture(autouse=True)
def private(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path for the run directories of these tests alone; everything compiled beforehand."""
    prepare()
    Engine.warm_up()
    with tempfile.TemporaryDirectory(prefix="vfk") as directory:
        for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, directory)
        yield Path(directory)


def tree(pid: int) -> dict[int, str]:
    """A process and all below it: pid to name."""
    found = {pid: "the command"}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            try:
                name = Path(f"/proc/{child}/comm").read_text().strip()
            except OSError:
                continue
            found |= tree(int(child)) | {int(child): name}
    return found


def wait_for(process: subprocess.Popen[str], children: int) -> dict[int, str]:
    """The tree, once that many children run under names of their own."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        found = tree(process.pid)
        if sum(name.startswith("vf-") for name in found.values()) >= children:
            return found
        assert process.poll() is None and time.monotonic() < deadline, found
        select.select([], [], [], 0.005)


def memory_files(pids: list[int]) -> list[str]:
    """What of our memory is still held by anybody of these."""
    held = []
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if target.startswith("/memfd:"):
                held.append(f"{pid} {target}")
    return held


def kill_one(chance: random.Random, directory: Path, *, whom: str = "") -> str:
    """A `vfwire compare`, one process of it killed at a random moment. Returns who it was."""
    command = [*VFWIRE, "compare", "--json", "--seconds", "0.4", "--size", "64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(process, 8)
        try:
            process.wait(chance.uniform(0, 1.5))
        except subprocess.TimeoutExpired:
            pass
        alive = tree(process.pid)
        pidfds = [os.pidfd_open(pid) for pid in alive if Path(f"/proc/{pid}").exists()]
        victim = chance.choice([pid for pid, name in alive.items() if name.startswith(whom)] or list(alive))
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            alive[victim] = "nobody: it had ended"
        out, complaint = process.communicate(timeout=SECONDS)
        ended = [wait_exit(pidfd, 10) for pidfd in pidfds]
        for pidfd in pidfds:
            os.close(pidfd)
    assert all(ended), f"after the end of {alive[victim]}: {list(alive.values())}"
    assert memory_files(list(alive)) == []
    assert list(directory.glob("vfwire-run-*")) == [], f"after the end of {alive[victim]}"
    assert "Traceback" not in complaint
    if victim == process.pid and process.returncode == -signal.SIGKILL:
        return alive[victim]
    if process.returncode == 0:  # it came too late
        assert json.loads(out)["schema"] == 1
    else:
        assert process.returncode == PeerGone.exit_code, complaint
        assert complaint.splitlines()[-1].startswith("vfwire: ") and "ended by signal 9" in complaint
    return alive[victim]


def a_new_start_works() -> None:
    command = [*VFWIRE, "compare", "--json", "--seconds", "0.1", "--size", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * SECONDS)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("whom", ["vf-card", "vf-system", "vf-layer", "the command"])
def test_one_of_a_path_is_killed(private: Path, whom: str) -> None:
    kill_one(random.Random(whom), private, whom=whom)


def test_after_kills_a_new_start_works(private: Path) -> None:
    chance = random.Random(5)
    for _ in range(2):
        kill_one(chance, private)
    a_new_start_works()


@pytest.mark.soak
def test_a_hundred_kills(private: Path) -> None:
    chance = random.Random()
    print([kill_one(chance, private) for _ in range(100)])
    a_new_start_works()


# --- A card and its systems, each started by itself ----------------------------------------------------------


class SystemProcess:
    """kill_system.py on a socket."""

    def __init__(self, socket: str) -> None:
        self.process = subprocess.Popen(
            [*SYSTEM, socket],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.mac = self.process.stdout.readline().strip()
        assert len(self.mac) == 12, self.process.communicate(timeout=SECONDS)[1]

    def talk_to(self, other: "SystemProcess") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(other.mac + "\n")
        self.process.stdin.flush()

    def wait_received(self, frames: int = 100) -> None:
        """So many frames more have come."""
        assert self.process.stdout is not None
        before = int(self.process.stdout.readline())
        deadline = time.monotonic() + SECONDS
        while int(self.process.stdout.readline()) < before + frames:
            assert time.monotonic() < deadline

    def end(self) -> tuple[int, str]:
        """Its exit code and last words."""
        _, complaint = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, complaint

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=SECONDS)


@contextmanager
def running_card(directory: Path, model: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    command = [*VFWIRE, "card", "--json", "--vfs", "3", "--line-rate", "off", "--model", model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, [vf["socket"] for vf in json.loads(process.stdout.readline())["vfs"]]
        finally:
            process.terminate()
            process.wait(SECONDS)
    assert not (directory / "vfwire" / "card0").exists() or process.returncode == -signal.SIGKILL


@contextmanager
def systems(*sockets: str) -> Iterator[list[SystemProcess]]:
    with ExitStack() as stack:
        made = []
        for socket in sockets:
            made.append(SystemProcess(socket))
            stack.callback(made[-1].kill)
        yield made


@pytest.mark.parametrize("model", MODELS)
def test_a_system_is_killed_and_the_others_do_not_notice(model: str, private: Path, soaking: bool) -> None:
    chance = random.Random(9)
    with running_card(private, model) as (_, sockets), systems(*sockets[:2]) as (one, two):
        one.talk_to(two)
        two.talk_to(one)
        for _ in range(30 if soaking else 2):
            with systems(sockets[2]) as (victim,):
                victim.talk_to(one)
                for _ in range(chance.randrange(1, 4)):
                    one.wait_received()
                victim.kill()
            two.wait_received()
        one.wait_received()


@pytest.mark.parametrize("model", MODELS)
def test_a_card_is_killed_and_its_systems_say_so(model: str, private: Path, soaking: bool) -> None:
    for _ in range(20 if soaking else 1):
        with running_card(private, model) as (card, sockets), systems(*sockets[:2]) as (one, two):
            one.talk_to(two)
            two.talk_to(one)
            one.wait_received()
            card.kill()
            for system in (one, two):
                code, complaint = system.end()
                assert code == PeerGone.exit_code, complaint
                assert complaint.startswith("vfwire: ") and len(complaint.splitlines()) == 1
    with running_card(private, model) as (_, sockets), systems(*sockets[:2]) as (one, two):
        one.talk_to(two)
        two.talk_to(one)
        two.wait_received()
