"""Which driver has a PCI function, and handing it to vfio-pci and back: sysfs only.

Sources: Linux Documentation/ABI/testing/sysfs-bus-pci (driver_override, drivers_probe, unbind) and
Documentation/driver-api/vfio.rst (groups, and when one is viable).
"""

import re
from pathlib import Path

from vfwire.errors import PermissionDenied, ResourceBusy, UnsupportedMachine, UsageError, VfwireError

SYSFS = Path("/sys")
VFIO_PCI = "vfio-pci"
_ADDRESS = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)
_BRIDGE_CLASS = 0x06  # the base class of bridges, which stay with the kernel in a viable group


def full_address(text: str) -> str:
    """`0000:00:04.0` of `00:04.0` or of itself. Raises UsageError for what is no PCI address."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UsageError(f"{text} is no PCI address", "write it as lspci -D does, 0000:00:04.0")
    return f"{found[1] or '0000'}:{found[2]}:{found[3]}.{found[4]}".lower()


class PciDevice:
    """One function in sysfs. `sysfs`: where that is mounted. Raises UsageError when there is no such function."""

    def __init__(self, address: str, sysfs: Path = SYSFS) -> None:
        self.address = full_address(address)
        self._bus = sysfs / "bus" / "pci"
        self.path = self._bus / "devices" / self.address
        if not self.path.is_dir():
            raise UsageError(f"there is no PCI function {self.address}", "see lspci -D")

    @property
    def driver(self) -> str | None:
        """The name of the driver that has it, None for none."""
        link = self.path / "driver"
        return link.resolve().name if link.is_symlink() else None

    @property
    def group(self) -> int | None:
        """The number of its IOMMU group, None where no IOMMU is in use."""
        link = self.path / "iommu_group"
        return int(link.resolve().name) if link.is_symlink() else None

    def interfaces_up(self) -> list[str]:
        """Names of its network interfaces that are up: somebody may be using them."""
        found = sorted((self.path / "net").glob("*"))
        return [entry.name for entry in found if (entry / "operstate").read_text().strip() == "up"]

    def others_in_group(self) -> list[str]:
        """The other functions of its group that a driver other than vfio-pci has, as "address (driver)"."""
        found = []
        for entry in sorted((self.path / "iommu_group" / "devices").glob("*")):
            other = PciDevice(entry.name, self._bus.parent.parent)
            bridge = int((other.path / "class").read_text(), 16) >> 16 == _BRIDGE_CLASS
            if other.address != self.address and not bridge and other.driver not in (None, VFIO_PCI):
                found.append(f"{other.address} ({other.driver})")
        return found

    def bind(self, *, force: bool = False) -> str | None:
        """Hand it to vfio-pci. Returns the driver that had it before; harmless when vfio-pci has it already.

        force: also when a network interface of it is up. Raises UnsupportedMachine (no IOMMU, no vfio-pci),
        ResourceBusy (an interface is up), PermissionDenied.
        """
        before = self.driver
        if before == VFIO_PCI:
            return before
        if self.group is None:
            raise no_iommu(self.address)
        if not (self._bus / "drivers" / VFIO_PCI).is_dir():
            raise UnsupportedMachine("the kernel's vfio-pci is not loaded", "modprobe vfio-pci, as root")
        if not force and (up := self.interfaces_up()):
            raise ResourceBusy(
                f"{self.address} is the interface {up[0]}, and it is up", f"ip link set {up[0]} down"
            )
        self._rebind(VFIO_PCI)
        if self.driver != VFIO_PCI:
            self._write(self.path / "driver_override", "\n")
            raise VfwireError(f"vfio-pci did not take {self.address}", "see what dmesg says of it")
        return before

    def give_back(self) -> str | None:
        """Take it from vfio-pci and let the kernel choose. Returns the driver that has it then, None for none."""
        self._rebind("")
        return self.driver

    def _rebind(self, override: str) -> None:
        """The kernel binds a function with an override to that driver alone; an empty line takes it away."""
        self._write(self.path / "driver_override", override + "\n")
        if self.driver is not None:
            self._write(self.path / "driver" / "unbind", self.address)
        self._write(self._bus / "drivers_probe", self.address)

    def _write(self, path: Path, text: str) -> None:
        try:
            path.write_text(text)
        except PermissionError as error:
            raise PermissionDenied(f"no permission to write {path}", "binding drivers wants root") from error
        except OSError as error:
            raise VfwireError(f"the kernel refused {text.strip()!r} in {path}: {error.strerror}") from error


def no_iommu(address: str) -> UnsupportedMachine:
    return UnsupportedMachine(
        f"{address} is in no IOMMU group: this kernel uses no IOMMU",
        "boot with intel_iommu=on (AMD: enable it in the firmware); a guest needs an emulated one",
    )
