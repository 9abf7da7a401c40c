"""One client's requests at the device: whole messages in, replies out. Knows no socket and no thread."""

import errno
import fcntl
import logging
import struct
from collections.abc import Callable
from typing import Any

from vfwire.bus.vfio_user import version
from vfwire.bus.vfio_user.irqs import set_irqs
from vfwire.bus.vfio_user.wire import Message, close_all, pack
from vfwire.errors import BadAccess, ProtocolError, UsageError
from vfwire.layouts import vfio_user as layout
from vfwire.layouts.vfio_user import Command
from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.pci.endpoint import Endpoint, IrqIndex, Region, RegionIndex

log = logging.getLogger("vfwire.vfio_user")

Answer = tuple[bytes, tuple[int, ...]]
"""A reply's payload, and descriptors that go with it (still owned by whoever has them)."""

_ADDRESS_LIMIT = 1 << 63  # addresses are signed words in the data path; QEMU skips what lies above, too
_WITH_FDS = frozenset({Command.DMA_MAP, Command.DEVICE_SET_IRQS})
_NOT_OFFERED = frozenset(
    {Command.DEVICE_GET_REGION_IO_FDS, Command.MIG_DATA_READ, Command.MIG_DATA_WRITE}
)  # optional, and not here


class Trouble:
    """Counts what clients do wrong, and logs each kind of it once for a connection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self._told: set[object] = set()

    def note(self, kind: object, text: str, *, fault: BaseException | None = None) -> None:
        """kind: one of a small set, whatever a client sends. fault: ours, logged with its traceback."""
        self.count += 1
        if kind not in self._told:
            self._told.add(kind)
            log.warning("%s: %s", self.name, text, exc_info=fault)

    def forget(self) -> None:
        """A new connection starts."""
        self._told.clear()


class Session:
    """From the first message of a client to its last. `finished` asks the transport to close when the reply
    is out.
    """

    def __init__(self, endpoint: Endpoint, trouble: Trouble) -> None:
        self.attached = False
        self.finished = False
        self._endpoint = endpoint
        self._trouble = trouble
        self._regions = endpoint.regions
        self._sizes = tuple(region.size for region in self._regions)
        self._client = version.Capabilities()
        self._maps = 0
        self._handlers: dict[int, Callable[[Message], Answer]] = {
            Command.DMA_MAP: self._dma_map,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.DEVICE_GET_INFO: self._device_info,
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: self._irq_info,
            Command.DEVICE_SET_IRQS: self._set_irqs,
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.REGION_WRITE_MULTI: self._region_write_multi,
            Command.DEVICE_RESET: self._reset,
        }

    def handle(self, message: Message) -> Answer | None:
        """Do what a message asks. Returns a whole reply message, or None where none is wanted. Raises
        nothing.
        """
        with message:
            try:
                payload, fds = self._dispatch(message)
            except ProtocolError as error:
                return self._refusal(message, error.message, error.errno)
            except Exception as error:  # a model's own fault stops neither the card nor this client
                return self._refusal(message, f"fault in the device: {error!r}", errno.EIO, error)
        if message.flags & layout.NO_REPLY:
            return None
        return pack(message.id, message.command, layout.TYPE_REPLY, payload), fds

    def close(self) -> None:
        """The client is gone: detach, once, if it ever attached."""
        if not self.attached:
            return
        self.attached = False
        try:
            self._endpoint.detach()
        except Exception as error:
            self._trouble.note("detach", f"fault in the device at detach: {error!r}", fault=error)

    def _dispatch(self, message: Message) -> Answer:
        if message.fault:
            self.finished |= message.broken
            raise ProtocolError(message.fault)
        if message.flags & layout.TYPE_MASK != layout.TYPE_COMMAND:
            raise ProtocolError("a reply that nobody asked for")
        if not self.attached:
            return self._negotiate(message)
        handler = self._handlers.get(message.command)
        if handler is None:
            raise _unknown(message.command)
        if message.fds and message.command not in _WITH_FDS:
            raise ProtocolError("descriptors with a command that takes none")
        return handler(message)

    def _refusal(
        self, message: Message, text: str, number: int, fault: BaseException | None = None
    ) -> Answer | None:
        if not 0 < number <= layout.MAX_ERRNO:
            number = errno.EINVAL
        known = message.command in Command.__members__.values()
        name = Command(message.command).name if known else f"command {message.command}"
        reason = errno.errorcode.get(number, number)
        self._trouble.note((known and name, number), f"{name} refused: {text} ({reason})", fault=fault)
        if message.flags & layout.NO_REPLY:
            return None
        flags = layout.TYPE_REPLY | layout.ERROR
        return pack(message.id, message.command, flags, error=number), ()

    def _negotiate(self, message: Message) -> Answer:
        """The first message must be VERSION; a client that gets it wrong has to connect again."""
        self.finished = True
        if message.command != Command.VERSION:
            raise ProtocolError("the first message is not VERSION")
        if message.fds:
            raise ProtocolError("descriptors with VERSION")
        payload, self._client = version.answer(message.payload)
        self._endpoint.attach()
        self.attached, self.finished = True, False
        return payload, ()

    def _device_info(self, message: Message) -> Answer:
        argsz, *_ = _unpack(layout.DEVICE_INFO, message)
        _check_argsz(argsz, layout.DEVICE_INFO.size)
        flags = layout.DEVICE_RESETS | layout.DEVICE_IS_PCI
        return layout.DEVICE_INFO.pack(layout.DEVICE_INFO.size, flags, len(self._regions), len(IrqIndex)), ()

    def _region_info(self, message: Message) -> Answer:
        """A client that asks with too little room gets the fixed part, and how much there is (QEMU asks
        with 32).

        QEMU refuses an answer whose capabilities start inside of the fixed part, also when they did not
        fit.
        """
        argsz, _, index, *_ = _unpack(layout.REGION_INFO, message)
        _check_argsz(argsz, layout.REGION_INFO.size)
        if index >= len(self._regions):
            raise ProtocolError("no such region")
        region = self._regions[index]
        flags = layout.REGION_READABLE | layout.REGION_WRITABLE if region.size else 0
        if region.memory is None or not region.areas or not self._client.max_msg_fds:
            plain = layout.REGION_INFO.pack(layout.REGION_INFO.size, flags, index, 0, region.size, 0)
            return plain, ()
        caps = sparse_capability(region)
        needed = layout.REGION_INFO.size + len(caps)
        flags |= layout.REGION_MAPPABLE | layout.REGION_HAS_CAPS
        info = layout.REGION_INFO.pack(
            needed, flags, index, layout.REGION_INFO.size, region.size, file_base(region)
        )
        return info + caps if argsz >= needed else info, (region.memory.fd,)

    def _irq_info(self, message: Message) -> Answer:
        argsz, _, index, _ = _unpack(layout.IRQ_INFO, message)
        _check_argsz(argsz, layout.IRQ_INFO.size)
        if index >= len(IrqIndex):
            raise ProtocolError("no such kind of interrupt")
        count = self._endpoint.irq_counts[index]
        return layout.IRQ_INFO.pack(layout.IRQ_INFO.size, layout.IRQ_EVENTFD, index, count), ()

    def _set_irqs(self, message: Message) -> Answer:
        set_irqs(self._endpoint, message)
        return b"", ()

    def _region_read(self, message: Message) -> Answer:
        offset, index, count = _unpack(layout.REGION_ACCESS, message, exactly=True)
        self._check_access(index, offset, count)
        data = self._endpoint.region_read(index, offset, count)
        if len(data) != count:
            raise RuntimeError(f"device read {len(data)} bytes where {count} were asked for")
        return message.payload + data, ()

    def _region_write(self, message: Message) -> Answer:
        offset, index, count = _unpack(layout.REGION_ACCESS, message)
        data = message.payload[layout.REGION_ACCESS.size :]
        if len(data) != count:
            raise ProtocolError("write with more or less data than its count")
        self._check_access(index, offset, count)
        self._endpoint.region_write(index, offset, data)
        return message.payload[: layout.REGION_ACCESS.size], ()

    def _region_write_multi(self, message: Message) -> Answer:
        """Up to the first write that is refused; the reply says how many were done, or why not even the
        first.
        """
        (count,) = _unpack(layout.WRITE_MULTI, message)
        room = (len(message.payload) - layout.WRITE_MULTI.size) // layout.WRITE_ONE.size
        if count > min(room, layout.WRITE_MULTI_MAX):
            raise ProtocolError("more writes announced than sent")
        done = 0
        for done in range(count):
            at = layout.WRITE_MULTI.size + done * layout.WRITE_ONE.size
            offset, index, size, data = layout.WRITE_ONE.unpack_from(message.payload, at)
            try:
                if size > layout.WRITE_ONE_DATA:
                    raise ProtocolError("one of many writes has more than 8 bytes")
                self._check_access(index, offset, size)
                self._endpoint.region_write(index, offset, data[:size])
            except ProtocolError as error:
                if done == 0:
                    raise
                self._trouble.note("write multi", f"one of many writes refused: {error.message}")
                return layout.WRITE_MULTI.pack(done), ()
        return layout.WRITE_MULTI.pack(count), ()

    def _check_access(self, index: int, offset: int, count: int) -> None:
        if index >= len(self._sizes):
            raise ProtocolError("no such region")
        if count == 0 or count > layout.MAX_DATA_XFER:
            raise ProtocolError("access of no bytes, or of too many")
        if offset + count > self._sizes[index]:
            raise BadAccess("access beyond the region")

    def _dma_map(self, message: Message) -> Answer:
        argsz, flags, offset, iova, size = _unpack(layout.DMA_MAP, message, exactly=True)
        _check_argsz(argsz, layout.DMA_MAP.size)
        if flags & ~(layout.DMA_READABLE | layout.DMA_WRITABLE | layout.DMA_MMAP):
            raise ProtocolError("DMA map with unknown flags")
        if len(message.fds) > 1 or (flags & layout.DMA_MMAP and not message.fds):
            raise ProtocolError("DMA map with a wrong number of descriptors")
        _check_range(iova, size)
        if self._maps >= version.MAX_DMA_MAPS:
            raise ProtocolError("too many DMA maps", errno=errno.ENOSPC)
        readable, writable = bool(flags & layout.DMA_READABLE), bool(flags & layout.DMA_WRITABLE)
        memory = _adopt(message, offset, size, writable) if message.fds else None
        try:
            self._endpoint.dma_map(iova, size, memory, readable=readable, writable=writable)
        except BaseException:
            if memory is not None:
                memory.close()
            raise
        self._maps += 1
        return b"", ()

    def _dma_unmap(self, message: Message) -> Answer:
        argsz, flags, iova, size = _unpack(layout.DMA_UNMAP, message)
        if not layout.DMA_UNMAP.size <= argsz <= layout.MAX_DATA_XFER:
            raise ProtocolError("DMA unmap with a bad argsz")
        if flags & ~layout.UNMAP_ALL:
            raise ProtocolError("DMA unmap with flags that are not supported")
        if flags:
            if iova or size:
                raise ProtocolError("DMA unmap of all names a range")
            self._endpoint.dma_unmap_all()
            self._maps = 0
        else:
            _check_range(iova, size)
            self._maps -= self._endpoint.dma_unmap(iova, size)
        return message.payload[: layout.DMA_UNMAP.size], ()

    def _reset(self, message: Message) -> Answer:
        if message.payload:
            raise ProtocolError("reset with a payload")
        self._endpoint.reset()
        return b"", ()


def file_base(region: Region) -> int:
    """Where a region's first byte would lie in its memory's file: the wire has one offset for all areas.

    Raises UsageError for a model whose areas do not lie in the file as they lie in the region.
    """
    bases = {area.file_offset - area.offset for area in region.areas}
    if len(bases) != 1 or min(bases) < 0:
        raise UsageError("mapped areas must lie in their file as they lie in the region")
    return bases.pop()


def sparse_capability(region: Region) -> bytes:
    """The areas of a region that a client may map, as the one capability of its info."""
    head = layout.SPARSE_MMAP.pack(
        layout.CAP_SPARSE_MMAP, layout.CAP_SPARSE_MMAP_VERSION, 0, len(region.areas), 0
    )
    return head + b"".join(layout.SPARSE_AREA.pack(area.offset, area.size) for area in region.areas)


def check_endpoint(endpoint: Endpoint) -> None:
    """Raise UsageError for a model that cannot be put on this wire."""
    if len(endpoint.regions) != len(RegionIndex) or len(endpoint.irq_counts) != len(IrqIndex):
        raise UsageError(f"{endpoint.name} has not nine regions and five kinds of interrupt")
    for region in endpoint.regions:
        if region.memory is not None and region.areas:
            file_base(region)
        for area in region.areas:
            if area.offset % PAGE or area.size % PAGE or area.offset + area.size > region.size:
                raise UsageError(f"{endpoint.name} maps what is not pages of its region")


def _unknown(command: int) -> ProtocolError:
    if command == Command.DEVICE_FEATURE:
        return ProtocolError("no device features (migration) here", errno=errno.ENOTTY)
    if command in _NOT_OFFERED:
        return ProtocolError("not offered here", errno=errno.EOPNOTSUPP)
    return ProtocolError("no command for a device")


def _unpack(shape: struct.Struct, message: Message, *, exactly: bool = False) -> tuple[Any, ...]:
    size = len(message.payload)
    if size < shape.size or (exactly and size != shape.size):
        raise ProtocolError("message is too short" if size < shape.size else "message is too long")
    return shape.unpack_from(message.payload)


def _check_argsz(argsz: int, minimum: int) -> None:
    if argsz < minimum:
        raise ProtocolError("argsz is too small")


def _check_range(iova: int, size: int) -> None:
    if size == 0 or iova % PAGE or size % PAGE or iova + size > _ADDRESS_LIMIT:
        raise ProtocolError("DMA range is empty, not in whole pages or beyond all addresses")


def _adopt(message: Message, offset: int, size: int, writable: bool) -> SharedMemory:
    """Map guest memory.

    A descriptor that has no seals is no memfd, and asking about seals never waits for a file system of the
    guest's making.
    """
    (fd,) = message.take_fds()
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        close_all([fd])
        raise BadAccess("DMA map of a file that is no memfd") from error
    return SharedMemory.adopt(fd, offset, size, writable=writable)
