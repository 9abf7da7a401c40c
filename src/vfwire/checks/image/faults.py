"""What is known to leave an instance unreachable: each fault with its reason and the next step."""

from collections.abc import Iterator, Sequence

from vfwire.checks.image.filesystem import FileSystem
from vfwire.checks.image.kernels import OPTIONS, Kernel
from vfwire.checks.image.loader import is_there, is_unstable, required_mounts, roots
from vfwire.checks.image.naming import Lease, pinned_addresses
from vfwire.checks.verdict import State, Verdict


def about_kernels(kernels: Sequence[Kernel], drivers: Sequence[str], disk: bool = True) -> Iterator[Verdict]:
    """The newest kernel is what a boot loader starts; older ones are its fall-back, and are not judged. disk: there is
    a root disk to be found.
    """
    if not kernels:
        yield Verdict(
            State.NOT,
            "the image has no kernel",
            "install one: apt install linux-image-cloud-amd64, dnf install kernel",
        )
        return
    newest = kernels[-1]
    for driver in drivers:
        if newest.has(driver) is False:
            yield Verdict(
                State.NOT,
                f"kernel {newest.release} has no {driver}: the instance comes up without a network{_foreign(newest)}",
                f"install a kernel that has {driver}, or build the module",
            )
        elif newest.has(driver) is None:
            yield _not_told(newest, driver)
    if disk:
        yield from _about_root_disk(newest, "nvme" if "ena" in drivers else "xen-blkfront")


def _about_root_disk(kernel: Kernel, disk: str) -> Iterator[Verdict]:
    if kernel.has(disk) is False:
        yield Verdict(
            State.NOT,
            f"kernel {kernel.release} has no {disk}: the root disk is not found{_foreign(kernel)}",
            "install another kernel",
        )
        return
    found = kernel.finds_disk_by(disk)
    if found is None and kernel.unreadable:
        yield Verdict(
            State.UNKNOWN,
            f"{kernel.initramfs}: {kernel.unreadable}",
            f"see that it has {disk}: lsinitramfs, lsinitrd",
        )
    elif found is None:
        yield _not_told(kernel, disk)
    elif not found:
        lacks = (
            f"{kernel.initramfs} has no {disk}"
            if kernel.initramfs
            else f"there is no initramfs, and {disk} is a module"
        )
        yield Verdict(
            State.NOT,
            f"kernel {kernel.release}: {lacks}: the root disk is not found{_foreign(kernel)}",
            f"add it: dracut --add-drivers {disk} -f; or to /etc/initramfs-tools/modules, and update-initramfs -u",
        )


def _foreign(kernel: Kernel) -> str:
    return f"; {kernel.initramfs} is for {', '.join(kernel.foreign)}" if kernel.foreign else ""


def _not_told(kernel: Kernel, driver: str) -> Verdict:
    """Neither a list (modules.builtin) nor the kernel's file says what is built in."""
    if kernel.unreadable:
        seen = f"{kernel.initramfs}: {kernel.unreadable}"
    else:
        seen = f"{kernel.initramfs} does not carry it" if kernel.initramfs else "there is no initramfs"
    return Verdict(
        State.UNKNOWN,
        f"whether kernel {kernel.release} has {driver} built in cannot be told; {seen}{_foreign(kernel)}",
        f"look for {OPTIONS[driver]}=y in its configuration, or boot it: vfwire image check",
    )


def about_start(started: tuple[str, ...], lines: list[str], systems: list[FileSystem]) -> Iterator[Verdict]:
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


def about_mounts(root: FileSystem, systems: list[FileSystem]) -> Iterator[Verdict]:
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


def about_network(
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
