"""A look into a disk image, without booting it and without root: what it has, and what is known to leave an instance
unreachable.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vfwire.checks.image.disk import Disk, open_disk
from vfwire.checks.image.filesystem import READABLE, FileSystem
from vfwire.checks.image.kernels import Kernel, read_kernels
from vfwire.checks.image.loader import (
    firmware,
    is_there,
    is_unstable,
    kernel_lines,
    required_mounts,
    roots,
)
from vfwire.checks.image.naming import Lease, cloud_init, interface_names, leases, pinned_addresses
from vfwire.checks.verdict import State, Verdict, worst
from vfwire.errors import BadInput, CannotTell

MODELS = {"ena": ("ena",), "82599": ("ixgbevf",), "both": ("ena", "ixgbevf")}
_ARCHITECTURES = {0x3E: "x86_64", 0xB7: "aarch64", 0x03: "i386", 0xF3: "riscv64"}  # ELF e_machine
_PROGRAMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init", "/usr/bin/sh", "/bin/sh")


@dataclass(frozen=True)
class Findings:
    """What is in an image. problems: with each its reason and next step; NOT is what leaves an instance unreachable,
    UNKNOWN what cannot be seen. interface_names: what the first interface may be called.
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


def look_inside(path: Path, model: str = "ena") -> Findings:
    """Look into a raw or qcow2 image. model: "ena", "82599" or "both": the drivers that it must have.

    Raises BadInput (no image, none that can be read alone, encrypted), CannotTell (no Linux that can be seen: btrfs,
    LVM), PermissionDenied.
    """
    with ExitStack() as stack:
        disk = stack.enter_context(open_disk(path))
        systems = [FileSystem(part) for part in disk.partitions if part.contents in READABLE]
        root = _root(disk, systems, path)
        ordered = [root, *(system for system in systems if system is not root)]
        return _findings(disk, ordered, MODELS[model])


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


def _findings(disk: Disk, systems: list[FileSystem], drivers: Sequence[str]) -> Findings:
    root = systems[0]
    places = [(system, where) for system in systems for where in ("/boot", "/", "/EFI/Linux")]
    kernels = read_kernels(root, places)
    lines = kernel_lines(systems)
    names = interface_names(root, lines)
    asking, cloud = leases(root), cloud_init(root)
    started = firmware(disk, systems)
    problems = [
        *_about_kernels(kernels, drivers),
        *_about_start(started, lines, systems),
        *_about_mounts(root, systems),
        *_about_network(root, names, asking, cloud),
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


def _about_kernels(kernels: list[Kernel], drivers: Sequence[str]) -> Iterator[Verdict]:
    """The newest kernel is what a boot loader starts; older ones are its fall-back, and are not judged."""
    if not kernels:
        yield Verdict(
            State.NOT,
            "the image has no kernel",
            "install one: apt install linux-image-cloud-amd64, dnf install kernel",
        )
        return
    newest = kernels[-1]
    for driver in drivers:
        if not newest.has(driver):
            yield Verdict(
                State.NOT,
                f"kernel {newest.release} has no {driver}: the instance comes up without a network",
                f"install a kernel that has {driver}, or build the module",
            )
    disk = "nvme" if "ena" in drivers else "xen-blkfront"
    if not newest.has(disk):
        yield Verdict(
            State.NOT,
            f"kernel {newest.release} has no {disk}: the root disk is not found",
            "install another kernel",
        )
        return
    found = newest.finds_disk_by(disk)
    if found is None:
        yield Verdict(
            State.UNKNOWN,
            f"{newest.initramfs}: {newest.unreadable}",
            f"see that it has {disk}: lsinitramfs, lsinitrd",
        )
    elif not found:
        lacks = (
            f"{newest.initramfs} has no {disk}"
            if newest.initramfs
            else f"there is no initramfs, and {disk} is a module"
        )
        yield Verdict(
            State.NOT,
            f"kernel {newest.release}: {lacks}: the root disk is not found",
            f"add it: dracut --add-drivers {disk} -f; or to /etc/initramfs-tools/modules, and update-initramfs -u",
        )


def _about_start(started: tuple[str, ...], lines: list[str], systems: list[FileSystem]) -> Iterator[Verdict]:
    if not started:
        yield Verdict(
            State.NOT,
            "no boot loader is found, by UEFI or by BIOS",
            "install one: grub-install, or name the whole disk and not a partition",
        )
    for device in sorted(roots(lines)):
        if is_unstable(device):
            yield Verdict(
                State.NOT,
                f"the kernel is told root={device}, and on Nitro the root disk is /dev/nvme0n1",
                "name it by UUID or LABEL in the boot loader's configuration",
            )
        elif not is_there(device, systems):
            yield Verdict(
                State.NOT,
                f"the kernel is told root={device}, and the image has no such file system",
                "see blkid",
            )


def _about_mounts(root: FileSystem, systems: list[FileSystem]) -> Iterator[Verdict]:
    for device, place in required_mounts(root.text("/etc/fstab")):
        if is_unstable(device):
            yield Verdict(
                State.NOT,
                f"fstab mounts {device} at {place}, and on Nitro disks are /dev/nvme…: it stops in emergency mode",
                "name it by UUID or LABEL, or add nofail",
            )
        elif not is_there(device, systems):
            yield Verdict(
                State.NOT,
                f"fstab mounts {device} at {place}, which the image does not have: it stops in emergency mode",
                "correct it, or add nofail if the disk is attached later",
            )


def _about_network(
    root: FileSystem, names: tuple[str, ...], asking: list[Lease], cloud: str
) -> Iterator[Verdict]:
    if pinned_addresses(root):
        yield Verdict(
            State.NOT,
            "70-persistent-net.rules binds the interface's name to a MAC address that the instance does not have",
            "remove /etc/udev/rules.d/70-persistent-net.rules",
        )
    if cloud == "configures the network":
        return
    if not asking:
        yield Verdict(
            State.NOT, "nothing in the image asks for a DHCP lease", "install cloud-init, or configure DHCP"
        )
    elif not any(lease.fits(name) for lease in asking for name in names):
        wanted = sorted({name for lease in asking for name in lease.names})
        yield Verdict(
            State.NOT,
            f"a DHCP lease is asked for on {', '.join(wanted)} only, and the interface will be {names[0]}",
            f"match by more: Name=en* eth* in {asking[0].source}",
        )
