"""A guest as a process: it starts, answers, is watched, and leaves nothing."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.guests.guest_kit import READY_SECONDS, RunningCard, card, machine
from vfwire.errors import PeerGone, ResourceBusy, VfwireError, WaitTimeout
from vfwire.guests.guest import Guest

# Some tests boot several guests, and other work may go on beside them.
pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running_card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCard]:
    with card(tmp_path_factory.mktemp("c"), "--vfs", "2") as made:
        yield made


@pytest.fixture(scope="module")
def guest(running_card: RunningCard) -> Iterator[Guest]:
    with Guest(
        machine(functions=running_card.sockets[:1], addresses=["eth0:10.9.0.1/24,fd09::1/64"])
    ) as made:
        made.wait_ready(READY_SECONDS)
        yield made


def test_an_unmodified_guest_binds_its_own_driver(guest: Guest) -> None:
    assert "driver: ixgbevf\n" in guest.check("ethtool -i eth0")


def test_addresses_come_from_the_kernel_line(guest: Guest) -> None:
    shown = guest.check("ip address show dev eth0")
    assert "inet 10.9.0.1/24" in shown and "inet6 fd09::1/64" in shown


def test_output_and_exit_code_come_back(guest: Guest) -> None:
    done = guest.run("echo out; echo err >&2; exit 7")
    assert (done.output, done.code) == ("out\nerr\n", 7)
    with pytest.raises(VfwireError, match="ended with 7"):
        guest.check("exit 7")


def test_long_scripts_and_long_answers_pass(guest: Guest) -> None:
    script = "\n".join(f"x{number}=1" for number in range(2000)) + "\nseq 1 20000"
    assert guest.check(script) == "".join(f"{number}\n" for number in range(1, 20001))


def test_commands_run_side_by_side(guest: Guest) -> None:
    """The first waits for what the second does: one after the other they would never end."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(guest.check, "mkfifo /tmp/pipe; cat /tmp/pipe", 30)
        second = pool.submit(guest.check, "while [ ! -p /tmp/pipe ]; do :; done; echo hello >/tmp/pipe", 30)
        assert first.result() == "hello\n"
        second.result()


def test_a_command_that_hangs_is_ended(guest: Guest) -> None:
    with pytest.raises(WaitTimeout, match="was not done in 1 s"):
        guest.run("cat /dev/zero >/dev/null", timeout=1)
    assert guest.check("echo still here") == "still here\n"


def test_the_monitor_answers(guest: Guest) -> None:
    assert guest.monitor("query-status")["status"] == "running"
    with pytest.raises(VfwireError, match="no-such-command"):
        guest.monitor("no-such-command")


def test_a_function_in_use_is_refused_and_the_first_guest_goes_on(
    guest: Guest, running_card: RunningCard
) -> None:
    with pytest.raises(ResourceBusy, match="in use by another guest"):
        Guest(machine("b", functions=running_card.sockets[:1]))
    assert "driver: ixgbevf" in guest.check("ethtool -i eth0")


def test_a_card_that_comes_back_is_plugged_in_again(tmp_path: Path) -> None:
    place = tmp_path / "c"
    with contextlib.ExitStack() as stack:
        with card(place, "--vfs", "1") as first:
            guest = stack.enter_context(Guest(machine("d", functions=tuple(first.sockets))))
            guest.wait_ready(READY_SECONDS)
            assert "driver: ixgbevf" in guest.check("ethtool -i eth0")
            first.kill()
        with card(place, "--vfs", "1"):
            shown = guest.check("until ethtool -i eth1 2>&1; do sleep 0.1; done", 60)
            assert "driver: ixgbevf" in shown
            assert guest.notes[-1].endswith("is plugged in again, as a new device")
            with pytest.raises(PeerGone):  # QEMU would abort here: it is started as new instead
                guest.run("reboot -f")
            guest.wait_ready(READY_SECONDS)
            assert "driver: ixgbevf" in guest.check("ethtool -i eth0")
            assert guest.run("ethtool -i eth1").code != 0  # the dead device is gone


def test_a_socket_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(PeerGone, match="no card serves"):
        Guest(machine(functions=[tmp_path / "vf0.sock"]))


@pytest.mark.timeout(3600)
def test_a_killed_guest_is_reported_and_its_function_is_free_again(
    running_card: RunningCard, soaking: bool
) -> None:
    mine = machine("c", functions=tuple(running_card.sockets[1:2]))
    for _ in range(50 if soaking else 1):
        with Guest(mine) as first:
            first.wait_ready(READY_SECONDS)
            first.kill()
            with pytest.raises(PeerGone, match="signal 9"):
                first.run("true")
    with Guest(mine) as second:
        second.wait_ready(READY_SECONDS)
        assert "driver: ixgbevf" in second.check("ethtool -i eth0")
        with pytest.raises(PeerGone, match="kernel panic: sysrq"):
            second.run("echo c >/proc/sysrq-trigger")
        assert second.wait_end(10)


def test_a_kernel_without_the_driver_is_told(running_card: RunningCard) -> None:
    mine = machine("e", functions=tuple(running_card.sockets[1:2]), append="modprobe.blacklist=ixgbevf")
    with Guest(mine) as guest:
        guest.wait_ready(READY_SECONDS)
        wait_until(lambda: bool(guest.notes))
        assert "no driver for 0000:01:00.0 (0x8086:0x10ed)" in guest.notes[0]


def test_a_guest_that_hangs_is_a_timeout_with_its_last_words() -> None:
    """Its first process shows a file and then waits for input."""
    with Guest(machine(append="rdinit=/bin/busybox -- cat /init -")) as hanging:
        wait_until(lambda: "busybox --install" in hanging.console, READY_SECONDS)
        with pytest.raises(WaitTimeout, match="it last said"):
            hanging.wait_ready(2)
        assert hanging.alive


def test_qemu_dies_with_its_parent(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from tests.guests.guest_kit import machine
        from vfwire.guests.guest import Guest
        guest = Guest(machine())
        print(guest.pid, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    wait_gone(pid)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    looking = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        looking.wait(0.05)


def wait_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(10_000), f"process {pid} lives on"
    finally:
        os.close(descriptor)
