"""`vfwire attach` and `vfwire layer` as a user meets them: what they say, how they end, and what is left."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_kit import SECONDS, VFWIRE, started, vfwire

from vfwire import cli


def link(namespace: str) -> Any:
    """What `ip link` says of the tap, None when there is none."""
    done = subprocess.run(
        ["ip", "-n", namespace, "-d", "-j", "link", "show", "vf0"],
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def wait_link(namespace: str, flag: str, there: bool) -> None:
    """Until `ip link` shows a flag, or does not."""
    for _ in range(2000):
        shown = link(namespace)
        if shown is not None and (flag in shown["flags"]) == there:
            return
    raise AssertionError(f"{flag} did not become {there}: {link(namespace)}")


@pytest.fixture
def card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A running card with two VFs and the host's function: (process, sockets)."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with started("card", "--vfs", 2, "--host-function", "--json", lines=1) as (process, (line,)):
        yield process, [vf["socket"] for vf in json.loads(line)["vfs"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tap_is_the_vf_until_it_is_stopped(card: Any, netns_pair: tuple[str, str], number: int) -> None:
    _, sockets = card
    arguments = ("attach", sockets[0], "--tap", "vf0", "--netns", netns_pair[0], "--mtu", "1400")
    with started(*arguments, lines=2) as (process, said):
        shown = link(netns_pair[0])
        assert said[0] == f"vf0 in {netns_pair[0]}: ixgbevf on {sockets[0]}, {shown['address']}, MTU 1400\n"
        assert shown["address"] == "02:c4:f1:c9:bd:00" and shown["mtu"] == 1400
        assert {"UP", "MULTICAST", "BROADCAST"} <= set(shown["flags"])
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        assert process.stdout is not None
        assert "frames out" in process.stdout.read()
    assert link(netns_pair[0]) is None


def test_the_carrier_follows_the_link_and_a_changed_function_is_taken_over(
    card: Any, netns_pair: tuple[str, str]
) -> None:
    _, sockets = card
    where = netns_pair[0]
    with started("attach", sockets[0], "--tap", "vf0", "--netns", where, lines=2):
        for state, up in (("disable", False), ("enable", True), ("auto", True)):
            done = vfwire("vf", "set", "card0/0", "--state", state)
            assert done.returncode == 0, done.stderr
            wait_link(where, "LOWER_UP", up)
        assert vfwire("vf", "set", "card0/0", "--mac", "02:00:00:00:00:77", "--trust", "on").returncode == 0
        for _ in range(2000):
            if link(where)["address"] == "02:00:00:00:00:77":
                break
        assert link(where)["address"] == "02:00:00:00:00:77"


def test_a_card_that_dies_ends_it_with_one_line(card: Any, netns_pair: tuple[str, str]) -> None:
    running, sockets = card
    with started("attach", sockets[0], "--tap", "vf0", "--netns", netns_pair[0], lines=2) as (process, _):
        running.kill()
        assert process.wait(SECONDS) == 7
        assert process.stderr is not None
        (last,) = complaints(process.stderr.read())
        assert last.startswith("vfwire: the card behind ") and "start it again" in last
    assert link(netns_pair[0]) is None


def test_a_tap_that_is_deleted_ends_it_with_one_line(card: Any, netns_pair: tuple[str, str]) -> None:
    _, sockets = card
    with started("attach", sockets[0], "--tap", "vf0", "--netns", netns_pair[0], lines=2) as (process, _):
        subprocess.run(["ip", "-n", netns_pair[0], "link", "del", "vf0"], check=True)
        assert process.wait(SECONDS) == 1
        assert process.stderr is not None
        assert "vfwire: the interface vf0 has gone" in process.stderr.read()


def test_a_layer_that_dies_ends_its_systems(card: Any, netns_pair: tuple[str, str], tmp_path: Path) -> None:
    _, sockets = card
    listen = tmp_path / "layer"
    with started("layer", "--function", sockets[2], "--listen", listen, "--cap", "off", lines=1) as (
        layer,
        said,
    ):
        assert said == [f"layer on {sockets[2]}, no cap: netfronts connect to {listen}\n"]
        arguments = ("attach", listen, "--xen", "--tap", "vf0", "--netns", netns_pair[0])
        with started(*arguments, lines=2) as (process, (first, second)):
            assert ": netfront on " in first and second == "vf0: link up\n"
            layer.kill()
            assert process.wait(SECONDS) == 7
    assert link(netns_pair[0]) is None


def test_a_card_that_dies_ends_the_layer(card: Any, tmp_path: Path) -> None:
    running, sockets = card
    with started("layer", "--function", sockets[2], "--listen", tmp_path / "layer", lines=1) as (layer, _):
        running.kill()
        assert layer.wait(SECONDS) == 7
    assert not (tmp_path / "layer").exists()


def test_a_layer_that_is_stopped_says_what_it_moved(card: Any, tmp_path: Path) -> None:
    _, sockets = card
    with started("layer", "--function", sockets[2], "--listen", tmp_path / "layer", lines=1) as (layer, _):
        layer.send_signal(signal.SIGTERM)
        assert layer.wait(SECONDS) == 0
        assert layer.stdout is not None
        assert layer.stdout.read() == "layer: 0 frames from systems, 0 to them, 0 dropped\n"


def complaints(text: str) -> list[str]:
    """What is left of stderr without progress."""
    return [
        line for line in text.splitlines() if not line.startswith(("vfwire: loading", "vfwire: compiling"))
    ]


def test_what_cannot_be_is_one_line(
    card: Any, netns_pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (first, second, host) = card
    tap = ("--tap", "vf0", "--netns", netns_pair[0])
    wrong: list[tuple[tuple[object, ...], int, str]] = [
        (("attach", first), 2, "--tap"),
        (("attach", first, "--tap", "a/b"), 2, "no name for an interface"),
        (("attach", first, "--tap", "a" * 16), 2, "no name for an interface"),
        (("attach", first, "--tap", "vf0", "--netns", "nowhere-at-all"), 2, "ip netns add"),
        (("attach", first, "--tap", "vf0", "--netns", ".."), 2, "no network namespace"),
        (("attach", first, "--tap", "lo", "--netns", netns_pair[0]), 4, "lo exists already"),
        (("attach", first, *tap, "--mtu", "20"), 2, "68 to 9710"),
        (("attach", first, *tap, "--mtu", "9000"), 8, "VF_SET_LPE"),
        (("attach", first, *tap, "--queues", "3"), 2, "queues"),
        (("attach", first, *tap, "--queues", "2", "--xen"), 2, "one queue"),
        (("attach", tmp_path / "none", *tap), 2, "no socket"),
        (("attach", tmp_path / "none", *tap, "--xen"), 7, "no virtualization layer"),
        (("layer", "--function", second, "--listen", tmp_path / "x"), 2, "--host-function"),
        (("layer", "--function", host, "--listen", tmp_path / "no" / "x"), 2, "cannot listen"),
        (("layer", "--function", host, "--listen", tmp_path / "x", "--cap", "fast"), 2, "fast"),
    ]
    for arguments, code, cause in wrong:
        assert cli.run([str(argument) for argument in arguments]) == code, arguments
        out, err = capsys.readouterr()
        lines = complaints(err)
        assert out == "" and len(lines) == 1, (arguments, err)
        assert lines[0].startswith("vfwire: ") and cause in lines[0], (arguments, lines)


def test_without_permission_it_says_which_is_needed(card: Any) -> None:
    command = [
        "setpriv",
        "--inh-caps=-all",
        "--bounding-set=-all",
        *VFWIRE,
        "attach",
        card[1][0],
        "--tap",
        "vf0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 5 and done.stdout == "", done.stderr
    (line,) = complaints(done.stderr)
    assert line.startswith("vfwire: no permission to make the tap vf0; ") and "CAP_NET_ADMIN" in line
