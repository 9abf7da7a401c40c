"""vfio-user messages: header, commands, flags, payloads and limits. Little-endian, sizes in bytes.

Sources: QEMU docs/interop/vfio-user.rst (the specification), linux/vfio.h (the structures it borrows),
QEMU hw/vfio-user/protocol.h (WRITE_MULTI, what a client accepts), libvfio-user include/vfio-user.h.
A payload is written here as the struct.Struct of its fixed part; what follows it is named beside it.
"""

import struct
from enum import IntEnum


def _sized(layout: str, size: int) -> struct.Struct:
    result = struct.Struct("<" + layout)
    if result.size != size:
        raise AssertionError(f"layout {layout} has {result.size} bytes, not {size}")
    return result


class Command(IntEnum):
    """What a message asks for. 14 was DIRTY_PAGES and is no more."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11  # server to client, as is the next
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


# Header: message id, command, size of the whole message, flags, errno of an error reply.
HEADER = _sized("HHIII", 16)
TYPE_MASK = 0xF
TYPE_COMMAND = 0x0
TYPE_REPLY = 0x1
NO_REPLY = 0x10
ERROR = 0x20

# VERSION, both ways: major, minor; then JSON with its NUL.
VERSION = _sized("HH", 4)
MAJOR = 0
MINOR = 1  # the highest that is spoken here; QEMU proposes 0.0, Cloud Hypervisor 0.1

# DMA_MAP: argsz, flags, file offset, I/O address, size; with at most one descriptor. The reply is empty.
DMA_MAP = _sized("IIQQQ", 32)
DMA_READABLE = 1 << 0
DMA_WRITABLE = 1 << 1
DMA_MMAP = 1 << 2  # libvfio-user's: a descriptor must be there

# DMA_UNMAP: argsz, flags, I/O address, size. The reply repeats it.
DMA_UNMAP = _sized("IIQQ", 24)
UNMAP_GET_DIRTY_BITMAP = 1 << 0
UNMAP_ALL = 1 << 1

# DEVICE_GET_INFO, both ways: argsz, flags, number of regions, number of interrupt kinds.
DEVICE_INFO = _sized("IIII", 16)
DEVICE_RESETS = 1 << 0
DEVICE_IS_PCI = 1 << 1

# DEVICE_GET_REGION_INFO, both ways: argsz, flags, index, offset of the first capability, size, file offset.
REGION_INFO = _sized("IIIIQQ", 32)
REGION_READABLE = 1 << 0
REGION_WRITABLE = 1 << 1
REGION_MAPPABLE = 1 << 2
REGION_HAS_CAPS = 1 << 3

# A capability: id, version, offset of the next one from the start of the region info.
CAP_HEADER = _sized("HHI", 8)
CAP_SPARSE_MMAP = 1
CAP_SPARSE_MMAP_VERSION = 1
SPARSE_MMAP = _sized("HHIII", 16)  # capability header, number of areas, reserved; then the areas
SPARSE_AREA = _sized("QQ", 16)  # offset in the region, size

# DEVICE_GET_IRQ_INFO, both ways: argsz, flags, index, count.
IRQ_INFO = _sized("IIII", 16)
IRQ_EVENTFD = 1 << 0
IRQ_MASKABLE = 1 << 1
IRQ_AUTOMASKED = 1 << 2
IRQ_NORESIZE = 1 << 3

# DEVICE_SET_IRQS: argsz, flags, index, start, count; with DATA_BOOL, a byte for each. The reply is empty.
IRQ_SET = _sized("IIIII", 20)
DATA_NONE = 1 << 0
DATA_BOOL = 1 << 1
DATA_EVENTFD = 1 << 2
DATA_MASK = DATA_NONE | DATA_BOOL | DATA_EVENTFD
ACTION_MASK = 1 << 3
ACTION_UNMASK = 1 << 4
ACTION_TRIGGER = 1 << 5
ACTIONS = ACTION_MASK | ACTION_UNMASK | ACTION_TRIGGER

# REGION_READ and REGION_WRITE, both ways: offset, region, count; then data in a write, and a read's reply.
REGION_ACCESS = _sized("QII", 16)

# REGION_WRITE_MULTI: number of writes; then that many writes. The reply is the number done.
WRITE_MULTI = _sized("Q", 8)
WRITE_ONE = _sized("QII8s", 24)  # offset, region, count of up to 8, data
WRITE_ONE_DATA = 8
WRITE_MULTI_MAX = 200  # QEMU sends room for all of them, however many it uses

# DMA_READ and DMA_WRITE, server to client: I/O address, count; then the data.
DMA_ACCESS = _sized("QQ", 16)

# Limits. What a peer does not name in its version JSON has the specification's default.
DEFAULT_MAX_MSG_FDS = 1
DEFAULT_MAX_DATA_XFER = 1 << 20
DEFAULT_MAX_DMA_MAPS = 65535
DEFAULT_PAGE_SIZES = 4096
PEER_MAX_MSG_FDS = 1024  # a peer that claims more is refused, as libvfio-user does
MAX_MSG_FDS = 8
MAX_DATA_XFER = DEFAULT_MAX_DATA_XFER
MAX_MESSAGE = HEADER.size + REGION_ACCESS.size + MAX_DATA_XFER
MAX_VERSION_JSON = 16384
MAX_ERRNO = 4095
