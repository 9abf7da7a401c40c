"""PCI functions as sysfs shows them (Linux Documentation/ABI/testing/sysfs-bus-pci), readable without root.

Only a function's MSI-X table size lies in configuration space behind its first 64 bytes, which root alone may read.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from vfwire.checks.tree import Tree
from vfwire.layouts import pci

DEVICES = "sys/bus/pci/devices"
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NETWORK_CLASS = 0x02
_MSIX_SIZE_MASK = 0x7FF  # of Message Control: the table's size minus one


@dataclass(frozen=True)
class PciFunction:
    """address: domain:bus:device.function. physfn: the address of the PF that a VF belongs to, as far as this system
    sees one. msix_in_use: vectors that the kernel has handed out. msix_size: of the table, None without root.
    """

    address: str
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    revision: int
    class_code: int
    driver: str | None
    physfn: str | None
    total_vfs: int
    num_vfs: int
    vfs: tuple[str, ...]
    iommu_group: int | None
    numa_node: int
    msix_in_use: int
    msix_size: int | None

    @property
    def ids(self) -> tuple[int, int]:
        return self.vendor, self.device

    @property
    def is_network(self) -> bool:
        return self.class_code >> 16 == _NETWORK_CLASS

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"id": f"{self.vendor:04x}:{self.device:04x}"}


def read_function(tree: Tree, address: str) -> PciFunction | None:
    """The function at an address; None where there is none."""
    where = f"{DEVICES}/{address}"
    vendor, device = tree.number(f"{where}/vendor"), tree.number(f"{where}/device")
    if not ADDRESS.fullmatch(address) or vendor is None or device is None:
        return None
    group = tree.target(f"{where}/iommu_group")
    return PciFunction(
        address=address,
        vendor=vendor,
        device=device,
        subsystem_vendor=tree.number(f"{where}/subsystem_vendor") or 0,
        subsystem_device=tree.number(f"{where}/subsystem_device") or 0,
        revision=tree.number(f"{where}/revision") or 0,
        class_code=tree.number(f"{where}/class") or 0,
        driver=tree.target(f"{where}/driver"),
        physfn=tree.target(f"{where}/physfn"),
        total_vfs=tree.number(f"{where}/sriov_totalvfs") or 0,
        num_vfs=tree.number(f"{where}/sriov_numvfs") or 0,
        vfs=tuple(address for _, address in sorted(_virtual_functions(tree, where))),
        iommu_group=int(group) if group is not None and group.isdecimal() else None,
        numa_node=-1 if (node := tree.number(f"{where}/numa_node")) is None else node,
        msix_in_use=_msix_in_use(tree, f"{where}/msi_irqs"),
        msix_size=_msix_size(tree.bytes(f"{where}/config", 256)),
    )


def _msix_in_use(tree: Tree, where: str) -> int:
    return sum(tree.text(f"{where}/{vector}") == "msix" for vector in tree.names(where))


def _virtual_functions(tree: Tree, where: str) -> Iterator[tuple[int, str]]:
    """(number, address) of a PF's VFs: its links virtfn0, virtfn1, …"""
    for name in tree.names(where):
        if (number := name.removeprefix("virtfn")).isdecimal() and number != name:
            address = tree.target(f"{where}/{name}")
            if address is not None:
                yield int(number), address


def _msix_size(config: bytes) -> int | None:
    """Vectors in the MSI-X table, by the capability list; None if the list is not there. Bounded, whatever it says."""
    if len(config) < 256 or not config[pci.STATUS] & pci.STATUS_CAP_LIST:
        return None
    offset = config[pci.CAPABILITY_LIST] & ~3
    for _ in range(48):  # as many as fit
        if not pci.STD_HEADER_SIZEOF <= offset <= 252:
            return None
        if config[offset] == pci.CAP_ID_MSIX:
            return (int.from_bytes(config[offset + 2 : offset + 4], "little") & _MSIX_SIZE_MASK) + 1
        offset = config[offset + 1] & ~3
    return None


def all_functions(tree: Tree) -> list[PciFunction]:
    found = (read_function(tree, address) for address in tree.names(DEVICES))
    return [function for function in found if function is not None]


def function_of_device(tree: Tree, bus: str, device: str) -> PciFunction | None:
    """The PCI function that a device is, or that it stands on (a virtio device has one above it)."""
    if bus == "pci":
        return read_function(tree, device)
    found = tree.real(f"sys/bus/{bus}/devices/{device}") if _is_plain(bus) and _is_plain(device) else None
    for part in reversed(() if found is None else found.parts):
        if ADDRESS.fullmatch(part):
            return read_function(tree, part)
    return None


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and not name.startswith(".")
