"""`vfwire card` and `vfwire vf` as processes: what they print, who can be attached, and what is left afterwards."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.layouts import pci

VFWIRE = [sys.executable, "-c", "from vfwire.cli import main; main()"]
SECONDS = 120


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "vfwire"


@contextmanager
def card(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running card, and what it printed. Killed at the end if it still runs."""
    command = [*VFWIRE, "card", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()
            process.wait(SECONDS)


def vfwire(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*VFWIRE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)


def show(*arguments: str) -> Any:
    done = vfwire("vf", "show", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_card_runs_until_it_is_stopped_and_leaves_nothing(runtime: Path, number: int) -> None:
    with card("--vfs", "2") as (process, described):
        assert [vf["name"] for vf in described["vfs"]] == ["card0/0", "card0/1"]
        for vf in described["vfs"]:
            function = VfioUserFunction(Path(vf["socket"]))
            assert function.config_read(pci.VENDOR_ID, 4) == 0x10ED8086
            function.close()
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        assert list(runtime.iterdir()) == []


def test_settings_are_shown_and_changed_while_it_runs(runtime: Path) -> None:
    with card("--vfs", "2", "--name", "blue", "--host-function"):
        changes = ("--vlan", "7", "--qos", "3", "--spoofchk", "off", "--trust", "on", "--max-tx-rate", "500")
        done = vfwire("vf", "set", "blue/1", "--mac", "02:00:00:00:00:05", *changes, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        (shown,) = show("blue/1", "--counters")["vfs"]
        for settings in (json.loads(done.stdout), shown):
            assert settings["mac"] == "02:00:00:00:00:05"
            assert (settings["vlan"], settings["qos"], settings["max_tx_rate"]) == (7, 3, 500)
            assert (settings["spoofchk"], settings["trust"]) == (False, True)
        assert shown["counters"]["tx_frames"] == 0 and not shown["in_use"]
        assert [vf["vf"] for vf in show()["cards"][0]["vfs"]] == [0, 1, "host"]
        text = vfwire("vf", "show", "--counters").stdout
        assert "blue/1" in text and "mac 02:00:00:00:00:05  vlan 7 qos 3" in text
        refused = vfwire("vf", "set", "blue/1", "--vlan", "4095")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert vfwire("vf", "set", "blue/5", "--vlan", "1").returncode == 2
        assert vfwire("vf", "show", "blue/5").returncode == 2


def test_a_second_card_of_the_name_is_refused_a_killed_ones_place_is_taken(runtime: Path) -> None:
    with card("--vfs", "1") as (process, _):
        second = vfwire("card", "--vfs", "1")
        assert second.returncode == 4
        assert second.stderr.splitlines()[-1].startswith("vfwire: a card runs already in ")
        process.kill()
        process.wait(SECONDS)
        assert (runtime / "card0" / "vf0.sock").exists()
    with card("--vfs", "1") as (process, described):
        assert described["card"] == "card0"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


def test_text_says_how_to_attach_qemu(runtime: Path, tmp_path: Path) -> None:
    command = [
        *VFWIRE,
        "card",
        "--vfs",
        "1",
        "--line-rate",
        "off",
        "--dir",
        str(tmp_path / "here"),
        "--socket-mode",
        "660",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(5)]
            path = tmp_path / "here" / "vf0.sock"
            assert lines[0] == "card0: 82599, MTU 1500, no line rate\n"
            assert "0000:01:10.0  02:c4:f1:c9:bd:00" in lines[1] and str(path) in lines[1]
            assert f'"path":"{path}"' in lines[2]
            assert path.stat().st_mode & 0o777 == 0o660
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_two_card_processes_are_joined_by_a_cable(runtime: Path, tmp_path: Path) -> None:
    link = str(tmp_path / "cable")
    with (
        card("--vfs", "1", "--name", "a", "--link", link),
        card("--vfs", "1", "--name", "b", "--link", link) as (other, _),
    ):
        wait_link("a", True)
        wait_link("b", True)
        os.kill(other.pid, signal.SIGKILL)
        wait_link("a", False)


def wait_link(name: str, up: bool) -> None:
    for _ in range(40):
        if show(name)["link_up"] == up:
            return
    raise AssertionError(f"the link of {name} did not go {'up' if up else 'down'}")


def test_a_watched_card_writes_what_its_guests_do(tmp_path: Path) -> None:
    trace, capture = tmp_path / "card.trace", tmp_path / "card.pcapng"
    with card("--vfs", "1", "--trace", str(trace), "--pcap", str(capture)) as (process, described):
        function = VfioUserFunction(Path(described["vfs"][0]["socket"]))
        function.config_read(pci.VENDOR_ID, 4)
        function.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    told = [line.split(maxsplit=2)[-1] for line in trace.read_text().splitlines()]
    assert told[1] == "attach" and told[-2:] == ["detach", "0 events lost"]
    assert "read       VENDOR_ID               0x10ed8086" in told
    assert capture.stat().st_size > 0


def test_files_that_cannot_be_written_are_an_error_before_anything_is_served(runtime: Path) -> None:
    for option in ("--trace", "--pcap"):
        done = vfwire("card", "--vfs", "1", option, "/nowhere/file")
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            "cannot be written to /nowhere/file: No such file or directory; give another file" in done.stderr
        )
    done = vfwire("card", "--vfs", "1", "--pcap-vf", "0")
    assert done.returncode == 2 and "--pcap FILE" in done.stderr
    assert list(runtime.iterdir()) == []
