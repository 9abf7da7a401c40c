"""Registers of a function whose BARs are mapped in part: mapped pages are touched, everything else is asked for."""

from dataclasses import dataclass
from typing import Any, Protocol, Self

from vfwire.errors import UnsupportedMachine
from vfwire.pci.endpoint import RegionIndex


class Mapping(Protocol):
    """Memory of this process: shared with a card, or a device's own registers."""

    address: int
    size: int

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class MappedPages:
    """Pages of a region that are mapped here: [start, end) of the region lies at memory.address."""

    start: int
    end: int
    memory: Mapping
    words: memoryview
    """The same memory as 32-bit words: one access of four bytes for each read or write."""

    @classmethod
    def of(cls, start: int, memory: Mapping, data: Any) -> Self:
        """data: the mapping as a writable buffer."""
        return cls(start, start + memory.size, memory, memoryview(data).cast("B").cast("I"))

    def close(self) -> None:
        self.words.release()
        self.memory.close()


class RegisterAccess:
    """The part of pci.function.Function that reads and writes, for carriers that map what they can.

    A register in a mapped page is read and written in one access of four bytes, in program order on x86;
    compiled loops order their own accesses (memory/words.py) at the address that `mapped` gives.
    """

    name: str
    pages: list[tuple[MappedPages, ...]]
    """What is mapped, by RegionIndex."""

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        """Read `count` bytes of a region without its mapping: a trap."""
        raise NotImplementedError

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        """Write to a region without its mapping: a trap. Returns when the device has it."""
        raise NotImplementedError

    def config_read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.region_read(RegionIndex.CONFIG, offset, size), "little")

    def config_write(self, offset: int, value: int, size: int) -> None:
        self.region_write(RegionIndex.CONFIG, offset, value.to_bytes(size, "little"))

    def read32(self, bar: int, offset: int) -> int:
        for pages in self.pages[bar]:
            if pages.start <= offset < pages.end and not offset & 3:
                return pages.words[(offset - pages.start) >> 2]
        return int.from_bytes(self.region_read(bar, offset, 4), "little")

    def write32(self, bar: int, offset: int, value: int) -> None:
        for pages in self.pages[bar]:
            if pages.start <= offset < pages.end and not offset & 3:
                pages.words[(offset - pages.start) >> 2] = value & 0xFFFFFFFF
                return
        self.region_write(bar, offset, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def mapped(self, bar: int, offset: int, size: int) -> int:
        for pages in self.pages[bar]:
            if pages.start <= offset and offset + size <= pages.end:
                return pages.memory.address + offset - pages.start
        raise UnsupportedMachine(
            f"{self.name} does not map BAR{bar} {offset:#x}..{offset + size:#x}",
            "this driver needs a device whose queue pages can be mapped",
        )

    def close_pages(self) -> None:
        """Unmap; every access traps from now on."""
        for mapped in self.pages:
            for pages in mapped:
                pages.close()
        self.pages = [()] * len(RegionIndex)
