"""A PCI function behind a vfio-user socket: mapped pages are touched, everything else is a message."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfwire.bus.info_capabilities import sparse_areas
from vfwire.bus.vfio_user.connection import Connection, Reply
from vfwire.bus.vfio_user.wire import close_all
from vfwire.errors import BadAccess, ProtocolError, UnsupportedMachine
from vfwire.layouts import vfio_user as layout
from vfwire.layouts.vfio_user import Command
from vfwire.memory.shared import SharedMemory
from vfwire.pci.endpoint import IrqIndex, RegionIndex
from vfwire.pci.registers import MappedPages, RegisterAccess

log = logging.getLogger("vfwire.vfio_user")

_MAX_REGIONS = 100  # as QEMU defends itself
_MAX_CAPS = 1 << 16


@dataclass(frozen=True, slots=True)
class RegionInfo:
    """One region as the device describes it. size 0: there is none."""

    size: int
    pages: tuple[MappedPages, ...] = ()


class VfioUserFunction(RegisterAccess):
    """Implements vfwire.pci.function.Function over the socket at `path`.

    timeout: seconds the card may take for one answer. wait: seconds for its socket to appear. `regions` are
    the device's, by RegionIndex. Raises as Connection does.
    """

    def __init__(self, path: Path, *, timeout: float = 5.0, wait: float = 1.0) -> None:
        self.name = str(path)
        self.traps = 0
        self._vectors = 0
        self.pages: list[tuple[MappedPages, ...]] = []
        self.regions: tuple[RegionInfo, ...] = ()
        self._connection = Connection(path, timeout, wait)
        try:
            self._read_regions()
        except BaseException:
            self.close()
            raise

    def request(
        self, command: int, payload: bytes = b"", fds: Sequence[int] = (), *, no_reply: bool = False
    ) -> Reply:
        """One message, as it is, and its answer (see Connection.request). Not counted as a trap."""
        return self._connection.request(command, payload, fds, no_reply=no_reply)

    def check_peer(self) -> None:
        """Raise PeerGone if the card has gone; a polling loop that only touches mapped pages asks now and
        then.
        """
        self._connection.check_peer()

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        """Read `count` bytes of a region by message, mapped or not: a trap."""
        self.traps += 1
        head = layout.REGION_ACCESS.pack(offset, index, count)
        reply = self._ask(Command.REGION_READ, head)
        if len(reply) != len(head) + count:
            raise ProtocolError(f"{self.name} answered a read of {count} bytes with {len(reply) - len(head)}")
        return reply[len(head) :]

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        """Write to a region by message, mapped or not: a trap. Returns when the device has it."""
        self.traps += 1
        self._ask(Command.REGION_WRITE, layout.REGION_ACCESS.pack(offset, index, len(data)) + data)

    def dma_address(self, memory: SharedMemory) -> int:
        """Its own address: nothing to translate, and no two memories of a process overlap."""
        return memory.address

    def dma_map(self, memory: SharedMemory, iova: int) -> None:
        flags = layout.DMA_READABLE | layout.DMA_WRITABLE
        request = layout.DMA_MAP.pack(layout.DMA_MAP.size, flags, 0, iova, memory.size)
        self._ask(Command.DMA_MAP, request, [memory.fd])

    def dma_unmap(self, iova: int, size: int) -> None:
        self._ask(Command.DMA_UNMAP, layout.DMA_UNMAP.pack(layout.DMA_UNMAP.size, 0, iova, size))

    def enable_interrupts(self, eventfds: list[int]) -> None:
        if len(eventfds) < self._vectors or not eventfds:
            self._set_irqs(layout.DATA_NONE, 0, 0, [])
        self._vectors = len(eventfds)
        step = self._connection.max_msg_fds
        if eventfds and not step:
            raise UnsupportedMachine(f"{self.name} takes no eventfds", "poll, without interrupts")
        for start in range(0, len(eventfds), max(step, 1)):
            part = eventfds[start : start + step]
            self._set_irqs(layout.DATA_EVENTFD, start, len(part), part)

    def reset(self) -> None:
        self._ask(Command.DEVICE_RESET)

    def close(self) -> None:
        self._connection.close()
        self.close_pages()
        self.regions = ()

    def _ask(self, command: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """A request whose answer has no descriptors (any that come are closed)."""
        reply = self._connection.request(command, payload, fds)
        if reply.fds:
            close_all(reply.fds)
        return reply.payload

    def _set_irqs(self, data: int, start: int, count: int, fds: list[int]) -> None:
        flags = data | layout.ACTION_TRIGGER
        request = layout.IRQ_SET.pack(layout.IRQ_SET.size, flags, IrqIndex.MSIX, start, count)
        self._ask(Command.DEVICE_SET_IRQS, request, fds)

    def _read_regions(self) -> None:
        request = layout.DEVICE_INFO.pack(layout.DEVICE_INFO.size, 0, 0, 0)
        _, flags, regions, _ = self._unpack(layout.DEVICE_INFO, self._ask(Command.DEVICE_GET_INFO, request))
        if not flags & layout.DEVICE_IS_PCI or not len(RegionIndex) <= regions <= _MAX_REGIONS:
            raise ProtocolError(f"{self.name} is no PCI device")
        for index in range(len(RegionIndex)):
            self.regions += (self._read_region(index),)
            self.pages.append(self.regions[index].pages)

    def _read_region(self, index: int) -> RegionInfo:
        """Ask for the fixed part first, and again with room for the capabilities if there are any."""
        reply, needed = self._region_info(index, layout.REGION_INFO.size)
        if needed > layout.REGION_INFO.size:
            close_all(reply.fds)
            reply, _ = self._region_info(index, min(needed, _MAX_CAPS))
        try:
            _, flags, _, cap, size, base = self._unpack(layout.REGION_INFO, reply.payload)
            if not reply.fds or not flags & layout.REGION_MAPPABLE:
                return RegionInfo(size)
            areas = [(0, size)]
            if flags & layout.REGION_HAS_CAPS:
                areas = sparse_areas(reply.payload, cap, areas)
            return RegionInfo(size, self._map_areas(reply.fds[0], base, size, areas))
        finally:
            close_all(reply.fds)

    def _region_info(self, index: int, argsz: int) -> tuple[Reply, int]:
        request = layout.REGION_INFO.pack(argsz, 0, index, 0, 0, 0)
        reply = self._connection.request(Command.DEVICE_GET_REGION_INFO, request)
        try:
            return reply, self._unpack(layout.REGION_INFO, reply.payload)[0]
        except ProtocolError:
            close_all(reply.fds)
            raise

    def _map_areas(
        self, fd: int, base: int, limit: int, areas: list[tuple[int, int]]
    ) -> tuple[MappedPages, ...]:
        """Map what the device offers. Pages that could go away under us are left to trap instead."""
        result: list[MappedPages] = []
        try:
            for offset, size in areas:
                if not size or offset + size > limit:
                    raise ProtocolError(f"{self.name} offers pages beyond their region")
                memory = SharedMemory.adopt(os.dup(fd), base + offset, size)
                result.append(MappedPages.of(offset, memory, memory.array.data))
        except BadAccess as error:
            log.warning("%s: pages stay trapped: %s", self.name, error.message)
        except BaseException:
            for pages in result:
                pages.close()
            raise
        return tuple(result)

    def _unpack(self, shape: Any, payload: bytes) -> tuple[int, ...]:
        if len(payload) < shape.size:
            raise ProtocolError(f"{self.name} answered with {len(payload)} bytes instead of {shape.size}")
        values: tuple[int, ...] = shape.unpack_from(payload)
        return values
