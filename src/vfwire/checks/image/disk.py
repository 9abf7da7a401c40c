"""What a disk image is divided into: raw or qcow2, GPT or MBR partitions, and what each holds. Read only, without root.

GPT is read by libyal's libvsgpt. MBR: four records of 16 bytes at 446, logical ones in a chain
(Linux block/partitions/msdos.c). Magic numbers: Linux include/uapi/linux/magic.h and each file system's own headers.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyvsgpt

from vfwire.checks.image.qcow2 import MAGIC, Qcow2
from vfwire.errors import BadInput, PermissionDenied, UsageError

SECTOR = 512
GPT_EFI = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
GPT_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
_MBR_EFI, _MBR_EXTENDED, _MBR_PROTECTIVE = 0xEF, (0x05, 0x0F, 0x85), 0xEE
_MOST_LOGICAL = 60
_CONVERT = "make it raw: qemu-img convert -O raw IMAGE disk.raw"
# Offset and bytes that tell what an image is, when it is none that can be read.
_FOREIGN = (
    (0, b"KDMV", "a VMDK disk"),
    (0, b"COWD", "a VMDK disk"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"conectix", "a VHD disk"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"\x1f\x8b", "a compressed file (gzip)"),
    (0, b"\xfd7zXZ", "a compressed file (xz)"),
    (0, b"\x28\xb5\x2f\xfd", "a compressed file (zstd)"),
    (32769, b"CD001", "an ISO 9660 disc"),
)
_CONTENTS = (
    (1080, b"\x53\xef", "ext"),
    (0, b"XFSB", "xfs"),
    (82, b"FAT32", "fat"),
    (54, b"FAT1", "fat"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (536, b"LVM2 001", "LVM"),
    (4086, b"SWAPSPACE2", "swap"),
)


class Part(io.RawIOBase):
    """Bytes `offset` to `offset + size` of a file, as a file of its own that libyal reads."""

    def __init__(self, file: Any, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self.size, self._at = file, offset, size, 0

    def read(self, size: int = -1) -> bytes:
        left = max(self.size - self._at, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        self._file.seek(self._offset + self._at)
        data: bytes = self._file.read(wanted) if wanted else b""
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def get_size(self) -> int:
        """libyal's name for it."""
        return self.size

    def at(self, offset: int, size: int) -> bytes:
        self.seek(offset)
        return self.read(size)


@dataclass(frozen=True)
class Partition:
    """number: as in /dev/nvme0n1p1, 0 for a disk without partitions. kind: its type in the table. partuuid: lower
    case, "" if it has none. contents: "ext", "xfs", "fat", "btrfs", "LUKS", "LVM", "swap", "" if unknown.
    """

    number: int
    kind: str
    partuuid: str
    contents: str
    data: Part


@dataclass(frozen=True)
class Disk:
    """format: "raw" or "qcow2". table: "gpt", "mbr" or "none". boot_code: the first sector has code for a BIOS."""

    format: str
    table: str
    size: int
    boot_code: bool
    partitions: tuple[Partition, ...]


@contextmanager
def open_disk(path: Path) -> Iterator[Disk]:
    """An image's partitions, while this holds. Raises UsageError (no such file), BadInput (none that can be read,
    and why), PermissionDenied.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == MAGIC:
                image = Qcow2(file, path)
                yield _divide("qcow2", Part(image, 0, image.size), path)
            else:
                yield _divide("raw", Part(file, 0, file.seek(0, io.SEEK_END)), path)
    except PermissionError as error:
        raise PermissionDenied(f"{path} may not be read", "make it readable for you") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a directory", "name a disk image") from error
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}", "name a disk image") from error


def _divide(format_: str, whole: Part, path: Path) -> Disk:
    first = whole.at(0, 1 << 17)
    boot_code = first[510:512] == b"\x55\xaa" and any(first[:440])
    contents = _contents(whole)
    table = "none"
    partitions: list[Partition] = []
    if first[SECTOR : SECTOR + 8] == b"EFI PART":
        table, partitions = "gpt", _gpt(whole, path)
    elif first[510:512] == b"\x55\xaa" and contents != "fat":
        table, partitions = "mbr", list(_mbr(whole))
    if not partitions and contents:
        table, partitions = "none", [Partition(0, "", "", contents, whole)]
    if not partitions:
        raise BadInput(*_what_else(first, path))
    return Disk(format_, table, whole.size, boot_code, tuple(partitions))


def _what_else(first: bytes, path: Path) -> tuple[str, str]:
    for offset, magic, what in _FOREIGN:
        if first[offset : offset + len(magic)] == magic:
            return f"{path} is {what}, not raw or qcow2", "unpack it" if "compressed" in what else _CONVERT
    if not first:
        return f"{path} is empty", "name a disk image"
    return (
        f"{path} is no disk image: it has no partition table and no file system",
        "name a raw or qcow2 image",
    )


def _contents(data: Part) -> str:
    return next((what for offset, magic, what in _CONTENTS if data.at(offset, len(magic)) == magic), "")


def _gpt(whole: Part, path: Path) -> list[Partition]:
    volume = pyvsgpt.volume()
    try:
        volume.open_file_object(whole)
        found = []
        for one in volume.partitions:
            data = Part(whole, one.volume_offset, one.size)
            kind = str(one.type_identifier).lower()
            found.append(
                Partition(one.entry_index + 1, kind, str(one.identifier).lower(), _contents(data), data)
            )
        return found
    except OSError as error:
        raise BadInput(
            f"{path} has a damaged partition table: {_short(error)}", "sfdisk --verify shows it"
        ) from error


def _mbr(whole: Part) -> Iterator[Partition]:
    """Primary partitions, then logical ones; bounded, whatever the chain says. PARTUUID: disk signature and number."""
    sector = whole.at(0, SECTOR)
    signature = struct.unpack("<I", sector[440:444])[0]
    extended = 0
    for number, (kind, start, length) in enumerate(_records(sector), start=1):
        if kind in _MBR_EXTENDED:
            extended = start
        elif kind not in (0, _MBR_PROTECTIVE) and length:
            yield _mbr_partition(whole, number, kind, start, length, signature)
    table, number = extended, 5
    while table and number < 5 + _MOST_LOGICAL:
        logical, following = _records(whole.at(table * SECTOR, SECTOR))[:2]
        if logical[0] and logical[2]:
            yield _mbr_partition(whole, number, logical[0], table + logical[1], logical[2], signature)
        table = extended + following[1] if following[0] in _MBR_EXTENDED else 0
        number += 1


def _records(sector: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of four records; zeros past the end of the disk."""
    sector = sector.ljust(SECTOR, b"\0")
    return [struct.unpack("<4xB3xII", sector[at : at + 16]) for at in range(446, 510, 16)]


def _mbr_partition(whole: Part, number: int, kind: int, start: int, length: int, signature: int) -> Partition:
    size = max(min(length * SECTOR, whole.size - start * SECTOR), 0)
    data = Part(whole, start * SECTOR, size)
    return Partition(number, f"{kind:02x}", f"{signature:08x}-{number:02x}", _contents(data), data)


def is_efi(partition: Partition) -> bool:
    return partition.kind in (GPT_EFI, f"{_MBR_EFI:02x}")


def _short(error: Exception) -> str:
    """The first line of libyal's chain of messages."""
    return str(error).splitlines()[0].rstrip(".")[:200]
