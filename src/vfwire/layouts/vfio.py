"""The kernel's VFIO: requests of a container, a group and a device, and the structures that they take.

Source: Linux `include/uapi/linux/vfio.h` (names without "VFIO_"). Little-endian here, sizes in bytes. What
vfio-user borrowed from that header (device, region and interrupt structures with their flags) stands in
`layouts/vfio_user.py` and is the same on both.
"""

import struct

_TYPE = ord(";")
_BASE = 100


def _request(number: int) -> int:
    """`_IO(VFIO_TYPE, VFIO_BASE + number)`: no size and no direction in the number, argsz carries the size."""
    return _TYPE << 8 | (_BASE + number)


# /dev/vfio/vfio, the container
API_VERSION = 0
GET_API_VERSION = _request(0)
CHECK_EXTENSION = _request(1)
SET_IOMMU = _request(2)
TYPE1V2_IOMMU = 3
IOMMU_GET_INFO = _request(12)
IOMMU_MAP_DMA = _request(13)
IOMMU_UNMAP_DMA = _request(14)

# /dev/vfio/N, a group
GROUP_GET_STATUS = _request(3)
GROUP_SET_CONTAINER = _request(4)
GROUP_UNSET_CONTAINER = _request(5)
GROUP_GET_DEVICE_FD = _request(6)
GROUP_FLAGS_VIABLE = 1 << 0
GROUP_FLAGS_CONTAINER_SET = 1 << 1

# A device
DEVICE_GET_INFO = _request(7)
DEVICE_GET_REGION_INFO = _request(8)
DEVICE_GET_IRQ_INFO = _request(9)
DEVICE_SET_IRQS = _request(10)
DEVICE_RESET = _request(11)

# GROUP_GET_STATUS, both ways: argsz, flags.
GROUP_STATUS = struct.Struct("<II")

# IOMMU_GET_INFO, both ways: argsz, flags, page sizes (a bit each), offset of the first capability, padding.
TYPE1_INFO = struct.Struct("<IIQII")
INFO_PAGE_SIZES = 1 << 0
INFO_CAPS = 1 << 1
CAP_IOVA_RANGE = 1  # header, count, reserved; then first and last address of each range

# IOMMU_MAP_DMA: argsz, flags, address in this process, I/O address, size.
TYPE1_MAP = struct.Struct("<IIQQQ")
MAP_READ = 1 << 0  # the device may read
MAP_WRITE = 1 << 1

# IOMMU_UNMAP_DMA: argsz, flags, I/O address, size; the answer says in `size` how much went.
TYPE1_UNMAP = struct.Struct("<IIQQ")
