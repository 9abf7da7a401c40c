"""The kernel's VFIO requests and structures against numbers typed from Linux include/uapi/linux/vfio.h.

The requests are `_IO(';', 100 + n)`: in <asm-generic/ioctl.h> that is the type's byte 0x3b above the number's.
"""

import struct

import pytest

from vfwire.layouts import vfio

REQUESTS = {
    "GET_API_VERSION": 0x3B64,
    "CHECK_EXTENSION": 0x3B65,
    "SET_IOMMU": 0x3B66,
    "GROUP_GET_STATUS": 0x3B67,
    "GROUP_SET_CONTAINER": 0x3B68,
    "GROUP_UNSET_CONTAINER": 0x3B69,
    "GROUP_GET_DEVICE_FD": 0x3B6A,
    "DEVICE_GET_INFO": 0x3B6B,
    "DEVICE_GET_REGION_INFO": 0x3B6C,
    "DEVICE_GET_IRQ_INFO": 0x3B6D,
    "DEVICE_SET_IRQS": 0x3B6E,
    "DEVICE_RESET": 0x3B6F,
    "IOMMU_GET_INFO": 0x3B70,
    "IOMMU_MAP_DMA": 0x3B71,
    "IOMMU_UNMAP_DMA": 0x3B72,
}
NUMBERS = {
    "API_VERSION": 0,
    "TYPE1V2_IOMMU": 3,
    "GROUP_FLAGS_VIABLE": 1,
    "GROUP_FLAGS_CONTAINER_SET": 2,
    "INFO_PAGE_SIZES": 1,
    "INFO_CAPS": 2,
    "CAP_IOVA_RANGE": 1,
    "MAP_READ": 1,
    "MAP_WRITE": 2,
}
# name -> (field, offset, size) as the C structure has them on a 64-bit machine
STRUCTURES = {
    "GROUP_STATUS": [("argsz", 0, 4), ("flags", 4, 4)],
    "TYPE1_INFO": [
        ("argsz", 0, 4),
        ("flags", 4, 4),
        ("iova_pgsizes", 8, 8),
        ("cap_offset", 16, 4),
        ("padding", 20, 4),
    ],
    "TYPE1_MAP": [
        ("argsz", 0, 4),
        ("flags", 4, 4),
        ("vaddr", 8, 8),
        ("iova", 16, 8),
        ("size", 24, 8),
    ],
    "TYPE1_UNMAP": [("argsz", 0, 4), ("flags", 4, 4), ("iova", 8, 8), ("size", 16, 8)],
}


@pytest.mark.parametrize(("name", "value"), [*REQUESTS.items(), *NUMBERS.items()])
def test_numbers(name: str, value: int) -> None:
    assert getattr(vfio, name) == value


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str) -> None:
    """Each field alone: a number written there comes back from its bytes, and the sizes add up."""
    layout: struct.Struct = getattr(vfio, name)
    fields = STRUCTURES[name]
    assert layout.size == fields[-1][1] + fields[-1][2]
    for place, (_, offset, size) in enumerate(fields):
        value = (1 << 8 * size) - 2
        packed = layout.pack(*[value if place == other else 0 for other in range(len(fields))])
        expected = bytearray(layout.size)
        expected[offset : offset + size] = value.to_bytes(size, "little")
        assert packed == bytes(expected)


def test_nothing_is_without_a_witness() -> None:
    public = {name for name in vars(vfio) if name.isupper() and not name.startswith("_")}
    assert public == REQUESTS.keys() | NUMBERS.keys() | STRUCTURES.keys()
