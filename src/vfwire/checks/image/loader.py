"""How an image starts: firmware, boot loader, the kernel's command line, and what fstab asks for."""

import re
from collections.abc import Iterable

from vfwire.checks.image.disk import GPT_BIOS_BOOT, Disk, is_efi
from vfwire.checks.image.filesystem import FileSystem

_EFI_LOADERS = {"bootx64.efi": "x86_64", "bootaa64.efi": "aarch64"}
_CONFIGURATIONS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg",
                   "/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg")  # fmt: skip
_ENTRIES = ("/boot/loader/entries", "/loader/entries")
_KERNEL_LINE = re.compile(r"^\s*(?:linux(?:16|efi)?|append|options)\s+(.*)$", re.MULTILINE | re.IGNORECASE)
_UNSTABLE = re.compile(
    r"/dev/(sd[a-z]|xvd[a-z]|vd[a-z]|hd[a-z])\d*$"
)  # Nitro names the root disk /dev/nvme0n1


def firmware(disk: Disk, systems: Iterable[FileSystem]) -> tuple[str, ...]:
    """Of "uefi" and "bios", those that find a boot loader: EFI/BOOT/BOOT….EFI, or code in the first sector."""
    efi = any(
        name.lower() in _EFI_LOADERS
        for system in systems
        if _may_be_esp(system)
        for name in system.names("/EFI/BOOT")
    )
    bios_part = disk.table != "gpt" or any(part.kind == GPT_BIOS_BOOT for part in disk.partitions)
    found = (("uefi", efi), ("bios", disk.boot_code and bios_part))
    return tuple(name for name, there in found if there)


def _may_be_esp(system: FileSystem) -> bool:
    return is_efi(system.partition) or system.partition.contents == "fat"


def kernel_lines(systems: Iterable[FileSystem]) -> list[str]:
    """Command lines that boot loaders hand to kernels: GRUB's, syslinux's, and the Boot Loader Specification's."""
    found: list[str] = []
    for system in systems:
        paths = [path for path in _CONFIGURATIONS if system.exists(path)]
        paths += [
            f"{where}/{name}" for where in _ENTRIES for name in system.names(where) if name.endswith(".conf")
        ]
        paths += [f"/EFI/{name}/grub.cfg" for name in system.names("/EFI")]
        for path in paths:
            found += [line.strip() for line in _KERNEL_LINE.findall(system.text(path))]
    return list(dict.fromkeys(found))


def roots(lines: Iterable[str]) -> set[str]:
    """What `root=` names on them, variables of a boot loader left out."""
    words = (word for line in lines for word in line.split() if word.startswith("root="))
    return {word.removeprefix("root=").strip("\"'") for word in words if "$" not in word}


def is_unstable(device: str) -> bool:
    """A name by which a disk is not found on Nitro."""
    return bool(_UNSTABLE.match(device))


def is_there(device: str, systems: Iterable[FileSystem]) -> bool:
    """Whether a device as fstab or root= names it is in the image; True for what the image cannot tell."""
    kind, equals, value = device.partition("=")
    if device.startswith("/dev/disk/by-"):
        kind, _, value = device.removeprefix("/dev/disk/by-").partition("/")
        equals = "="
    value = value.strip("\"'")
    lists = {
        "uuid": [system.uuid for system in systems],
        "label": [system.label for system in systems],
        "partuuid": [system.partition.partuuid for system in systems],
    }
    if not equals or kind.lower() not in lists:
        return True
    if kind.lower() == "label":
        return value in lists["label"]
    return value.lower() in lists[kind.lower()]


def required_mounts(fstab: str) -> list[tuple[str, str]]:
    """(device, mount point) of the entries without which systemd goes to emergency mode (fstab(5), nofail, noauto)."""
    rows = [(*line.split(), "")[:4] for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    rows = [row for row in rows if len(row) == 4 and row[2] != "swap"]
    return [(row[0], row[1]) for row in rows if not {"nofail", "noauto"} & set(row[3].split(","))]
