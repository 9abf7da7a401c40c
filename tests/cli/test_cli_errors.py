"""Every way to be wrong on the command line: one line on stderr, an exit code of its own, no traceback."""

import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from vfwire import cli, errors
from vfwire.cli.vf_name import split_name
from vfwire.errors import UsageError

WRONG = [
    (["bogus"], 2),
    (["card", "--vfs", "0"], 2),
    (["card", "--vfs", "64"], 2),
    (["card", "--line-rate", "fast"], 2),
    (["card", "--mtu", "20"], 2),
    (["card", "--mtu", "9711"], 2),
    (["card", "--name", "../x"], 2),
    (["card", "--model", "e1000"], 2),
    (["card", "--socket-mode", "999"], 2),
    (["card", "--api-ceiling", "1.5"], 2),
    (["card", "--mac-prefix", "01:02"], 2),
    (["card", "--rss-key", "xyz"], 2),
    (["card", "--rss-key", "00"], 2),
    (["card", "--core", "4095"], 2),
    (["card", "--colour"], 2),
    (["image", "look"], 2),
    (["image", "check"], 2),
    (["image", "check", "/nonexistent"], 2),
    (["image", "check", "/dev/null"], 3),
    (["image", "check", "/dev/null", "--key", "/dev/null"], 2),
    (["image", "check", "/dev/null", "--seconds", "0"], 2),
    (["image", "check", "/dev/null", "--initrd", "/dev/null"], 2),
    (["image", "check", "--kernel", "/dev/null"], 3),
    (["image", "check", "--kernel", "/nonexistent"], 2),
    (["verify", "--sriov", "eth99"], 2),
    (["sriov", "set", "eth99", "--vfs", "1"], 2),
    (["sriov", "bind", "eth99/0"], 2),
    (["vf", "show", "card9"], 7),
    (["vf", "show"], 7),
    (["vf", "show", "../card0"], 2),
    (["vf", "show", ".."], 2),
    (["vf", "set", "card0", "--vlan", "1"], 2),
    (["vf", "set", "card0/0"], 2),
    (["vf", "set", "card0/x", "--vlan", "1"], 2),
    (["vf", "set", "card0/0", "--trust", "maybe"], 2),
    (["vf", "set", "card9/0", "--vlan", "1"], 7),
]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "code"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_one_line_and_its_exit_code(
    arguments: list[str], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("vfwire: ") and err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.VfwireError("a", "b"), 1),
        (errors.UsageError("a", "b"), 2),
        (errors.UnsupportedMachine("a", "b"), 3),
        (errors.ResourceBusy("a", "b"), 4),
        (errors.PermissionDenied("a", "b"), 5),
        (errors.BadInput("a", "b"), 6),
        (errors.PeerGone("a", "b"), 7),
        (errors.ProtocolError("a", "b"), 8),
        (errors.WaitTimeout("a", "b"), 9),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setitem(sys.modules, "vfwire_test_broken", types.SimpleNamespace(broken=broken))  # type: ignore[arg-type]
    monkeypatch.setitem(cli.COMMANDS, "broken", ("vfwire_test_broken", "Fails."))
    assert cli.run(["broken"]) == code
    expected = "vfwire: a; b\n" if isinstance(error, errors.VfwireError) else ""
    assert capsys.readouterr().err.lstrip("\n") == expected  # click ends the line of a ^C


def test_another_system_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cli.run(["card"]) == 3
    assert capsys.readouterr().err == "vfwire: vfwire runs on Linux only; run it on a Linux machine\n"


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) != 1
    assert "Commands:" in "".join(capsys.readouterr())


def test_help_is_quick_because_nothing_is_imported_for_it() -> None:
    code = (
        "import sys; from vfwire.cli import run; code = run(['--help']); "
        "sys.exit(code or int('numba' in sys.modules or 'numpy' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "parts"),
    [("card0", ("card0", None)), ("card0/3", ("card0", 3)), ("a/host", ("a", "host"))],
)
def test_names_of_functions(name: str, parts: tuple[str, int | str | None]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["", "/", "/0", "a/", "a/b", "a/-1", "a/0/0", "a/99999", "a/²"])
def test_what_names_no_function(name: str) -> None:
    with pytest.raises(UsageError):
        split_name(name)


def test_a_reader_that_goes_away_is_no_error() -> None:
    line = f"{sys.executable} -c 'from vfwire.cli import main; main()' card --help | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
