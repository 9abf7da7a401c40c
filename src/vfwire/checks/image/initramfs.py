"""The files in an initramfs: cpio archives one after the other, each plain or compressed.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst ("newc": 6 bytes of magic, 13 numbers of 8
hexadecimal digits, name and data each padded to 4 bytes).
"""

import io
import re
import struct
from collections.abc import Iterator

from vfwire.errors import BadInput
from vfwire.guests.packed import Bounded, Readable, unpacked

_MAGICS = (b"070701", b"070702")
_HEADER = 110
_TRAILER = "TRAILER!!!"
_LONGEST_NAME = 4096
_LONGEST_FILE = 64 << 20
_NOTHING = re.compile(r"(?!)")


def archive_files(data: bytes, wanted: re.Pattern[str] = _NOTHING) -> dict[str, bytes]:
    """All files in it by their path, without a leading "/" or "./"; b"" for those whose path `wanted` does not match.

    Raises BadInput where it cannot be read.
    """
    files: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        if data[at] == 0:  # padding between archives
            at += 1
        elif data[at : at + 6] in _MAGICS:
            stream = io.BytesIO(data[at:])
            files.update(_archive(stream, wanted))
            at += stream.tell()
        else:
            packed = unpacked(data[at:], "the initramfs")
            while not _ended(packed):
                files.update(_archive(packed, wanted))
            break
    return files


def _ended(stream: Bounded) -> bool:
    """Read the padding after an archive; True at the end of all."""
    first = stream.read(1)
    while first == b"\0":
        first = stream.read(1)
    stream.put_back(first)
    return not first


def _archive(stream: Readable, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    while True:
        header = _exactly(stream, _HEADER)
        if header[:6] not in _MAGICS:
            raise BadInput(
                "the initramfs is no cpio archive", "make it again: update-initramfs -u or dracut -f"
            )
        try:
            numbers = struct.unpack(">13I", bytes.fromhex(header[6:].decode("ascii")))
        except (ValueError, struct.error) as error:
            raise BadInput("the initramfs has a damaged header", "make it again") from error
        size, length = numbers[6], numbers[11]
        if not 0 < length <= _LONGEST_NAME:
            raise BadInput("the initramfs has a damaged header", "make it again")
        name = _exactly(stream, length + (-(_HEADER + length) % 4))[: length - 1].decode(errors="replace")
        name = name.removeprefix("./").lstrip("/")
        if keep := size <= _LONGEST_FILE and bool(wanted.search(name)):
            content = _exactly(stream, size)
        _skip(stream, (0 if keep else size) + (-size % 4))
        if name == _TRAILER:
            return
        yield name, content if keep else b""


def _exactly(stream: Readable, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise BadInput("the initramfs is cut off", "make it again: update-initramfs -u or dracut -f")
    return data


def _skip(stream: Readable, size: int) -> None:
    while size:
        size -= len(_exactly(stream, min(size, 1 << 20)))
