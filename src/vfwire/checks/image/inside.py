"""A look into a disk image, without booting it and without root: what it has, and what is known to leave an instance
unreachable.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vfwire.checks.image.disk import Disk, open_disk
from vfwire.checks.image.faults import about_kernels, about_mounts, about_network, about_start
from vfwire.checks.image.filesystem import READABLE, FileSystem
from vfwire.checks.image.kernels import Kernel, Start, read_kernels, read_started
from vfwire.checks.image.loader import firmware, kernel_lines
from vfwire.checks.image.naming import Lease, asked_by_kernel, cloud_init, interface_names, leases
from vfwire.checks.verdict import State, Verdict, worst
from vfwire.errors import BadInput, CannotTell

MODELS = {"ena": ("ena",), "82599": ("ixgbevf",), "both": ("ena", "ixgbevf")}
_ARCHITECTURES = {0x3E: "x86_64", 0xB7: "aarch64", 0x03: "i386", 0xF3: "riscv64"}  # ELF e_machine
_PROGRAMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init", "/usr/bin/sh", "/bin/sh")


@dataclass(frozen=True)
class Findings:
    """What is in an image. problems: with each its reason and next step; NOT is what leaves an instance unreachable,
    UNKNOWN what cannot be seen. interface_names: what the first interface may be called. firmware: what finds a boot
    loader; "kernel" where a kernel is started without one.
    """

    format: str
    table: str
    partitions: tuple[dict[str, Any], ...]
    system: str
    architecture: str
    firmware: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    kernel_lines: tuple[str, ...]
    interface_names: tuple[str, ...]
    leases: tuple[Lease, ...]
    cloud_init: str
    problems: tuple[Verdict, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst problem, or that there is none."""
        found = worst(self.problems)
        return found or Verdict(
            State.ENHANCED, "the image has all that it takes", "boot it to be sure: vfwire image check"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | self.verdict.as_json() | {"problems": [one.as_json() for one in self.problems]}


def look_inside(path: Path, model: str = "ena", start: Start | None = None) -> Findings:
    """Look into a raw or qcow2 image. model: "ena", "82599" or "both": the drivers that it must have. start: what is
    started instead of its boot loader.

    Raises UsageError (no such file), BadInput (no image, none that can be read alone, encrypted), CannotTell (no Linux
    that can be seen: btrfs), PermissionDenied.
    """
    with ExitStack() as stack:
        disk = stack.enter_context(open_disk(path))
        systems = [FileSystem(part) for part in disk.partitions if part.contents in READABLE]
        root = _root(disk, systems, path)
        ordered = [root, *(system for system in systems if system is not root)]
        return _findings(disk, ordered, MODELS[model], start)


def look_at_start(start: Start, model: str = "ena") -> Findings:
    """Look into a kernel and its initramfs that are started without a disk: who asks for a lease then, is seen only of
    the kernel's command line. Raises as read_kernel_file.
    """
    kernel = read_started(start, None)
    asking = asked_by_kernel([start.append])
    unseen = Verdict(
        State.UNKNOWN,
        "whether the initramfs asks for a DHCP lease is not seen",
        "boot it: vfwire image check; or let the kernel ask: --append ip=dhcp",
    )
    problems = [*about_kernels([kernel], MODELS[model], disk=False), *([] if asking else [unseen])]
    return Findings(
        format="kernel",
        table="none",
        partitions=(),
        system="",
        architecture="x86_64",
        firmware=("kernel",),
        kernels=(kernel,),
        kernel_lines=(start.append,),
        interface_names=(),
        leases=tuple(asking),
        cloud_init="",
        problems=tuple(problems),
    )


def _root(disk: Disk, systems: list[FileSystem], path: Path) -> FileSystem:
    """The file system with /etc and the kernels' modules."""
    for system in systems:
        modules = any(system.exists(where) for where in ("/usr/lib/modules", "/lib/modules"))
        if system.exists("/etc/os-release") or (modules and system.exists("/etc")):
            return system
    others = sorted(
        {part.contents for part in disk.partitions if part.contents and part.contents not in READABLE}
    )
    if "LUKS" in others:
        raise BadInput(
            f"{path} is encrypted (LUKS)", "check it before it is encrypted; EBS encrypts volumes by itself"
        )
    held = f": what holds it may be {', '.join(others)}, and only ext, XFS and FAT are read" if others else ""
    raise CannotTell(
        f"{path} has no Linux system that can be seen{held}", "name the disk that the instance boots from"
    )


def _findings(disk: Disk, systems: list[FileSystem], drivers: Sequence[str], start: Start | None) -> Findings:
    root = systems[0]
    if start is None:
        places = [(system, where) for system in systems for where in ("/boot", "/", "/EFI/Linux")]
        kernels, lines, started = read_kernels(root, places), kernel_lines(systems), firmware(disk, systems)
    else:
        kernels, lines, started = [read_started(start, root)], [start.append], ("kernel",)
    names = interface_names(root, lines)
    asking, cloud = leases(root), cloud_init(root)
    problems = [
        *about_kernels(kernels, drivers),
        *about_start(started, lines, systems),
        *about_mounts(root, systems),
        *about_network(root, names, asking, cloud),
    ]
    return Findings(
        format=disk.format,
        table=disk.table,
        partitions=tuple(_partition(system) for system in systems),
        system=_system(root),
        architecture=_architecture(root),
        firmware=started,
        kernels=tuple(kernels),
        kernel_lines=tuple(lines),
        interface_names=names,
        leases=tuple(asking),
        cloud_init=cloud,
        problems=tuple(problems),
    )


def _partition(system: FileSystem) -> dict[str, Any]:
    part = system.partition
    named = {"label": system.label, "uuid": system.uuid, "partuuid": part.partuuid}
    return {"number": part.number, "contents": part.contents, "bytes": part.data.size} | named


def _system(root: FileSystem) -> str:
    lines = (line.partition("=") for line in root.text("/etc/os-release").splitlines())
    return next((value.strip("\"'") for key, _, value in lines if key == "PRETTY_NAME"), "")


def _architecture(root: FileSystem) -> str:
    """Of the first program that is there, by its ELF header."""
    for path in _PROGRAMS:
        head = root.read(path, 20) or b""
        if head[:4] == b"\x7fELF" and len(head) == 20:
            return _ARCHITECTURES.get(int.from_bytes(head[18:20], "little"), "unknown")
    return "unknown"
