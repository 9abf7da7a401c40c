"""The kernels of an image: which drivers each has, and which of them its initramfs carries."""

import lzma
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import zstandard

from vfwire.checks.image.filesystem import FileSystem
from vfwire.checks.image.initramfs import archive_names
from vfwire.errors import BadInput

# The network drivers, and those that find the root disk on Nitro and on Xen.
DRIVERS = ("ena", "ixgbevf", "nvme", "xen-blkfront", "xen-netfront")
BUILT_IN, MODULE, MISSING = "built in", "module", "missing"
_MODULES = "/usr/lib/modules"
_INITRAMFS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}")
_UNPACKED = 64 << 20


@dataclass(frozen=True)
class Kernel:
    """drivers: each of DRIVERS to "built in", "module" or "missing". versions: MODULE_VERSION of those that have one
    (a driver of the kernel's own has none). initramfs: its file, "" if there is none. in_initramfs: which of the
    modules it carries, None if there is no initramfs or it cannot be read (unreadable says why).
    """

    release: str
    drivers: dict[str, str]
    versions: dict[str, str]
    initramfs: str
    in_initramfs: tuple[str, ...] | None
    unreadable: str = ""

    def has(self, driver: str) -> bool:
        return self.drivers[driver] != MISSING

    def finds_disk_by(self, driver: str) -> bool | None:
        """Whether the root disk can be found by a driver before the root is there; None if that cannot be seen."""
        if self.drivers[driver] == BUILT_IN:
            return True
        if self.unreadable:
            return None
        return self.in_initramfs is not None and driver in self.in_initramfs


def read_kernels(root: FileSystem, places: Iterable[tuple[FileSystem, str]]) -> list[Kernel]:
    """Every kernel that has modules or lies in a boot directory, newest last. places: (file system, directory)."""
    places = list(places)
    images = {name.removeprefix("vmlinuz-") for system, where in places for name in system.names(where)
              if name.startswith("vmlinuz-") and "rescue" not in name}  # fmt: skip
    releases = images & set(_releases(root)) or images or set(_releases(root))
    return [_kernel(root, places, release) for release in sorted(releases, key=_numbers)]


def _releases(root: FileSystem) -> list[str]:
    return [name for name in root.names(_modules(root)) if re.match(r"\d+\.\d+", name)]


def _modules(root: FileSystem) -> str:
    return _MODULES if root.exists(_MODULES) else "/lib/modules"


def _numbers(release: str) -> list[Any]:
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.findall(r"\d+|[a-z]+", release)
    ]


def _kernel(root: FileSystem, places: list[tuple[FileSystem, str]], release: str) -> Kernel:
    where = f"{_modules(root)}/{release}"
    built_in = {_stem(line) for line in root.text(f"{where}/modules.builtin").splitlines()}
    modules = {_stem(line): line.split(":")[0] for line in root.text(f"{where}/modules.dep").splitlines()}
    drivers = {name: _state(name, built_in, set(modules)) for name in DRIVERS}
    versions = {
        name: version for name in DRIVERS if (version := _version(root, where, modules.get(_plain(name))))
    }
    initramfs, data = _find_initramfs(places, release)
    if data is None:
        return Kernel(release, drivers, versions, "", None)
    try:
        carried = {_stem(name) for name in archive_names(data) if ".ko" in name}
    except BadInput as error:
        return Kernel(release, drivers, versions, initramfs, None, error.message)
    return Kernel(
        release, drivers, versions, initramfs, tuple(name for name in DRIVERS if _plain(name) in carried)
    )


def _state(name: str, built_in: set[str], modules: set[str]) -> str:
    return BUILT_IN if _plain(name) in built_in else MODULE if _plain(name) in modules else MISSING


def _plain(name: str) -> str:
    """Dashes and underscores are the same to modprobe(8)."""
    return name.replace("-", "_")


def _stem(line: str) -> str:
    """ "kernel/drivers/net/x-y.ko.xz: …" gives "x_y"."""
    return _plain(PurePosixPath(line.split(":")[0]).name.split(".ko")[0])


def _find_initramfs(places: list[tuple[FileSystem, str]], release: str) -> tuple[str, bytes | None]:
    for system, where in places:
        for pattern in _INITRAMFS:
            path = f"{where.rstrip('/')}/{pattern.format(release)}"
            data = system.read(path)
            if data:
                return path, data
    return "", None


def _version(root: FileSystem, where: str, path: str | None) -> str:
    """What MODULE_VERSION says in a module's .modinfo section; "" if it says nothing."""
    data = root.read(f"{where}/{path}", 16 << 20) if path else None
    if not data:
        return ""
    try:
        found = re.search(rb"\0version=([^\0]{1,64})\0", _unpacked(data))
    except (lzma.LZMAError, zlib.error, zstandard.ZstdError):
        return ""
    return found[1].decode(errors="replace") if found else ""


def _unpacked(data: bytes) -> bytes:
    if data[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(data, _UNPACKED)
    if data[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(data, _UNPACKED)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().stream_reader(data).read(_UNPACKED)
    return data
