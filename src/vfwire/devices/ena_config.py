"""The ENA's configuration space: what `lspci -vv` shows of it in a guest."""

from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.ena_pages import BAR0_SIZE, BAR1_SIZE, MSIX_PBA_OFFSET, MSIX_VECTORS, bar2_size
from vfwire.layouts import ena_registers as regs
from vfwire.pci.capabilities import express_endpoint, msix
from vfwire.pci.config_space import Bar, ConfigSpace, Identity

MSIX_CAPABILITY = 0x70
EXPRESS_CAPABILITY = 0xA0
_MSIX_BAR = 1


def ena_config_space(options: EnaOptions) -> ConfigSpace:
    """BAR 0 (registers) and 1 (MSI-X) of 16 KiB, BAR 2 (low-latency queues), 32-bit as on EC2; PCI Express with FLR."""
    revision = regs.PCI_REVISION_READLESS if options.readless else regs.PCI_REVISION_MMIO_READ_DISABLE
    return ConfigSpace(
        Identity(
            vendor=regs.PCI_VENDOR,
            device=options.device,
            subsystem_vendor=regs.PCI_VENDOR,
            subsystem=options.device,
            class_code=regs.PCI_CLASS,
            revision=revision,
        ),
        bars=(
            Bar(0, BAR0_SIZE, is_64bit=False),
            Bar(1, BAR1_SIZE, is_64bit=False),
            Bar(2, bar2_size(options.queues), is_64bit=False, prefetchable=True),
        ),
        capabilities=(
            msix(MSIX_CAPABILITY, MSIX_VECTORS, _MSIX_BAR, 0, _MSIX_BAR, MSIX_PBA_OFFSET),
            express_endpoint(EXPRESS_CAPABILITY),
        ),
    )
