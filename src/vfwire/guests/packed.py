"""Bytes as the makers of kernels and initramfs pack them: gzip, xz, lzma, bzip2, zstd and LZ4, unpacked as a stream."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import lz4.block
import zstandard

from vfwire.errors import BadInput

MOST_BYTES = 1 << 30  # unpacked: more than any that boots in a small instance
_LZ4_MAGIC = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 << 20
_PIECE = 16 << 20  # some unpackers set aside all that is asked for
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, lz4.block.LZ4BlockError)


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Bounded:
    """A stream that ends with a BadInput where it is damaged, or after `MOST_BYTES`. what: "the initramfs"."""

    def __init__(self, stream: Readable, what: str) -> None:
        self._stream, self._what, self._read, self._back = stream, what, 0, b""

    def put_back(self, data: bytes) -> None:
        self._back = data

    def read(self, size: int, /) -> bytes:
        """Fewer than `size` bytes only at the end."""
        taken, self._back = self._back[:size], self._back[size:]
        parts = [taken]
        size -= len(taken)
        try:
            while size and (part := self._stream.read(min(size, _PIECE))):
                parts.append(part)
                size -= len(part)
        except _DAMAGED as error:
            raise BadInput(f"{self._what} cannot be unpacked: {error}", "make it again") from error
        data = b"".join(parts)
        self._read += len(data)
        if self._read > MOST_BYTES:
            raise BadInput(f"{self._what} unpacks to more than 1 GiB", "make a smaller one")
        return data


class _Lz4:
    """LZ4's legacy format, the only one that Linux unpacks (lib/decompress_unlz4.c): after the magic number blocks of
    at most 8 MiB, each behind its packed size. The magic number may come again where archives were joined.
    """

    def __init__(self, source: io.BytesIO) -> None:
        self._source, self._block = source, io.BytesIO()

    def read(self, size: int, /) -> bytes:
        """Of one block; nothing at the end."""
        data = self._block.read(size)
        if not data:
            self._block = io.BytesIO(self._next())
            data = self._block.read(size)
        return data

    def _next(self) -> bytes:
        head = _LZ4_MAGIC
        while head == _LZ4_MAGIC:
            head = self._source.read(4)
        size = int.from_bytes(head, "little")
        packed = self._source.read(size)
        if len(packed) < size or 0 < len(head) < 4:
            raise EOFError("it is cut off")
        data: bytes = lz4.block.decompress(packed, uncompressed_size=_LZ4_BLOCK) if size else b""
        return data


_UNPACKERS: tuple[tuple[bytes, Callable[[io.BytesIO], Any]], ...] = (
    (b"\x1f\x8b", lambda source: gzip.GzipFile(fileobj=source)),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
    (b"\x5d\0\0", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
    (
        b"\x28\xb5\x2f\xfd",
        lambda source: zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True),
    ),
    (_LZ4_MAGIC, _Lz4),
)


def unpacked(data: bytes, what: str) -> Bounded:
    """What was packed, told by its first bytes as Linux lib/decompress.c does. Raises BadInput for other packings."""
    source = io.BytesIO(data)
    for magic, opened in _UNPACKERS:
        if data.startswith(magic):
            return Bounded(opened(source), what)
    kind = "LZO" if data.startswith(b"\x89L") else "in a way that is not known here"
    raise BadInput(
        f"{what} is compressed: {kind}", "only gzip, xz, lzma, bzip2, zstd and LZ4 are looked into"
    )
