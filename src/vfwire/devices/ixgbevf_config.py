"""The 82599 VF's configuration space: what `lspci -vv` shows of it in a guest."""

from vfwire.layouts import ixgbevf
from vfwire.pci.capabilities import express_endpoint, msix
from vfwire.pci.config_space import Bar, ConfigSpace, Identity

IDENTITY = Identity(
    vendor=ixgbevf.PCI_VENDOR,
    device=ixgbevf.PCI_DEVICE,
    subsystem_vendor=ixgbevf.PCI_SUBSYSTEM_VENDOR,
    subsystem=ixgbevf.PCI_SUBSYSTEM,
    class_code=ixgbevf.PCI_CLASS,
    revision=ixgbevf.PCI_REVISION,
)


def ixgbevf_config_space() -> ConfigSpace:
    """4,096 bytes; BAR 0 (registers) and BAR 3 (MSI-X) of 16 KiB, 64-bit; MSI-X; PCI Express with FLR."""
    return ConfigSpace(
        IDENTITY,
        bars=(Bar(0, ixgbevf.BAR0_SIZE), Bar(ixgbevf.MSIX_TABLE_BAR, ixgbevf.BAR3_SIZE)),
        capabilities=(
            msix(
                ixgbevf.PCI_MSIX_CAPABILITY,
                ixgbevf.MSIX_VECTORS,
                ixgbevf.MSIX_TABLE_BAR,
                ixgbevf.MSIX_TABLE_OFFSET,
                ixgbevf.MSIX_TABLE_BAR,
                ixgbevf.MSIX_PBA_OFFSET,
            ),
            express_endpoint(ixgbevf.PCI_EXPRESS_CAPABILITY),
        ),
    )
