"""What a trace calls an ENA's registers and bits."""

from vfwire.devices import ena_pages as pages
from vfwire.devices.ena_config import EXPRESS_CAPABILITY, MSIX_CAPABILITY
from vfwire.layouts import ena_registers as regs
from vfwire.layouts.register import Register
from vfwire.pci.endpoint import RegionIndex
from vfwire.pci.naming import CONFIG_BITS, MSIX_BITS, RegisterNames, config_registers, msix_registers

_QUEUES = 32
_PAGES = (
    Register("TX_DB", pages.DOORBELLS, 2 * pages.LINE, _QUEUES, "WO", "transmit doorbell: free-running tail"),
    Register(
        "RX_DB", pages.rx_doorbell(0), 2 * pages.LINE, _QUEUES, "WO", "receive doorbell: free-running tail"
    ),
    Register("INTR", pages.INTERRUPTS, pages.LINE, pages.MSIX_VECTORS, "WO", "unmask and moderate a vector"),
    Register("CQ_HEAD_DB", pages.COMPLETION_HEADS, pages.LINE, 2 * _QUEUES, "WO", "completions consumed"),
    Register("NUMA_NODE", pages.NUMA_NODES, pages.LINE, 2 * _QUEUES, "WO", "where a queue's driver runs"),
)

ENA_NAMES = RegisterNames(
    {
        RegionIndex.BAR0: (*regs.REGISTERS, *_PAGES),
        RegionIndex.BAR1: msix_registers(pages.MSIX_VECTORS, 0, pages.MSIX_PBA_OFFSET),
        RegionIndex.CONFIG: config_registers(MSIX_CAPABILITY, EXPRESS_CAPABILITY),
    },
    {
        "DEV_CTL": {"DEV_RESET": regs.DEV_CTL_DEV_RESET_MASK},
        "DEV_STS": {
            "READY": regs.DEV_STS_READY_MASK,
            "RESET_IN_PROGRESS": regs.DEV_STS_RESET_IN_PROGRESS_MASK,
            "RESET_FINISHED": regs.DEV_STS_RESET_FINISHED_MASK,
            "FATAL_ERROR": regs.DEV_STS_FATAL_ERROR_MASK,
        },
        **MSIX_BITS,
        **CONFIG_BITS,
    },
)
