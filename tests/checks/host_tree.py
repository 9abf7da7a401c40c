"""Copies of /sys and /proc of hosts that are not here, written by hand as sysfs lays them out.

Sources for the layout: Linux Documentation/ABI/testing/sysfs-bus-pci, sysfs-class-net, and what this machine shows.
"""

import os
from pathlib import Path

from vfwire.checks.tree import Tree

PF = "0000:03:00.0"
VFS = ["0000:03:10.0", "0000:03:10.2", "0000:03:10.4"]


class HostTree:
    """A directory to give to `vfwire verify --root`. Each method adds one thing and gives its path in the tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/class/net").mkdir(parents=True)
        (root / "sys/bus/pci/devices").mkdir(parents=True)
        self.write("proc/sys/kernel/osrelease", "6.12.0-test")
        self.write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse2\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def link(self, path: str, target: str) -> None:
        """A relative link, as sysfs has them."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        (self.root / target).mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(self.root / target, place.parent))

    def hypervisor(self, vendor: str = "QEMU") -> None:
        self.write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse2 hypervisor\n")
        self.write("sys/class/dmi/id/sys_vendor", vendor)

    def modules(self, available: tuple[str, ...], built_in: tuple[str, ...] = ()) -> None:
        where = "lib/modules/6.12.0-test"
        lines = [f"kernel/drivers/net/{name}.ko.xz: kernel/net/core/failover.ko.xz" for name in available]
        self.write(f"{where}/modules.dep", "\n".join(lines))
        self.write(
            f"{where}/modules.builtin", "\n".join(f"kernel/drivers/net/{name}.ko" for name in built_in)
        )

    def pci(
        self,
        address: str,
        ids: tuple[int, int],
        driver: str | None = None,
        subsystem: tuple[int, int] = (0, 0),
        vectors: int = 3,
        group: int | None = None,
        class_code: int = 0x020000,
        bridge: str = "",
    ) -> str:
        """A function, and its directory below sys/devices."""
        where = f"sys/devices/pci{address[:7]}/{bridge}{address}"
        for name, value in (
            ("vendor", ids[0]),
            ("device", ids[1]),
            ("subsystem_vendor", subsystem[0]),
            ("subsystem_device", subsystem[1]),
            ("class", class_code),
            ("revision", 1),
        ):
            self.write(f"{where}/{name}", f"0x{value:04x}")
        self.write(f"{where}/numa_node", "-1")
        for vector in range(vectors):
            self.write(f"{where}/msi_irqs/{24 + vector}", "msix")
        self.link(f"{where}/subsystem", "sys/bus/pci")
        self.link(f"sys/bus/pci/devices/{address}", where)
        if driver:
            self.bind(where, driver)
        if group is not None:
            self.link(f"{where}/iommu_group", f"sys/kernel/iommu_groups/{group}")
            self.link(f"sys/kernel/iommu_groups/{group}/devices/{address}", where)
        return where

    def bind(self, where: str, driver: str) -> None:
        self.link(f"{where}/driver", f"sys/bus/pci/drivers/{driver}")

    def virtual_functions(self, physical: str, virtual: list[str], total: int) -> None:
        """Makes functions the VFs of another one. All by their directories."""
        self.write(f"{physical}/sriov_totalvfs", str(total))
        self.write(f"{physical}/sriov_numvfs", str(len(virtual)))
        self.write(f"{physical}/sriov_drivers_autoprobe", "1")
        for number, where in enumerate(virtual):
            self.link(f"{physical}/virtfn{number}", where)
            self.link(f"{where}/physfn", physical)

    def device(self, bus: str, name: str, above: str = "sys/devices") -> str:
        """A device on another bus: virtio, xen, vmbus, usb."""
        where = f"{above}/{name}"
        self.link(f"{where}/subsystem", f"sys/bus/{bus}")
        self.link(f"sys/bus/{bus}/devices/{name}", where)
        return where

    def interface(
        self, name: str, device: str | None = None, index: int = 2, kind: str = "", up: bool = True
    ) -> str:
        """An interface on a device's directory, or a virtual one."""
        where = f"{device or 'sys/devices/virtual'}/net/{name}"
        loopback = 0x8 if name == "lo" else 0
        for attribute, value in (
            ("ifindex", str(index)),
            ("address", f"02:00:00:00:00:{index:02x}"),
            ("mtu", "1500"),
            ("flags", hex(0x1002 | loopback | int(up))),
            ("carrier", "1"),
        ):
            self.write(f"{where}/{attribute}", value)
        self.write(f"{where}/uevent", f"DEVTYPE={kind}\nINTERFACE={name}" if kind else f"INTERFACE={name}")
        if device:
            self.link(f"{where}/device", device)
        self.link(f"sys/class/net/{name}", where)
        return where

    def default_route(self, name: str) -> None:
        head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask"
        self.write("proc/net/route", f"{head}\n{name}\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0")


class SriovHost(HostTree):
    """An 82599 with three of 63 VFs: 0 driven by ixgbevf, 1 without a driver, 2 given to vfio-pci."""

    def __init__(self, root: Path, groups: tuple[int | None, ...] = (7, 8, 9)) -> None:
        super().__init__(root)
        self.physical = self.pci(PF, (0x8086, 0x10FB), "ixgbe", group=1)
        self.interface("eth0", self.physical, index=2)
        drivers = ("ixgbevf", None, "vfio-pci")
        self.virtual = [
            self.pci(address, (0x8086, 0x10ED), driver, group=group)
            for address, driver, group in zip(VFS, drivers, groups, strict=True)
        ]
        self.virtual_functions(self.physical, self.virtual, total=63)
        self.interface("eth0v0", self.virtual[0], index=3, up=False)
        for where in (self.physical, *self.virtual):
            self.write(f"{where}/driver_override", "(null)")

    @property
    def tree(self) -> Tree:
        return Tree(self.root)
