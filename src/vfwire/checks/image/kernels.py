"""The kernels of an image, or one handed over as a file: which drivers each has, and which its initramfs carries."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vfwire.checks.image.filesystem import FileSystem
from vfwire.checks.image.initramfs import archive_files
from vfwire.checks.image.kernel_file import KernelFile, read_kernel_file, read_whole
from vfwire.errors import BadInput
from vfwire.guests.packed import unpacked

# The network drivers and those that find the root disk on Nitro and on Xen, with the options that build them.
OPTIONS = {
    "ena": "CONFIG_ENA_ETHERNET",
    "ixgbevf": "CONFIG_IXGBEVF",
    "nvme": "CONFIG_BLK_DEV_NVME",
    "xen-blkfront": "CONFIG_XEN_BLKDEV_FRONTEND",
    "xen-netfront": "CONFIG_XEN_NETDEV_FRONTEND",
}
DRIVERS = tuple(OPTIONS)
BUILT_IN, MODULE, MISSING, UNKNOWN = "built in", "module", "missing", "unknown"
_MODULES = "/usr/lib/modules"
_INITRAMFS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}")
_IN_INITRAMFS = re.compile(r"(?:^|/)lib/modules/([^/]+)/(?:modules\.builtin$|.*\.ko(?:\.\w+)?$)")
_READ = re.compile(r"lib/modules/[^/]+/(modules\.builtin$|.*/(" + "|".join(OPTIONS) + r")\.ko(\.\w+)?$)")
_LONGEST_MODULE = 64 << 20


@dataclass(frozen=True)
class Start:
    """What is started instead of a disk's boot loader, as QEMU's -kernel, -initrd and -append."""

    kernel: Path
    initrd: Path | None = None
    append: str = ""


@dataclass(frozen=True)
class Kernel:
    """drivers: each of DRIVERS to "built in", "module", "missing", or "unknown" where neither a list nor the kernel
    tells. versions: MODULE_VERSION of those that have one (a driver of the kernel's own has none). initramfs: its file,
    "" if there is none. in_initramfs: which of the modules it carries, None if there is no initramfs or it cannot be
    read (unreadable says why). foreign: releases whose modules it carries instead of this one's.
    """

    release: str
    drivers: dict[str, str]
    versions: dict[str, str]
    initramfs: str
    in_initramfs: tuple[str, ...] | None
    unreadable: str = ""
    foreign: tuple[str, ...] = ()

    def has(self, driver: str) -> bool | None:
        """None if that cannot be told."""
        state = self.drivers[driver]
        return None if state == UNKNOWN else state != MISSING

    def finds_disk_by(self, driver: str) -> bool | None:
        """Whether the root disk can be found by a driver before the root is there; None if that cannot be seen."""
        if self.drivers[driver] == BUILT_IN:
            return True
        if self.unreadable:
            return None
        if self.in_initramfs is not None and driver in self.in_initramfs:
            return True
        return None if self.drivers[driver] == UNKNOWN else False


@dataclass(frozen=True)
class _Modules:
    """built_in: names, None where no list tells. files: the path of each module by its name."""

    built_in: set[str] | None
    files: Mapping[str, str]
    read: Callable[[str], bytes | None]

    def state(self, driver: str) -> str:
        name = _plain(driver)
        if self.built_in is not None and name in self.built_in:
            return BUILT_IN
        if name in self.files:
            return MODULE
        return UNKNOWN if self.built_in is None else MISSING

    def versions(self) -> dict[str, str]:
        """What MODULE_VERSION says in a module's .modinfo section, of those that say something."""
        found = {}
        for driver in DRIVERS:
            path = self.files.get(_plain(driver))
            text = re.search(rb"\0version=([^\0]{1,64})\0", _module(self.read(path) or b"") if path else b"")
            if text:
                found[driver] = text[1].decode(errors="replace")
        return found


@dataclass(frozen=True)
class _Initramfs:
    """files: as archive_files has them; None where there is no initramfs or it cannot be read."""

    path: str = ""
    files: Mapping[str, bytes] | None = None
    unreadable: str = ""

    def modules(self) -> dict[str, dict[str, str]]:
        """Paths of modules by release and name."""
        found: dict[str, dict[str, str]] = {}
        for path in self.files or ():
            if (match := _IN_INITRAMFS.search(path)) and ".ko" in path:
                found.setdefault(match[1], {})[_stem(path)] = path
        return found

    def built_in(self, release: str) -> set[str] | None:
        """initramfs-tools and dracut take the kernel's list along."""
        for where in ("usr/lib/modules", "lib/modules"):
            text = (self.files or {}).get(f"{where}/{release}/modules.builtin")
            if text:
                return {_stem(line) for line in text.decode(errors="replace").splitlines()}
        return None


def read_kernels(root: FileSystem, places: Iterable[tuple[FileSystem, str]]) -> list[Kernel]:
    """Every kernel that has modules or lies in a boot directory, newest last. places: (file system, directory)."""
    places = list(places)
    images = {name.removeprefix("vmlinuz-") for system, where in places for name in system.names(where)
              if name.startswith("vmlinuz-") and "rescue" not in name}  # fmt: skip
    releases = images & set(_releases(root)) or images or set(_releases(root))
    return [
        _kernel(release, _on_disk(root, release), _opened(*_find_initramfs(places, release)))
        for release in sorted(releases, key=_numbers)
    ]


def read_started(start: Start, root: FileSystem | None) -> Kernel:
    """The kernel that is handed over. Its modules are the disk's, or the initramfs's where there is no disk.

    Raises as read_kernel_file, and UsageError where there is no such initramfs.
    """
    kernel = read_kernel_file(start.kernel)
    initramfs = _Initramfs()
    if start.initrd is not None:
        initramfs = _opened(str(start.initrd), read_whole(start.initrd, "an initramfs"))
    if root is not None and kernel.release in _releases(root):
        modules = _on_disk(root, kernel.release)
    else:
        files = initramfs.modules().get(kernel.release, {})
        modules = _Modules(initramfs.built_in(kernel.release), files, (initramfs.files or {}).get)
    found = _kernel(kernel.release, modules, initramfs)
    return found if modules.built_in is not None else _as_the_file_tells(found, kernel)


def _kernel(release: str, modules: _Modules, initramfs: _Initramfs) -> Kernel:
    drivers = {name: modules.state(name) for name in DRIVERS}
    carried = initramfs.modules()
    own = carried.get(release, {})
    return Kernel(
        release,
        drivers,
        modules.versions(),
        initramfs.path,
        None if initramfs.files is None else tuple(name for name in DRIVERS if _plain(name) in own),
        initramfs.unreadable,
        tuple(sorted(carried)) if carried and not own else (),
    )


def _as_the_file_tells(found: Kernel, file: KernelFile) -> Kernel:
    """No list says what is built in: the kernel's own configuration does, or parameters of drivers in it."""
    configuration = file.configured()
    drivers = dict(found.drivers)
    for name, option in OPTIONS.items():
        if drivers[name] == UNKNOWN and configuration:
            drivers[name] = BUILT_IN if configuration.get(option) == "y" else MISSING
        elif drivers[name] == UNKNOWN and file.has_parameters_of(_plain(name)):
            drivers[name] = BUILT_IN
    return replace(found, drivers=drivers)


def _releases(root: FileSystem) -> list[str]:
    return [name for name in root.names(_modules(root)) if re.match(r"\d+\.\d+", name)]


def _modules(root: FileSystem) -> str:
    return _MODULES if root.exists(_MODULES) else "/lib/modules"


def _on_disk(root: FileSystem, release: str) -> _Modules:
    where = f"{_modules(root)}/{release}"
    built_in = {_stem(line) for line in root.text(f"{where}/modules.builtin").splitlines()}
    files = {_stem(line): line.split(":")[0] for line in root.text(f"{where}/modules.dep").splitlines()}
    return _Modules(built_in, files, lambda path: root.read(f"{where}/{path}", _LONGEST_MODULE))


def _numbers(release: str) -> list[Any]:
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.findall(r"\d+|[a-z]+", release)
    ]


def _plain(name: str) -> str:
    """Dashes and underscores are the same to modprobe(8)."""
    return name.replace("-", "_")


def _stem(line: str) -> str:
    """ "kernel/drivers/net/x-y.ko.xz: …" gives "x_y"."""
    return _plain(PurePosixPath(line.split(":")[0]).name.split(".ko")[0])


def _find_initramfs(places: list[tuple[FileSystem, str]], release: str) -> tuple[str, bytes]:
    for system, where in places:
        for pattern in _INITRAMFS:
            path = f"{where.rstrip('/')}/{pattern.format(release)}"
            data = system.read(path)
            if data:
                return path, data
    return "", b""


def _opened(path: str, data: bytes) -> _Initramfs:
    if not data:
        return _Initramfs()
    try:
        return _Initramfs(path, archive_files(data, _READ))
    except BadInput as error:
        return _Initramfs(path, None, error.message)


def _module(data: bytes) -> bytes:
    """A module's file as it is, unpacked; b"" where it cannot be."""
    if data[:4] == b"\x7fELF" or not data:
        return data
    try:
        return unpacked(data, "the module").read(_LONGEST_MODULE)
    except BadInput:
        return data
