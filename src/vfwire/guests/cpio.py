"""Archives that the kernel unpacks as its first root: "new ASCII" cpio (Linux, early-userspace/buffer-format).

Written here because a device node needs root everywhere else: in an archive it is a few digits. Owner is root and
every time is zero, so that the same files give the same bytes.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_MAGIC = b"070701"
_END = "TRAILER!!!"
_ALIGNMENT = 4


class CpioWriter:
    """Writes one archive to `stream`. A context manager: the end is written where no exception came through.

    Paths are given from the root without a leading slash. Directories above a path are added when they are missing.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inode = 0
        self._known: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        if path and path not in self._known:
            self._add(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, os.fsencode(target))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._add(path, stat.S_IFCHR | mode, b"", (major, minor))

    def tree(self, root: Path, *, at: str = "", leave_out: Iterable[str] = ()) -> None:
        """All below `root`, sorted by name. leave_out: paths from `root`, whose contents do not come along."""
        self._tree(root, at, frozenset(leave_out), "")

    def _tree(self, folder: Path, at: str, leave_out: frozenset[str], below: str) -> None:
        for item in sorted(folder.iterdir()):
            inside = f"{below}/{item.name}".lstrip("/")
            path = f"{at}/{item.name}".lstrip("/")
            if inside in leave_out:
                continue
            if item.is_symlink():
                self.link(path, str(item.readlink()))
            elif item.is_dir():
                self.directory(path)
                self._tree(item, path, leave_out, inside)
            elif item.is_file():
                self.file(path, item.read_bytes(), 0o755 if os.access(item, os.X_OK) else 0o644)

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        if path in self._known:
            return
        self.directory(path.rpartition("/")[0])
        self._known.add(path)
        self._inode += 1
        self._entry(path, mode, content, device, self._inode)

    def _entry(self, path: str, mode: int, content: bytes, device: tuple[int, int], inode: int) -> None:
        name = os.fsencode(path) + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # Inode, mode, owner, group, links, time, size, device of the file (2), device node (2), name's size, check.
        numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0)
        header = _MAGIC + b"".join(b"%08X" % number for number in numbers)
        self._stream.write(_padded(header + name) + _padded(content))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._entry(_END, 0, b"", (0, 0), 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
