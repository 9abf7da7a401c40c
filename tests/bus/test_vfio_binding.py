"""What VFIO wants of a machine, told from a tree like sysfs before the kernel's VFIO is reached.

The real kernel, and binding itself, are met in a guest: tests/guests/test_own_driver.py.
"""

from pathlib import Path

import pytest

from vfwire.bus.vfio.binding import PciDevice, full_address
from vfwire.bus.vfio.function import VfioFunction
from vfwire.errors import ResourceBusy, UnsupportedMachine, UsageError

ADDRESS = "0000:00:04.0"
NETWORK, BRIDGE = "0x020000", "0x060400"


def add(
    root: Path,
    address: str = ADDRESS,
    *,
    driver: str = "",
    group: int | None = 7,
    kind: str = NETWORK,
    interface: str = "",
    state: str = "down",
) -> None:
    """A function as sysfs shows it."""
    device = root / "bus/pci/devices" / address
    device.mkdir(parents=True)
    (device / "class").write_text(kind + "\n")
    if driver:
        (root / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(root / "bus/pci/drivers" / driver)
    if interface:
        (device / "net" / interface).mkdir(parents=True)
        (device / "net" / interface / "operstate").write_text(state + "\n")
    if group is not None:
        members = root / "kernel/iommu_groups" / str(group) / "devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / address).symlink_to(device)
        (device / "iommu_group").symlink_to(members.parent)


@pytest.mark.parametrize("text", ["0000:00:04.0", "00:04.0"])
def test_addresses(text: str) -> None:
    assert full_address(text) == ADDRESS


@pytest.mark.parametrize(
    "text", ["", "4", "00:04", "00:04.8", "../../etc", "0000:00:04.0/net", "0000:00:04.0\n"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        VfioFunction(text)


def test_what_sysfs_says(tmp_path: Path) -> None:
    add(tmp_path, driver="ixgbevf", interface="eth1", state="up")
    device = PciDevice("00:04.0", tmp_path)
    assert (device.address, device.driver, device.group) == (ADDRESS, "ixgbevf", 7)
    assert device.interfaces_up() == ["eth1"]
    assert device.others_in_group() == []
    with pytest.raises(UsageError, match=r"no PCI function 0000:00:05\.0"):
        PciDevice("00:05.0", tmp_path)


def test_an_interface_that_is_up_is_not_taken(tmp_path: Path) -> None:
    add(tmp_path, driver="ixgbevf", interface="eth1", state="up")
    (tmp_path / "bus/pci/drivers/vfio-pci").mkdir(parents=True)
    with pytest.raises(ResourceBusy, match="ip link set eth1 down"):
        PciDevice(ADDRESS, tmp_path).bind()


def test_without_iommu_nothing_is_bound_or_opened(tmp_path: Path) -> None:
    add(tmp_path, driver="ixgbevf", group=None)
    with pytest.raises(UnsupportedMachine, match=r"no IOMMU group.*intel_iommu=on"):
        PciDevice(ADDRESS, tmp_path).bind()
    with pytest.raises(UnsupportedMachine, match="no IOMMU group"):
        VfioFunction(ADDRESS, sysfs=tmp_path)


def test_without_vfio_pci_nothing_is_bound(tmp_path: Path) -> None:
    add(tmp_path, driver="ixgbevf")
    with pytest.raises(UnsupportedMachine, match="modprobe vfio-pci"):
        PciDevice(ADDRESS, tmp_path).bind()


@pytest.mark.parametrize(("driver", "said"), [("ixgbevf", "bound to ixgbevf"), ("", "bound to no driver")])
def test_a_function_must_be_bound_before_it_is_opened(tmp_path: Path, driver: str, said: str) -> None:
    add(tmp_path, driver=driver)
    with pytest.raises(UnsupportedMachine, match=said):
        VfioFunction(ADDRESS, sysfs=tmp_path)


def test_a_group_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    add(tmp_path, driver="vfio-pci")
    add(tmp_path, "0000:00:1c.0", driver="pcieport", kind=BRIDGE)
    add(tmp_path, "0000:00:04.1", driver="igb")
    with pytest.raises(ResourceBusy, match=r"0000:00:04\.1 \(igb\)"):
        VfioFunction(ADDRESS, sysfs=tmp_path)


def test_without_the_kernels_vfio(tmp_path: Path) -> None:
    add(tmp_path, driver="vfio-pci")
    with pytest.raises(UnsupportedMachine, match="modprobe vfio-pci"):
        VfioFunction(ADDRESS, sysfs=tmp_path, devices=tmp_path)
