"""The vfio-user layouts against numbers typed from the headers, field by field.

Witnesses: libvfio-user include/vfio-user.h (packed structures, enum vfio_user_command, flags), linux/vfio.h
(region, capability and interrupt structures and flags), libvfio-user test/py/libvfio_user.py (limits).
"""

import re
import struct
from pathlib import Path

import pytest

from vfwire.layouts import vfio_user as layout

# name of ours -> (field, offset, size) as the C structure has them
STRUCTURES = {
    "HEADER": [("msg_id", 0, 2), ("cmd", 2, 2), ("msg_size", 4, 4), ("flags", 8, 4), ("error_no", 12, 4)],
    "VERSION": [("major", 0, 2), ("minor", 2, 2)],
    "DMA_MAP": [("argsz", 0, 4), ("flags", 4, 4), ("offset", 8, 8), ("addr", 16, 8), ("size", 24, 8)],
    "DMA_UNMAP": [("argsz", 0, 4), ("flags", 4, 4), ("addr", 8, 8), ("size", 16, 8)],
    "DEVICE_INFO": [("argsz", 0, 4), ("flags", 4, 4), ("num_regions", 8, 4), ("num_irqs", 12, 4)],
    "REGION_INFO": [
        ("argsz", 0, 4),
        ("flags", 4, 4),
        ("index", 8, 4),
        ("cap_offset", 12, 4),
        ("size", 16, 8),
        ("offset", 24, 8),
    ],
    "CAP_HEADER": [("id", 0, 2), ("version", 2, 2), ("next", 4, 4)],
    "SPARSE_MMAP": [
        ("id", 0, 2),
        ("version", 2, 2),
        ("next", 4, 4),
        ("nr_areas", 8, 4),
        ("reserved", 12, 4),
    ],
    "SPARSE_AREA": [("offset", 0, 8), ("size", 8, 8)],
    "IRQ_INFO": [("argsz", 0, 4), ("flags", 4, 4), ("index", 8, 4), ("count", 12, 4)],
    "IRQ_SET": [("argsz", 0, 4), ("flags", 4, 4), ("index", 8, 4), ("start", 12, 4), ("count", 16, 4)],
    "REGION_ACCESS": [("offset", 0, 8), ("region", 8, 4), ("count", 12, 4)],
    "DMA_ACCESS": [("addr", 0, 8), ("count", 8, 8)],
    "WRITE_MULTI": [("wr_cnt", 0, 8)],
    "WRITE_ONE": [("offset", 0, 8), ("region", 8, 4), ("count", 12, 4), ("data", 16, 8)],
}

NUMBERS = {
    "TYPE_MASK": 0xF,
    "TYPE_COMMAND": 0x0,
    "TYPE_REPLY": 0x1,
    "NO_REPLY": 0x10,
    "ERROR": 0x20,
    "MAJOR": 0,
    "MINOR": 1,
    "DMA_READABLE": 1,
    "DMA_WRITABLE": 2,
    "DMA_MMAP": 4,
    "UNMAP_GET_DIRTY_BITMAP": 1,
    "UNMAP_ALL": 2,
    "DEVICE_RESETS": 1,
    "DEVICE_IS_PCI": 2,
    "REGION_READABLE": 1,
    "REGION_WRITABLE": 2,
    "REGION_MAPPABLE": 4,
    "REGION_HAS_CAPS": 8,
    "CAP_SPARSE_MMAP": 1,
    "CAP_SPARSE_MMAP_VERSION": 1,
    "IRQ_EVENTFD": 1,
    "IRQ_MASKABLE": 2,
    "IRQ_AUTOMASKED": 4,
    "IRQ_NORESIZE": 8,
    "DATA_NONE": 1,
    "DATA_BOOL": 2,
    "DATA_EVENTFD": 4,
    "DATA_MASK": 7,
    "ACTION_MASK": 8,
    "ACTION_UNMASK": 16,
    "ACTION_TRIGGER": 32,
    "ACTIONS": 56,
    "WRITE_ONE_DATA": 8,
    "WRITE_MULTI_MAX": 200,
    "DEFAULT_MAX_MSG_FDS": 1,
    "DEFAULT_MAX_DATA_XFER": 1048576,
    "DEFAULT_MAX_DMA_MAPS": 65535,
    "DEFAULT_PAGE_SIZES": 4096,
    "PEER_MAX_MSG_FDS": 1024,
    "MAX_MSG_FDS": 8,
    "MAX_DATA_XFER": 1048576,
    "MAX_MESSAGE": 1048576 + 16 + 16,
}

COMMANDS = {
    "VERSION": 1,
    "DMA_MAP": 2,
    "DMA_UNMAP": 3,
    "DEVICE_GET_INFO": 4,
    "DEVICE_GET_REGION_INFO": 5,
    "DEVICE_GET_REGION_IO_FDS": 6,
    "DEVICE_GET_IRQ_INFO": 7,
    "DEVICE_SET_IRQS": 8,
    "REGION_READ": 9,
    "REGION_WRITE": 10,
    "DMA_READ": 11,
    "DMA_WRITE": 12,
    "DEVICE_RESET": 13,
    "REGION_WRITE_MULTI": 15,
    "DEVICE_FEATURE": 16,
    "MIG_DATA_READ": 17,
    "MIG_DATA_WRITE": 18,
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_each_field_lies_where_the_header_has_it(name: str) -> None:
    fields = STRUCTURES[name]
    ours: struct.Struct = getattr(layout, name)
    assert ours.size == fields[-1][1] + fields[-1][2]
    for position, (field, offset, size) in enumerate(fields):
        mark = bytes(range(1, size + 1))
        raw = bytes(offset) + mark + bytes(ours.size - offset - size)
        values = list(ours.unpack(raw))
        value = values.pop(position)
        assert value == (mark if isinstance(value, bytes) else int.from_bytes(mark, "little")), field
        assert not any(any(other) if isinstance(other, bytes) else other for other in values), field


def test_every_structure_has_a_witness() -> None:
    ours = {name for name, value in vars(layout).items() if isinstance(value, struct.Struct)}
    assert ours == set(STRUCTURES)


def test_numbers() -> None:
    assert {name: getattr(layout, name) for name in NUMBERS} == NUMBERS


def test_commands() -> None:
    assert {member.name: member.value for member in layout.Command} == COMMANDS


KERNEL_HEADER = Path("/usr/include/linux/vfio.h")
KERNEL_NAMES = {
    "DEVICE_RESETS": "VFIO_DEVICE_FLAGS_RESET",
    "DEVICE_IS_PCI": "VFIO_DEVICE_FLAGS_PCI",
    "REGION_MAPPABLE": "VFIO_REGION_INFO_FLAG_MMAP",
    "REGION_HAS_CAPS": "VFIO_REGION_INFO_FLAG_CAPS",
    "IRQ_EVENTFD": "VFIO_IRQ_INFO_EVENTFD",
    "IRQ_NORESIZE": "VFIO_IRQ_INFO_NORESIZE",
    "DATA_BOOL": "VFIO_IRQ_SET_DATA_BOOL",
    "DATA_EVENTFD": "VFIO_IRQ_SET_DATA_EVENTFD",
    "ACTION_MASK": "VFIO_IRQ_SET_ACTION_MASK",
    "ACTION_TRIGGER": "VFIO_IRQ_SET_ACTION_TRIGGER",
    "UNMAP_ALL": "VFIO_DMA_UNMAP_FLAG_ALL",
}


def kernel_flags(text: str) -> dict[str, int]:
    """The flags that a copy of linux/vfio.h defines."""
    found = re.findall(r"#define\s+(VFIO_\w+)\s+\(1 << (\d+)\)", text)
    return {name: 1 << int(shift) for name, shift in found}


def test_the_kernels_own_header_agrees_where_it_is_installed() -> None:
    """Where it is not, the numbers above stand alone; an old header may lack a name, not contradict."""
    flags = kernel_flags(KERNEL_HEADER.read_text() if KERNEL_HEADER.exists() else "")
    for ours, theirs in KERNEL_NAMES.items():
        assert flags.get(theirs, NUMBERS[ours]) == getattr(layout, ours), theirs
