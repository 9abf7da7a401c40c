"""A qcow2 image's bytes as its guest sees them, read only (QEMU docs/interop/qcow2.rst; all numbers big-endian).

    guest offset  ->  L1 entry  ->  L2 table's entry  ->  cluster in the file, packed cluster, or zeros

Written here because libqcow 20260703 gives wrong bytes for packed clusters, and cloud images are made of those.
"""

import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import zstandard

from vfwire.errors import BadInput

MAGIC = b"QFI\xfb"
_OFFSET = 0x00FFFFFFFFFFFE00  # bits 9 to 55 of an L1 or L2 entry
_COMPRESSED = 1 << 62
_ZERO = 1
_DIRTY, _CORRUPT, _COMPRESSION = (
    1 << 0,
    1 << 1,
    1 << 3,
)  # incompatible features; the others cannot be read alone
_MOST_L1 = 32 << 20  # bytes, as QEMU has it
_CONVERT = "make it raw: qemu-img convert -O raw IMAGE disk.raw"


class Qcow2(io.RawIOBase):
    """size: of the disk, in bytes. Raises BadInput for what cannot be read alone or is damaged, then and when read."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__()
        self._file, self._path, self._at = file, path, 0
        self._end = file.seek(0, io.SEEK_END)
        file.seek(0)
        header = file.read(112).ljust(112, b"\0")
        version, backing, _, bits, self.size, method, l1_size, l1_offset = struct.unpack(
            ">IQIIQIIQ", header[4:48]
        )
        features, self._zstd = struct.unpack(">Q", header[72:80])[0], header[104] == 1
        if version == 2:
            features, self._zstd = 0, False
        self._refuse(version, backing, bits, method, features)
        self._bits, self._cluster = bits, 1 << bits
        if l1_size * 8 > _MOST_L1 or self.size > l1_size << (2 * bits - 3):
            raise self._damaged("its first table does not cover the disk")
        table = self._bytes(l1_offset, l1_size * 8)
        if len(table) < l1_size * 8:
            raise self._damaged("it is cut off in its first table")
        self._l1 = struct.unpack(f">{l1_size}Q", table)
        self._l2 = lru_cache(32)(self._read_l2)
        self._unpacked = lru_cache(16)(self._unpack)

    def read(self, size: int = -1) -> bytes:
        left = max(self.size - self._at, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            inside = self._at & (self._cluster - 1)
            length = min(wanted, self._cluster - inside)
            parts.append(self._read_cluster(self._at >> self._bits, inside, length))
            self._at += length
            wanted -= length
        return b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def _refuse(self, version: int, backing: int, bits: int, method: int, features: int) -> None:
        if version not in (2, 3) or not 9 <= bits <= 21:
            raise BadInput(f"{self._path} is no qcow2 image that is known here (version {version})", _CONVERT)
        if method:
            raise BadInput(
                f"{self._path} is encrypted", "decrypt it first: qemu-img convert with the key, to raw"
            )
        if backing:
            raise BadInput(
                f"{self._path} holds only what differs from another image", f"join them; {_CONVERT}"
            )
        if features & _CORRUPT:
            raise BadInput(f"{self._path} is marked as damaged", "qemu-img check -r all mends it")
        if features & ~(_DIRTY | _COMPRESSION):
            raise BadInput(
                f"{self._path} has qcow2 features that are not known here ({features:#x})", _CONVERT
            )

    def _read_cluster(self, cluster: int, inside: int, length: int) -> bytes:
        per_table = self._bits - 3
        table = self._l1[cluster >> per_table] & _OFFSET
        entry = self._l2(table)[cluster & ((1 << per_table) - 1)] if table else 0
        if entry & _COMPRESSED:
            return self._unpacked(entry)[inside : inside + length]
        offset = entry & _OFFSET
        if entry & _ZERO or not offset:
            return bytes(length)
        return self._bytes(offset + inside, length).ljust(
            length, b"\0"
        )  # the last cluster of a file may be cut short

    def _bytes(self, offset: int, size: int) -> bytes:
        """Of the file; fewer past its end, however far (a seek beyond 63 bits would be an error)."""
        if offset >= self._end:
            return b""
        self._file.seek(offset)
        return self._file.read(size)

    def _read_l2(self, offset: int) -> tuple[int, ...]:
        table = self._bytes(offset, self._cluster)
        if len(table) < self._cluster:
            raise self._damaged("it is cut off in a table")
        return struct.unpack(f">{self._cluster // 8}Q", table)

    def _unpack(self, entry: int) -> bytes:
        """Of a descriptor: the offset is in the low bits, above it how many 512-byte sectors follow the first."""
        width = 62 - (self._bits - 8)
        offset = entry & ((1 << width) - 1)
        sectors = ((entry & (_COMPRESSED - 1)) >> width) + 1
        packed = self._bytes(offset, sectors * 512 - (offset & 511))
        try:
            if self._zstd:
                data: bytes = zstandard.ZstdDecompressor().stream_reader(packed).read(self._cluster)
            else:
                data = zlib.decompressobj(-15).decompress(packed, self._cluster)
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._damaged(f"a packed cluster at {offset:#x} cannot be unpacked") from error
        if len(data) < self._cluster:
            raise self._damaged(f"a packed cluster at {offset:#x} is too short")
        return data

    def _damaged(self, what: str) -> BadInput:
        return BadInput(
            f"{self._path} is no whole qcow2 image: {what}", "copy it again, or qemu-img check it"
        )
