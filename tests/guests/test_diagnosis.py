"""What a machine must have before QEMU is asked: each lack is one error with the next step."""

import errno
import socket
import threading
from pathlib import Path

import psutil
import pytest

from vfwire.errors import PeerGone, ResourceBusy, UnsupportedMachine
from vfwire.guests.diagnosis import check_before, explain_start
from vfwire.guests.machine import Machine


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"kernel")
    return path


def test_no_shared_memory_is_told(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.memfd_create", refuse)
    with pytest.raises(
        UnsupportedMachine, match="no shared memory for guests: Operation not permitted"
    ) as told:
        check_before(Machine(kernel=kernel, memory_mib=1))
    assert "memfd_create" in str(told.value)


def test_more_memory_than_there_is_is_told_with_both_figures(kernel: Path) -> None:
    wanted = (psutil.virtual_memory().total >> 20) + 1
    with pytest.raises(UnsupportedMachine, match=rf"wants {wanted} MiB of shared memory, \d+ MiB are free"):
        check_before(Machine(kernel=kernel, memory_mib=wanted))


@pytest.mark.parametrize("made", ["nothing", "a file"])
def test_a_function_that_nobody_serves(kernel: Path, tmp_path: Path, made: str) -> None:
    path = tmp_path / "0"
    if made == "a file":
        path.write_bytes(b"")
    with pytest.raises(PeerGone, match=f"no card serves {path}"):
        check_before(Machine(kernel=kernel, functions=(path,)))


def test_a_socket_left_over_is_told_from_one_in_use(kernel: Path, tmp_path: Path) -> None:
    left, used = tmp_path / "left", tmp_path / "used"
    error = PeerGone("QEMU ended")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left))
    assert isinstance(explain_start(Machine(kernel=kernel, functions=(left,)), error), PeerGone)
    assert "no card serves" in str(explain_start(Machine(kernel=kernel, functions=(left,)), error))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(used))
        listener.listen()

        # As a card that has its client: the next one's connection is taken and closed at once.
        def refuse() -> None:
            listener.accept()[0].close()

        refusing = threading.Thread(target=refuse)
        refusing.start()
        told = explain_start(Machine(kernel=kernel, functions=(used,)), error)
        refusing.join()
    assert isinstance(told, ResourceBusy) and "in use by another guest" in str(told)
