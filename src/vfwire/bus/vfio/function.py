"""A PCI function through the kernel's VFIO: its BARs are mapped where they can be, the rest is read and written.

PciDevice("0000:00:04.0").bind()
with Pool() as pool, Ixgbevf.open(VfioFunction("0000:00:04.0"), pool) as nic:
    ...
"""

import contextlib
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from vfwire.bus.info_capabilities import sparse_areas
from vfwire.bus.vfio.binding import SYSFS, VFIO_PCI, PciDevice, no_iommu
from vfwire.bus.vfio.container import DEVICES, Container, request
from vfwire.errors import PeerGone, ProtocolError, ResourceBusy, UnsupportedMachine
from vfwire.layouts import vfio
from vfwire.layouts import vfio_user as layout
from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.pci.endpoint import IrqIndex, RegionIndex
from vfwire.pci.registers import MappedPages, RegisterAccess

_INFO_BYTES = 4096  # of a region's info with its capabilities
_BARS = tuple(RegionIndex)[: RegionIndex.ROM]


class DeviceMemory:
    """Pages of a device's BAR, mapped here."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self.size = size
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)
        self.array: Any = np.frombuffer(self._map, np.uint8)
        self.address = int(self.array.ctypes.data)

    def close(self) -> None:
        self.array = np.empty(0, np.uint8)
        with contextlib.suppress(BufferError):  # a view that is still held keeps the mapping
            self._map.close()


class VfioFunction(RegisterAccess):
    """Implements vfwire.pci.function.Function over /dev/vfio, for a function that vfio-pci has (see binding.py).

    address: as lspci shows it. One process at a time has a function. Raises UsageError (no such function),
    UnsupportedMachine (no IOMMU group, not bound to vfio-pci), PermissionDenied, ResourceBusy.
    """

    def __init__(self, address: str, *, sysfs: Path = SYSFS, devices: Path = DEVICES) -> None:
        device = PciDevice(address, sysfs)
        self.name = device.address
        self.traps = 0
        self._vectors = 0
        self.pages: list[tuple[MappedPages, ...]] = []
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        self._fd = self._removal = -1
        if device.group is None:
            raise no_iommu(self.name)
        if device.driver != VFIO_PCI:
            raise UnsupportedMachine(
                f"{self.name} is bound to {device.driver or 'no driver'}, not to vfio-pci",
                f"bind it first: PciDevice({self.name!r}).bind(), as root",
            )
        if others := device.others_in_group():
            raise ResourceBusy(
                f"IOMMU group {device.group} is taken whole, and the kernel uses {', '.join(others)} of it",
                "bind those to vfio-pci, too",
            )
        self._container = Container(device.group, devices)
        try:
            self._fd = self._container.device(self.name)
            self._read_regions()
            self._watch_removal()
        except BaseException:
            self.close()
            raise

    def _read_regions(self) -> None:
        info = bytearray(layout.DEVICE_INFO.pack(layout.DEVICE_INFO.size, 0, 0, 0))
        request(self._fd, vfio.DEVICE_GET_INFO, info)
        _, flags, regions, _ = layout.DEVICE_INFO.unpack(info)
        if not flags & layout.DEVICE_IS_PCI or regions <= RegionIndex.CONFIG:
            raise ProtocolError(f"{self.name} is no PCI device")
        for index in range(min(regions, len(RegionIndex))):
            self.pages.append(self._read_region(index))

    def _read_region(self, index: int) -> tuple[MappedPages, ...]:
        info = bytearray(_INFO_BYTES)
        layout.REGION_INFO.pack_into(info, 0, len(info), 0, index, 0, 0, 0)
        try:
            request(self._fd, vfio.DEVICE_GET_REGION_INFO, info)
        except OSError:  # the kernel has none of that kind for this function (VGA)
            self._offsets.append(0)
            self._sizes.append(0)
            return ()
        argsz, flags, _, cap, size, offset = layout.REGION_INFO.unpack_from(info)
        self._offsets.append(offset)
        self._sizes.append(size)
        if index not in _BARS or not flags & layout.REGION_MAPPABLE:
            return ()
        areas = [(0, size)]
        if flags & layout.REGION_HAS_CAPS:
            areas = sparse_areas(bytes(info[:argsz]), cap, areas)
        return self._map_areas(offset, areas)

    def _map_areas(self, base: int, areas: list[tuple[int, int]]) -> tuple[MappedPages, ...]:
        found: list[MappedPages] = []
        try:
            for start, size in areas:
                if size and not (start | size) % PAGE:
                    memory = DeviceMemory(self._fd, base + start, size)
                    found.append(MappedPages.of(start, memory, memory.array.data))
        except BaseException:
            for pages in found:
                pages.close()
            raise
        return tuple(found)

    def _watch_removal(self) -> None:
        """The kernel asks for the function back by this interrupt (it is unplugged, or another driver wants it)."""
        self._removal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._set_irqs(IrqIndex.REQ, layout.DATA_EVENTFD, [self._removal])

    def check_peer(self) -> None:
        """Raise PeerGone when the kernel wants the function back: close it soon, the kernel waits for that."""
        try:
            os.eventfd_read(self._removal)
        except BlockingIOError:
            return
        os.eventfd_write(self._removal, 1)  # it is gone for whoever asks later, too
        raise PeerGone(f"{self.name} is being taken away", "give it back: close the driver")

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        """Read by a system call: a trap."""
        at = self._place(index, offset, count)
        self.traps += 1
        try:
            data = os.pread(self._fd, count, at)
        except OSError as error:
            raise self._gone(error) from error
        if len(data) != count:
            raise ProtocolError(f"{self.name} answered a read of {count} bytes with {len(data)}")
        return data

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        """Write by a system call: a trap."""
        at = self._place(index, offset, len(data))
        self.traps += 1
        try:
            os.pwrite(self._fd, data, at)
        except OSError as error:
            raise self._gone(error) from error

    def _place(self, index: int, offset: int, count: int) -> int:
        """Where in the device's descriptor a region's bytes are. Raises PeerGone after `close`, ProtocolError."""
        if self._fd < 0:
            raise PeerGone(f"{self.name} is closed")
        if not 0 <= offset <= self._sizes[index] - count:
            raise ProtocolError(f"{self.name} has no {count} bytes at {offset:#x} of region {index}")
        return self._offsets[index] + offset

    def _gone(self, error: OSError) -> PeerGone:
        return PeerGone(f"{self.name} does not answer: {error.strerror}", "see what dmesg says of it")

    def dma_address(self, memory: SharedMemory) -> int:
        return self._container.address_for(memory)

    def dma_map(self, memory: SharedMemory, iova: int) -> None:
        self._container.map(memory, iova)

    def dma_unmap(self, iova: int, size: int) -> None:
        self._container.unmap(iova, size)

    def enable_interrupts(self, eventfds: list[int]) -> None:
        """All vectors at once: the kernel sets MSI-X up as a set, and disables only what is enabled."""
        if self._vectors:
            self._set_irqs(IrqIndex.MSIX, layout.DATA_NONE, [])
        self._vectors = len(eventfds)
        if eventfds:
            self._set_irqs(IrqIndex.MSIX, layout.DATA_EVENTFD, eventfds)

    def _set_irqs(self, index: int, data: int, eventfds: list[int]) -> None:
        size = layout.IRQ_SET.size + 4 * len(eventfds)
        flags = data | layout.ACTION_TRIGGER
        head = layout.IRQ_SET.pack(size, flags, index, 0, len(eventfds))
        tail = b"".join(fd.to_bytes(4, "little", signed=True) for fd in eventfds)
        try:
            request(self._fd, vfio.DEVICE_SET_IRQS, bytearray(head + tail))
        except OSError as error:
            what = IrqIndex(index).name
            raise UnsupportedMachine(
                f"{self.name} takes no {len(eventfds)} {what} interrupts: {error.strerror}"
            ) from error

    def reset(self) -> None:
        try:
            request(self._fd, vfio.DEVICE_RESET)
        except OSError as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """Give the function back: the kernel disables its interrupts and resets it."""
        self.close_pages()
        for fd in (self._fd, self._removal):
            if fd >= 0:
                os.close(fd)
        self._fd = self._removal = -1
        self._container.close()
