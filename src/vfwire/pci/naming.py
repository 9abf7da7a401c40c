"""What a function's registers are called, for those who read a trace: any access by its name, any value by its bits."""

from collections.abc import Mapping

from vfwire.layouts import pci
from vfwire.layouts.register import Register, by_offset


class RegisterNames:
    """Names of one model. regions: rows of each region's registers by RegionIndex. bits: masks by name, for each
    register that has some worth telling; of several bits all must be set."""

    def __init__(
        self, regions: Mapping[int, tuple[Register, ...]], bits: Mapping[str, Mapping[str, int]]
    ) -> None:
        self._by_offset = {index: by_offset(rows) for index, rows in regions.items()}
        self._arrays = {(index, row.name) for index, rows in regions.items() for row in rows if row.count > 1}
        self._bits = bits

    def name(self, region: int, offset: int) -> str | None:
        """The register at exactly this byte offset, with its index where there are several; None where none begins."""
        found = self._by_offset.get(region, {}).get(offset)
        if found is None:
            return None
        return f"{found[0]}[{found[1]}]" if (region, found[0]) in self._arrays else found[0]

    def bits(self, name: str | None, value: int) -> list[str]:
        """The named bits of a register (as `name` gives it) that are set in `value`."""
        if name is None:
            return []
        masks = self._bits.get(name.partition("[")[0], {})
        return [bit for bit, mask in masks.items() if value & mask == mask]


def msix_registers(vectors: int, table_offset: int, pba_offset: int) -> tuple[Register, ...]:
    """Rows for the MSI-X table and its pending bits, where a BAR holds them (PCI Local Bus 3.0, 6.8.2)."""
    entry = {
        "MSIX_LOWER_ADDR": pci.MSIX_ENTRY_LOWER_ADDR,
        "MSIX_UPPER_ADDR": pci.MSIX_ENTRY_UPPER_ADDR,
        "MSIX_DATA": pci.MSIX_ENTRY_DATA,
        "MSIX_VECTOR_CTRL": pci.MSIX_ENTRY_VECTOR_CTRL,
    }
    rows = [
        Register(name, table_offset + at, pci.MSIX_ENTRY_SIZE, vectors, "RW", "of one vector")
        for name, at in entry.items()
    ]
    pending = Register("MSIX_PBA", pba_offset, 4, -(-vectors // 64) * 2, "RO", "pending bits")
    return (*rows, pending)


MSIX_BITS = {"MSIX_VECTOR_CTRL": {"MASKBIT": pci.MSIX_ENTRY_CTRL_MASKBIT}}


def config_registers(msix_capability: int, express_capability: int) -> tuple[Register, ...]:
    """Rows for the parts of configuration space that drivers and hypervisors write or look at (pci_regs.h)."""
    header: tuple[str, ...] = (
        "VENDOR_ID",
        "DEVICE_ID",
        "COMMAND",
        "STATUS",
        "CLASS_REVISION",
        "CACHE_LINE_SIZE",
        "HEADER_TYPE",
    )
    header += tuple(f"BASE_ADDRESS_{number}" for number in range(pci.STD_NUM_BARS))
    header += ("SUBSYSTEM_VENDOR_ID", "SUBSYSTEM_ID", "ROM_ADDRESS", "CAPABILITY_LIST", "INTERRUPT_LINE")
    offsets = {name: getattr(pci, name) for name in header}
    offsets |= {
        name: msix_capability + getattr(pci, name) for name in ("MSIX_FLAGS", "MSIX_TABLE", "MSIX_PBA")
    }
    offsets |= {name: express_capability + getattr(pci, name) for name in ("EXP_DEVCAP", "EXP_DEVCTL")}
    return tuple(
        Register(name, offset, 0, 1, "MIX", "configuration space") for name, offset in offsets.items()
    )


CONFIG_BITS = {
    "COMMAND": {
        "MEMORY": pci.COMMAND_MEMORY,
        "MASTER": pci.COMMAND_MASTER,
        "INTX_DISABLE": pci.COMMAND_INTX_DISABLE,
    },
    "MSIX_FLAGS": {"ENABLE": pci.MSIX_FLAGS_ENABLE, "MASKALL": pci.MSIX_FLAGS_MASKALL},
    "EXP_DEVCTL": {"FLR": pci.EXP_DEVCTL_BCR_FLR},
}
