"""The kernel inside a bzImage: found, or told apart from what is none."""

import lzma
import struct

import pytest

from vfwire.guests.image import cached_image
from vfwire.guests.kernel_program import is_boot_image, kernel_program, starts_unpacked

PROGRAM = b"\x7fELF" + bytes(60) + struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)


def bzimage(program: bytes, version: int = 0x20F) -> bytes:
    """A header by boot.rst, two sectors of set-up code, and the program behind them."""
    payload = lzma.compress(program) + struct.pack("<I", len(program))
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head) + payload


def test_the_program_is_found() -> None:
    assert kernel_program(bzimage(PROGRAM)) == PROGRAM


@pytest.mark.parametrize(
    "data",
    [b"", b"\x7fELF", bytes(4096), bzimage(PROGRAM, version=0x207), bzimage(PROGRAM)[:1600]],
    ids=["nothing", "a program", "zeros", "an old protocol", "cut off"],
)
def test_what_has_none_gives_nothing(data: bytes) -> None:
    assert kernel_program(data) == b""


@pytest.mark.parametrize("program", [b"", b"\x7fELF", PROGRAM[4:], PROGRAM.replace(b"Xen\0", b"GNU\0")])
def test_a_program_without_the_entry_is_not_started(program: bytes) -> None:
    assert starts_unpacked(PROGRAM) and not starts_unpacked(program)


@pytest.mark.guests
def test_a_built_guest_has_its_kernel_both_ways() -> None:
    image = cached_image()
    kernel = image.kernel.read_bytes()
    assert is_boot_image(kernel) and image.program != image.kernel
    assert kernel_program(kernel) == image.program.read_bytes()
