"""Capabilities of a PCI function: built for its device, found by its driver.

A capability is bytes with, beside each, the mask of bits that a guest may write. Linking them into a list is
`ConfigSpace`'s work. Sources: PCI Local Bus 3.0 section 6.8.2 (MSI-X), PCI Express Base 2.0 section 7.8.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vfwire.layouts import pci

_MOST_CAPABILITIES = (pci.CFG_SPACE_SIZE - pci.STD_HEADER_SIZEOF) // 4


@dataclass(frozen=True, slots=True)
class Capability:
    """One capability at `offset` of configuration space, below 0x100.

    `values`: its bytes at power-on, the ID first; byte 1 (the next capability) is filled in later.
    `writable`: as long as `values`; a set bit can be written by the guest.
    """

    offset: int
    values: bytes
    writable: bytes

    @property
    def identifier(self) -> int:
        return self.values[pci.CAP_LIST_ID]


def _registers(size: int, registers: dict[int, tuple[int, int]]) -> bytes:
    """`size` zeroed bytes with the given registers: offset to (bytes wide, value)."""
    out = bytearray(size)
    for offset, (width, value) in registers.items():
        out[offset : offset + width] = value.to_bytes(width, "little")
    return bytes(out)


def msix(
    offset: int, vectors: int, table_bar: int, table_offset: int, pba_bar: int, pba_offset: int
) -> Capability:
    """MSI-X: `vectors` (1 to 2,048) entries in `table_bar` at `table_offset`, pending bits likewise.

    Both offsets are multiples of 8. Raises ValueError otherwise.
    """
    if not 1 <= vectors <= pci.MSIX_FLAGS_QSIZE + 1:
        raise ValueError("MSI-X has 1 to 2,048 vectors")
    if (table_offset | pba_offset) & pci.MSIX_TABLE_BIR or max(table_bar, pba_bar) >= pci.STD_NUM_BARS:
        raise ValueError("MSI-X tables lie 8-byte aligned in one of six BARs")
    values = _registers(
        pci.CAP_MSIX_SIZEOF,
        {
            pci.CAP_LIST_ID: (1, pci.CAP_ID_MSIX),
            pci.MSIX_FLAGS: (2, vectors - 1),
            pci.MSIX_TABLE: (4, table_offset | table_bar),
            pci.MSIX_PBA: (4, pba_offset | pba_bar),
        },
    )
    control = pci.MSIX_FLAGS_ENABLE | pci.MSIX_FLAGS_MASKALL
    return Capability(offset, values, _registers(len(values), {pci.MSIX_FLAGS: (2, control)}))


def express_endpoint(offset: int) -> Capability:
    """PCI Express, version 2, an endpoint with function-level reset on a 5 GT/s link of 8 lanes.

    These are the 82599's values: 512-byte payloads, L0s under 512 ns, L1 under 64 us, timeouts A to D.
    A VF inherits its PF's by SR-IOV 1.1 section 3.5; the 82599's own VF returns zeros instead (specification
    update, erratum 35) and leaves it to whoever presents it to a guest to put the PF's values there, as here.
    """
    devcap = 2 | 3 << 6 | 6 << 9 | pci.EXP_DEVCAP_RBER | pci.EXP_DEVCAP_FLR
    link = pci.EXP_LNKCAP_SLS_5_0GB | 8 << 4
    values = _registers(
        pci.CAP_EXP_SIZEOF_V2,
        {
            pci.CAP_LIST_ID: (1, pci.CAP_ID_EXP),
            pci.EXP_FLAGS: (2, 2 | pci.EXP_TYPE_ENDPOINT << 4),
            pci.EXP_DEVCAP: (4, devcap),
            pci.EXP_DEVCTL: (
                2,
                pci.EXP_DEVCTL_RELAX_EN | pci.EXP_DEVCTL_NOSNOOP_EN | pci.EXP_DEVCTL_READRQ_512B,
            ),
            pci.EXP_LNKCAP: (4, link | 1 << 10 | 4 << 12 | 3 << 15),
            pci.EXP_LNKSTA: (2, link),
            pci.EXP_DEVCAP2: (4, pci.EXP_DEVCAP2_COMP_TMOUT_DIS | 0xF),
            pci.EXP_LNKCTL2: (2, pci.EXP_LNKCAP_SLS_5_0GB),
        },
    )
    control = 0xFFFF & ~(pci.EXP_DEVCTL_BCR_FLR | pci.EXP_DEVCTL_PHANTOM | pci.EXP_DEVCTL_AUX_PME)
    control2 = pci.EXP_DEVCTL2_COMP_TIMEOUT | pci.EXP_DEVCTL2_COMP_TMOUT_DIS
    writable = _registers(len(values), {pci.EXP_DEVCTL: (2, control), pci.EXP_DEVCTL2: (2, control2)})
    return Capability(offset, values, writable)


def find_capability(config_read: Callable[[int, int], int], identifier: int) -> int:
    """Offset of the first capability with this ID, or 0. `config_read(offset, size)` returns an int.

    A device is not trusted to end its list: the walk stops after as many steps as capabilities have room.
    """
    if not config_read(pci.STATUS, 2) & pci.STATUS_CAP_LIST:
        return 0
    offset = config_read(pci.CAPABILITY_LIST, 1) & ~3
    for _ in range(_MOST_CAPABILITIES):
        if not pci.STD_HEADER_SIZEOF <= offset <= pci.CFG_SPACE_SIZE - pci.CAP_SIZEOF:
            return 0
        if config_read(offset + pci.CAP_LIST_ID, 1) == identifier:
            return offset
        offset = config_read(offset + pci.CAP_LIST_NEXT, 1) & ~3
    return 0
