"""What a kernel's own file tells: its release, and which drivers are built into it.

Header: Linux Documentation/arch/x86/boot.rst (all numbers little-endian). A configuration that a kernel carries
(CONFIG_IKCONFIG) is gzip between two marks (kernel/configs.c). A parameter of a driver that is built in has the
driver's name before its own (include/linux/moduleparam.h), and stands in the program as text.
"""

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vfwire.errors import BadInput, PermissionDenied, UsageError
from vfwire.guests.kernel_program import is_boot_image, kernel_program

_HEADER = 0x300
_MOST_FILE = 256 << 20
_RELEASE = re.compile(rb"Linux version ([!-~]{1,64})")


@dataclass(frozen=True)
class KernelFile:
    """release: as uname -r says it. program: unpacked, b"" where it cannot be."""

    release: str
    program: bytes

    def configured(self) -> Mapping[str, str]:
        """Its configuration, as {"CONFIG_ENA_ETHERNET": "m"}; {} where it does not carry it."""
        begin = self.program.find(b"IKCFG_ST\x1f\x8b") + len(b"IKCFG_ST")
        if begin < len(b"IKCFG_ST"):
            return {}
        try:
            text = zlib.decompressobj(31).decompress(self.program[begin:], 4 << 20).decode(errors="replace")
        except zlib.error:
            return {}
        return dict(re.findall(r"^(CONFIG_\w+)=([ym])$", text, re.MULTILINE))

    def has_parameters_of(self, module: str) -> bool:
        """Whether parameters of a module are part of it: then the module is built in. A module may have none."""
        return bool(re.search(rb"\0" + module.encode() + rb"\.[a-z]\w{2,40}\0", self.program))


def read_kernel_file(path: Path) -> KernelFile:
    """Raises UsageError (there is none), BadInput (no kernel), PermissionDenied."""
    data = read_whole(path, "a kernel").ljust(_HEADER, b"\0")
    if is_boot_image(data):
        return KernelFile(_told_release(data, path), kernel_program(data))
    found = _RELEASE.search(data)
    if not found or data[:4] != b"\x7fELF":
        raise BadInput(f"{path} is no Linux kernel for x86", "name a bzImage, as /boot/vmlinuz-… is")
    return KernelFile(found[1].decode(), data)


def read_whole(path: Path, what: str) -> bytes:
    """A file's bytes. Raises UsageError, BadInput (too long), PermissionDenied."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_FILE + 1)
    except PermissionError as error:
        raise PermissionDenied(f"{path} may not be read", "make it readable for you") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", f"name {what}") from error
    if len(data) > _MOST_FILE:
        raise BadInput(f"{path} is longer than 256 MiB", f"name {what}")
    return data


def _told_release(data: bytes, path: Path) -> str:
    """The header points to a text that begins with it (boot.rst, kernel_version)."""
    (at,) = struct.unpack_from("<H", data, 0x20E)
    text = data[at + 0x200 : at + 0x300].split(b"\0")[0] if at else b""
    release = text.split(b" ")[0].decode(errors="replace")
    if not release.isprintable() or not release:
        raise BadInput(f"{path} does not tell its version", "copy it again")
    return release
