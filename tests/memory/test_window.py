"""Addresses set aside: what is placed is there, what is not cannot be touched, and nothing leaves the window."""

import ctypes
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.memory.window import Window


@pytest.fixture
def file() -> Iterator[SharedMemory]:
    with SharedMemory.create("window", 3 * PAGE) as memory:
        memory.array[::PAGE] = [1, 2, 3]
        yield memory


def test_pieces_lie_where_they_are_placed(file: SharedMemory) -> None:
    window = Window(4 * PAGE)
    try:
        window.place(0, PAGE, file.fd, 2 * PAGE, writable=True)
        window.place(PAGE, 2 * PAGE, file.fd, 0, writable=True)
        assert [ctypes.string_at(window.address + page * PAGE, 1)[0] for page in range(3)] == [3, 1, 2]
        ctypes.memset(window.address + 2 * PAGE, 9, 1)
        assert file.array[PAGE] == 9
        window.place(0, PAGE, file.fd, 0, writable=False)
        assert ctypes.string_at(window.address, 1)[0] == 1
    finally:
        window.close()
        window.close()


@pytest.mark.parametrize(("at", "size"), [(-PAGE, PAGE), (4 * PAGE, PAGE), (3 * PAGE, 2 * PAGE), (0, 0)])
def test_nothing_leaves_the_window(file: SharedMemory, at: int, size: int) -> None:
    window = Window(4 * PAGE)
    with pytest.raises(ValueError):
        window.place(at, size, file.fd, 0, writable=False)
    with pytest.raises(ValueError):
        window.clear(at, size)
    window.close()
    with pytest.raises(ValueError):
        window.place(0, PAGE, file.fd, 0, writable=False)


def test_the_kernel_may_refuse(file: SharedMemory) -> None:
    window = Window(PAGE)
    with pytest.raises(OSError):
        window.place(0, PAGE, file.fd, 17, writable=False)
    window.close()
    with pytest.raises(OSError):
        Window(1 << 60)


@pytest.mark.parametrize(
    "before", ["", "window.place(0, 4096, memory.fd, 0, writable=True); window.clear(0, 4096)"]
)
def test_what_is_not_there_cannot_be_touched(before: str) -> None:
    """In a process of its own, which the access ends (SIGSEGV)."""
    script = f"""
import ctypes
from vfwire.memory.shared import SharedMemory
from vfwire.memory.window import Window
memory, window = SharedMemory.create("x", 4096), Window(8192)
{before}
print("touching", flush=True)
ctypes.string_at(window.address, 1)
print("touched", flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.stdout, ended.returncode) == ("touching\n", -11)
