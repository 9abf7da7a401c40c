"""The program inside a bzImage, as it was linked: Linux Documentation/arch/x86/boot.rst (all numbers little-endian)."""

import struct

from vfwire.errors import BadInput
from vfwire.guests.packed import unpacked

_MOST_PROGRAM = 512 << 20
_SIZE_BEHIND = (
    4  # the unpacked size, added to all packings but gzip, which has it (scripts/Makefile.lib, size_append)
)
_XEN_NAME, _PHYS32_ENTRY = b"Xen\0", 18  # xen/include/public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY


def is_boot_image(data: bytes) -> bool:
    """Whether this is a bzImage (boot.rst, header)."""
    return data[0x202:0x206] == b"HdrS"


def kernel_program(data: bytes) -> bytes:
    """What a bzImage unpacks when it starts (boot.rst, payload_offset); b"" where that cannot be told."""
    if len(data) < 0x250 or not is_boot_image(data):
        return b""
    version, set_up = struct.unpack_from("<H", data, 0x206)[0], data[0x1F1] or 4
    if version < 0x0208:
        return b""
    at, length = struct.unpack_from("<II", data, 0x248)
    begin = (set_up + 1) * 512 + at
    packed = data[begin : begin + length]
    if packed[:2] != b"\x1f\x8b":
        packed = packed[:-_SIZE_BEHIND]
    try:
        return unpacked(packed, "the kernel").read(_MOST_PROGRAM)
    except BadInput:
        return b""


def starts_unpacked(program: bytes) -> bool:
    """Whether QEMU starts a program as it is: an ELF file with a 32-bit entry (hw/i386/x86-common.c)."""
    notes = (struct.pack("<III", len(_XEN_NAME), size, _PHYS32_ENTRY) + _XEN_NAME for size in (4, 8))
    return program[:4] == b"\x7fELF" and any(note in program for note in notes)
