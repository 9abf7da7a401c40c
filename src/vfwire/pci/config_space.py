"""Configuration space of one function, as a guest reads and writes it: any offset, any size, nothing raises.

Every bit has a value and a mask that says whether a guest may write it; BAR sizing, MSI-X enable and all else
follow from the masks alone. Only function-level reset, a bit that acts and reads 0, needs more.
As with passthrough, vendor and device ID are there and the BARs can be sized. A bare VF leaves it to its PF.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vfwire.layouts import pci
from vfwire.pci.capabilities import Capability

_COMMAND_WRITABLE = pci.COMMAND_MEMORY | pci.COMMAND_MASTER  # a VF has no other (SR-IOV 1.1 section 3.4.1.3)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a function is. `class_code`: 24 bits, base class, sub-class, programming interface."""

    vendor: int
    device: int
    subsystem_vendor: int
    subsystem: int
    class_code: int
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Bar:
    """A memory BAR at `index` (0 to 5) of `size` bytes, a power of two from 16 on; a 64-bit one takes two."""

    index: int
    size: int
    is_64bit: bool = True
    prefetchable: bool = False


def _nothing() -> None:
    return


class ConfigSpace:
    """`size` bytes: 256, or 4,096 for PCI Express (the extended part reads zero: no extended capabilities).

    `on_change` is called after a write that changed bus mastering, memory decoding, MSI-X enable or mask;
    `on_flr` after a function-level reset was asked for and the registers are back at power-on values.
    Both are plain attributes: a device sets them once it is built.
    Raises ValueError on construction only, for BARs or capabilities that overlap or do not fit.
    """

    def __init__(
        self,
        identity: Identity,
        bars: Sequence[Bar] = (),
        capabilities: Sequence[Capability] = (),
        size: int = pci.CFG_SPACE_EXP_SIZE,
    ) -> None:
        self.size = size
        self.bars = {bar.index: bar for bar in bars}
        self.on_change: Callable[[], None] = _nothing
        self.on_flr: Callable[[], None] = _nothing
        self._values = bytearray(size)
        self._writable = bytearray(size)
        self._place_header(identity)
        for bar in bars:
            self._place_bar(bar)
        self._place_capabilities(sorted(capabilities, key=lambda capability: capability.offset))
        self._power_on = bytes(self._values)
        self._flr_byte = self._find_flr()
        self._msix = self._offset_of(pci.CAP_ID_MSIX, capabilities)

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`. What lies outside reads as all-ones."""
        if offset < 0 or count < 0:
            return b"\xff" * max(count, 0)
        inside = bytes(self._values[offset : offset + count])
        return inside + b"\xff" * (count - len(inside))

    def write(self, offset: int, data: bytes) -> None:
        """Write the bits that can be written; the rest, and what lies outside, is ignored."""
        if offset < 0:
            return
        before = self._controls()
        reset = False
        for position, byte in enumerate(data[: max(self.size - offset, 0)], offset):
            mask = self._writable[position]
            self._values[position] = self._values[position] & ~mask | byte & mask
            reset |= position == self._flr_byte and bool(byte & pci.EXP_DEVCTL_BCR_FLR >> 8)
        if reset:
            self.reset()
        elif self._controls() != before:
            self.on_change()
        if reset:
            self.on_flr()

    def reset(self) -> None:
        """Back to the values at power-on: nothing decoded, no bus mastering, MSI-X off, BARs unset."""
        before = self._controls()
        self._values[:] = self._power_on
        if self._controls() != before:
            self.on_change()

    @property
    def bus_master(self) -> bool:
        """The guest lets the function reach memory and send interrupts."""
        return bool(self._word(pci.COMMAND) & pci.COMMAND_MASTER)

    @property
    def memory_enabled(self) -> bool:
        """The function answers at its memory BARs."""
        return bool(self._word(pci.COMMAND) & pci.COMMAND_MEMORY)

    @property
    def msix_enabled(self) -> bool:
        return bool(self._msix_control() & pci.MSIX_FLAGS_ENABLE)

    @property
    def msix_masked(self) -> bool:
        """All vectors of the function are masked, whatever their own mask bits say."""
        return bool(self._msix_control() & pci.MSIX_FLAGS_MASKALL)

    def bar_address(self, index: int) -> int:
        """Where the guest has put a BAR on its bus, 0 at power-on. Raises KeyError where there is none."""
        bar = self.bars[index]
        width = 8 if bar.is_64bit else 4
        where = pci.BASE_ADDRESS_0 + 4 * index
        return int.from_bytes(self._values[where : where + width], "little") & -bar.size

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._values[offset : offset + 2], "little")

    def _msix_control(self) -> int:
        return self._word(self._msix + pci.MSIX_FLAGS) if self._msix else 0

    def _controls(self) -> tuple[int, int]:
        return self._word(pci.COMMAND), self._msix_control()

    def _place(self, offset: int, width: int, value: int, writable: int = 0) -> None:
        self._values[offset : offset + width] = value.to_bytes(width, "little")
        self._writable[offset : offset + width] = writable.to_bytes(width, "little")

    def _place_header(self, identity: Identity) -> None:
        self._place(pci.VENDOR_ID, 2, identity.vendor)
        self._place(pci.DEVICE_ID, 2, identity.device)
        self._place(pci.COMMAND, 2, 0, _COMMAND_WRITABLE)
        self._place(pci.REVISION_ID, 1, identity.revision)
        self._place(pci.CLASS_PROG, 3, identity.class_code)
        self._place(pci.SUBSYSTEM_VENDOR_ID, 2, identity.subsystem_vendor)
        self._place(pci.SUBSYSTEM_ID, 2, identity.subsystem)
        self._place(pci.INTERRUPT_LINE, 1, 0, 0xFF)

    def _place_bar(self, bar: Bar) -> None:
        width = 8 if bar.is_64bit else 4
        where = pci.BASE_ADDRESS_0 + 4 * bar.index
        if bar.index < 0 or where + width > pci.CARDBUS_CIS or any(self._writable[where : where + width]):
            raise ValueError(f"BAR {bar.index} does not fit among the six")
        if bar.size < 16 or bar.size & (bar.size - 1) or bar.size >= 1 << (8 * width):
            raise ValueError(f"BAR {bar.index} has size {bar.size}, which no mask can say")
        kind = pci.BASE_ADDRESS_MEM_TYPE_64 if bar.is_64bit else pci.BASE_ADDRESS_MEM_TYPE_32
        if bar.prefetchable:
            kind |= pci.BASE_ADDRESS_MEM_PREFETCH
        self._place(where, width, kind, (1 << (8 * width)) - bar.size)

    def _place_capabilities(self, capabilities: list[Capability]) -> None:
        link = pci.CAPABILITY_LIST
        end = pci.STD_HEADER_SIZEOF
        for capability in capabilities:
            if capability.offset % 4 or capability.offset < end:
                raise ValueError(f"capability at {capability.offset:#x} overlaps what is before it")
            end = capability.offset + len(capability.values)
            if end > pci.CFG_SPACE_SIZE or len(capability.writable) != len(capability.values):
                raise ValueError(f"capability at {capability.offset:#x} does not fit")
            self._values[capability.offset : end] = capability.values
            self._writable[capability.offset : end] = capability.writable
            self._values[link] = capability.offset
            link = capability.offset + pci.CAP_LIST_NEXT
        if capabilities:
            self._values[link] = 0
            self._place(pci.STATUS, 2, pci.STATUS_CAP_LIST)

    @staticmethod
    def _offset_of(identifier: int, capabilities: Sequence[Capability]) -> int:
        offsets = [capability.offset for capability in capabilities if capability.identifier == identifier]
        return offsets[0] if offsets else 0

    def _find_flr(self) -> int:
        """The byte whose top bit starts a function-level reset, or -1 where the function cannot."""
        offset = self._values[pci.CAPABILITY_LIST]
        while offset:
            if self._values[offset] == pci.CAP_ID_EXP:
                where = offset + pci.EXP_DEVCAP
                can = int.from_bytes(self._values[where : where + 4], "little") & pci.EXP_DEVCAP_FLR
                return offset + pci.EXP_DEVCTL + 1 if can else -1
            offset = self._values[offset + pci.CAP_LIST_NEXT]
        return -1
