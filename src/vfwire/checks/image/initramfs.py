"""Names of the files in an initramfs: cpio archives one after the other, each plain or compressed.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst ("newc": 6 bytes of magic, 13 numbers of 8
hexadecimal digits, name and data each padded to 4 bytes).
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import zstandard

from vfwire.errors import BadInput

_MAGICS = (b"070701", b"070702")
_HEADER = 110
_TRAILER = "TRAILER!!!"
_MOST_BYTES = 1 << 30  # unpacked: more than any that boots in a small instance
_LONGEST_NAME = 4096


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def archive_names(data: bytes) -> set[str]:
    """Paths of all files in it, without a leading "/" or "./". Raises BadInput where it cannot be read."""
    names: set[str] = set()
    at = 0
    while at < len(data):
        if data[at] == 0:  # padding between archives
            at += 1
        elif data[at : at + 6] in _MAGICS:
            stream = io.BytesIO(data[at:])
            names.update(_archive(stream))
            at += stream.tell()
        else:
            stream_of = _unpacker(data[at:])
            while not _ended(stream_of, names):
                pass
            break
    return names


def _ended(stream: "_Bounded", names: set[str]) -> bool:
    """Read one archive of an unpacked stream, and the padding after it; True at its end."""
    first = stream.read(1)
    while first == b"\0":
        first = stream.read(1)
    if not first:
        return True
    stream.put_back(first)
    names.update(_archive(stream))
    return False


def _archive(stream: _Readable) -> Iterator[str]:
    while True:
        header = _exactly(stream, _HEADER)
        if header[:6] not in _MAGICS:
            raise BadInput(
                "the initramfs is no cpio archive", "make it again: update-initramfs -u or dracut -f"
            )
        try:
            numbers = [int(header[start : start + 8], 16) for start in range(6, _HEADER, 8)]
        except ValueError as error:
            raise BadInput("the initramfs has a damaged header", "make it again") from error
        size, length = numbers[6], numbers[11]
        if not 0 < length <= _LONGEST_NAME:
            raise BadInput("the initramfs has a damaged header", "make it again")
        name = _exactly(stream, length + (-(_HEADER + length) % 4))[: length - 1].decode(errors="replace")
        _skip(stream, size + (-size % 4))
        if name == _TRAILER:
            return
        yield name.removeprefix("./").lstrip("/")


def _exactly(stream: _Readable, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise BadInput("the initramfs is cut off", "make it again: update-initramfs -u or dracut -f")
    return data


def _skip(stream: _Readable, size: int) -> None:
    while size:
        size -= len(_exactly(stream, min(size, 1 << 20)))


class _Bounded:
    """A stream that unpacks, and ends with an error past `_MOST_BYTES` or where it is damaged."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._read, self._back = stream, 0, b""

    def put_back(self, data: bytes) -> None:
        self._back = data

    def read(self, size: int, /) -> bytes:
        taken, self._back = self._back[:size], self._back[size:]
        parts = [taken]
        size -= len(taken)
        try:
            while size and (part := self._stream.read(size)):
                parts.append(part)
                size -= len(part)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise BadInput(f"the initramfs cannot be unpacked: {error}", "make it again") from error
        data = b"".join(parts)
        self._read += len(data)
        if self._read > _MOST_BYTES:
            raise BadInput("the initramfs unpacks to more than 1 GiB", "make a smaller one")
        return data


def _unpacker(data: bytes) -> _Bounded:
    """By the first bytes, as Linux lib/decompress.c tells them apart."""
    source = io.BytesIO(data)
    if data[:2] == b"\x1f\x8b":
        return _Bounded(gzip.GzipFile(fileobj=source))
    if data[:6] == b"\xfd7zXZ\0" or data[:3] == b"\x5d\0\0":
        return _Bounded(lzma.LZMAFile(source))
    if data[:3] == b"BZh":
        return _Bounded(bz2.BZ2File(source))
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return _Bounded(zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True))
    kind = {b"\x02\x21": "LZ4", b"\x89L": "LZO"}.get(data[:2], "in a way that is not known here")
    raise BadInput(
        f"the initramfs is compressed: {kind}", "only gzip, xz, lzma, bzip2 and zstd are looked into"
    )
