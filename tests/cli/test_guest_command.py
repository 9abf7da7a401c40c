"""`vfwire guest` as a process: what it prints, its exit codes, and what is left."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.guests.guest_kit import VFWIRE, RunningCard, card, guest_image
from vfwire.guests.image import Image

pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]
SECONDS = 300


@pytest.fixture(scope="module")
def running_card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCard]:
    with card(tmp_path_factory.mktemp("c"), "--vfs", "1") as made:
        yield made


@pytest.fixture(scope="module")
def image() -> Image:
    return guest_image()


def vfwire_guest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*VFWIRE, "guest", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL
    )


def test_a_command_in_a_guest_on_a_function(running_card: RunningCard, image: Image) -> None:
    socket = str(running_card.sockets[0])
    done = vfwire_guest(
        "--vf", socket, "--image", str(image.directory), "--json", "--run", "ethtool -i eth0; exit 4"
    )
    assert done.returncode == 4, done.stderr
    answer = json.loads(done.stdout)
    assert "driver: ixgbevf\n" in answer["output"]
    assert answer["exit_code"] == 4 and 0 < answer["ready_s"] <= answer["answered_s"]


def test_the_console_is_here_and_its_end_is_the_guests(image: Image) -> None:
    """On a terminal of its own: a shell is typed to, and left."""
    ours, theirs = pty.openpty()
    command = [*VFWIRE, "guest", "--image", str(image.directory), "--append", "quiet"]
    with (
        os.fdopen(ours, "r+b", buffering=0) as terminal,
        subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process,
    ):
        os.close(theirs)
        try:
            read_until(terminal, b"# ")
            terminal.write(b"echo $((6*7))-typed\n")
            read_until(terminal, b"42-typed")
            terminal.write(b"exit\n")
            assert process.wait(60) == 0
        finally:
            process.kill()


def read_until(terminal: object, wanted: bytes) -> None:
    said = b""
    while wanted not in said:
        chunk = terminal.read(4096)  # type: ignore[attr-defined]
        assert chunk, said
        said += chunk


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_qemu(image: Image, number: int) -> None:
    command = [*VFWIRE, "guest", "--image", str(image.directory)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)  # the guest's first word
        process.send_signal(number)
        process.stdout.read()  # ends when QEMU and we have ended: both hold nothing any more
        assert process.wait(60) == 0


def test_a_panic_is_one_line(image: Image) -> None:
    done = vfwire_guest("--image", str(image.directory), "--append", "rdinit=/none root=/dev/none")
    assert done.returncode == 7
    assert "vfwire: guest: kernel panic: VFS: Unable to mount root" in done.stderr.splitlines()[-1]


def test_the_lines_for_others(image: Image) -> None:
    shown = vfwire_guest("--image", str(image.directory), "--vf", "card7/1", "--print")
    assert "vfio-user-pci" in shown.stdout and "--user-device socket=" in shown.stdout
    assert "not run here" in shown.stdout
    assert vfwire_guest("--image", str(image.directory), "--libvirt").stdout.startswith("<domain")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--vf", "card0"], 2, "write card0/0"),
        (["--vf", "/nowhere/vf0.sock"], 7, "no card serves /nowhere/vf0.sock; start one with vfwire card"),
        (["--memory", "lots"], 2, "write it as 512M or 2G"),
        (["--memory", "4000000G"], 3, "give it less with --memory"),
        (["--qemu", "/bin/false"], 3, "vfwire guest qemu"),
        (["--kernel", "/nowhere"], 2, "cannot read /nowhere"),
        (["--image", "/"], 2, "vfwire guest build --out /"),
        (["--run", "true", "--disk", "/dev/null"], 2, "--run needs the small guest"),
        (["--json"], 2, "--json is for --run and --print"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments: list[str], code: int, words: str) -> None:
    done = vfwire_guest(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr.splitlines()[-1]
