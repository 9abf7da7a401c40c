"""Files of an image's file systems, without mounting: ext2 to ext4, XFS and FAT, by libyal's readers."""

import struct
import uuid
from typing import Any

import pyfsext
import pyfsfat
import pyfsxfs

from vfwire.checks.image.disk import Part, Partition
from vfwire.errors import BadInput

READABLE = ("ext", "xfs", "fat")
_MODE_KIND, _MODE_LINK, _MODE_DIRECTORY = 0xF000, 0xA000, 0x4000
_MOST_LINKS = 40  # as Linux has it (path_resolution(7))
_LONGEST_FILE = 512 << 20


class FileSystem:
    """One file system. Paths are absolute in it; links are followed inside of it.

    label, uuid: as fstab's LABEL= and UUID= name it (the latter in lower case). Raises BadInput where it is damaged.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.label, self.uuid = _identity(partition.contents, partition.data)
        self._fat = partition.contents == "fat"
        self._volume = {"ext": pyfsext, "xfs": pyfsxfs, "fat": pyfsfat}[partition.contents].volume()
        self._children: dict[str, dict[str, Any]] = {}
        try:
            self._volume.open_file_object(partition.data)
            self._root = self._volume.get_root_directory()
        except OSError as error:
            raise self._damaged("/", error) from error

    def names(self, path: str) -> list[str]:
        """What a directory holds, in order; [] if it is none."""
        found = self._resolve(path)
        return [] if found is None else sorted(self._list(*found))

    def exists(self, path: str) -> bool:
        return self._resolve(path) is not None

    def read(self, path: str, most: int = _LONGEST_FILE) -> bytes | None:
        """The first `most` bytes of a file; None if there is none."""
        found = self._resolve(path)
        if found is None or self._is(found[1], _MODE_DIRECTORY):
            return None
        entry = found[1]
        size = min(entry.size, most)
        try:
            data: bytes = entry.read_buffer_at_offset(size, 0) if size else b""
        except OSError as error:
            raise self._damaged(path, error) from error
        return data

    def text(self, path: str) -> str:
        """A file's text, "" if there is none."""
        return (self.read(path, 1 << 20) or b"").decode(errors="replace")

    def link(self, path: str) -> str | None:
        """Where a link leads; None if it is none."""
        above, _, name = path.rstrip("/").rpartition("/")
        found = self._resolve(above or "/")
        entry = self._list(*found).get(name) if found is not None else None
        return None if entry is None or not self._is(entry, _MODE_LINK) else entry.symbolic_link_target

    def _resolve(self, path: str) -> tuple[str, Any] | None:
        """(path without links, entry) of what a path names after all links; None if there is nothing."""
        waiting = [part for part in path.split("/") if part][::-1]
        here: list[tuple[str, Any]] = [("", self._root)]
        links = 0
        while waiting:
            name = waiting.pop()
            if name == ".":
                continue
            if name == "..":
                here = here[:-1] or here
                continue
            entry = self._list(*here[-1]).get(name.lower() if self._fat else name)
            if entry is None:
                return None
            if not self._is(entry, _MODE_LINK):
                here.append((f"{here[-1][0]}/{name}", entry))
                continue
            links += 1
            target = entry.symbolic_link_target or ""
            if links > _MOST_LINKS:
                return None
            here = here[:1] if target.startswith("/") else here
            waiting += [part for part in target.split("/") if part][::-1]
        return here[-1]

    def _list(self, path: str, entry: Any) -> dict[str, Any]:
        if path not in self._children:
            if path and not self._is(entry, _MODE_DIRECTORY):
                return {}
            try:
                found = {one.name: one for one in entry.sub_file_entries if one.name not in (".", "..", None)}
            except OSError as error:
                raise self._damaged(path, error) from error
            self._children[path] = {name.lower(): one for name, one in found.items()} if self._fat else found
        return self._children[path]

    def _is(self, entry: Any, kind: int) -> bool:
        if self._fat:  # no modes and no links: a directory is what has the attribute (FAT specification, 6)
            return kind == _MODE_DIRECTORY and bool(entry.file_attribute_flags & 0x10)
        return bool(entry.file_mode & _MODE_KIND == kind)

    def _damaged(self, path: str, error: Exception) -> BadInput:
        where = f"partition {self.partition.number}" if self.partition.number else "the image"
        cause = str(error).splitlines()[0].rstrip(".")[:160]
        kind = f"the {self.partition.contents} file system of {where}"
        return BadInput(f"{kind} cannot be read at {path or '/'}: {cause}", "check it with fsck")


def _identity(contents: str, data: Part) -> tuple[str, str]:
    """(label, UUID) from the superblock: ext4(5) layout at 1024, XFS's at 0, FAT's boot sector."""
    if contents == "ext":
        block = data.at(1024, 256)
        return _name(block[0x78:0x88]), str(uuid.UUID(bytes=block[0x68:0x78]))
    if contents == "xfs":
        block = data.at(0, 128)
        return _name(block[108:120]), str(uuid.UUID(bytes=block[32:48]))
    block = data.at(0, 96)
    at = 67 if block[82:87] == b"FAT32" else 39
    serial = struct.unpack("<I", block[at : at + 4])[0]
    return _name(block[at + 4 : at + 15]), f"{serial >> 16:04x}-{serial & 0xFFFF:04x}"


def _name(data: bytes) -> str:
    return data.split(b"\0")[0].decode(errors="replace").strip()
