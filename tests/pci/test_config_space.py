"""Configuration space as a guest meets it: by a kernel's steps, and by accesses that make no sense."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.devices.ixgbevf_config import ixgbevf_config_space
from vfwire.layouts import pci
from vfwire.pci.capabilities import Capability, express_endpoint, find_capability, msix
from vfwire.pci.config_space import Bar, ConfigSpace, Identity

VIRTUAL_FUNCTION = Identity(0x8086, 0x10ED, 0x8086, 0x7A11, 0x020000, 1)

# Bits that a guest may change, typed apart from the code: offset, then a mask for each byte.
WRITABLE = {
    0x04: [0x06, 0x00],
    0x10: [0x00, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    0x1C: [0x00, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    0x3C: [0xFF],
    0x72: [0x00, 0xC0],
    0xA8: [0xFF, 0x79],
    0xC8: [0x1F],
}


def number(space: ConfigSpace, offset: int, size: int) -> int:
    return int.from_bytes(space.read(offset, size), "little")


class Calls:
    """Counts the calls that a configuration space makes to its device."""

    def __init__(self, space: ConfigSpace) -> None:
        self.seen: list[str] = []
        space.on_change = lambda: self.seen.append("change")
        space.on_flr = lambda: self.seen.append("flr")


def test_power_on_bytes_of_the_82599_vf() -> None:
    """The header of a VF, byte by byte, and its two capabilities."""
    space = ixgbevf_config_space()
    assert space.size == 4096
    assert space.read(0, 0x40).hex(" ", 4) == (
        "8680ed10 00001000 01000002 00000000 "
        "04000000 00000000 00000000 04000000 00000000 00000000 00000000 8680117a "
        "00000000 70000000 00000000 00000000"
    )
    assert space.read(0x70, 12).hex(" ", 4) == "11a00200 03000000 03200000"
    assert space.read(0xA0, 8).hex(" ", 4) == "10000200 c28c0010"
    assert space.read(0x100, 3840) == bytes(3840)


@pytest.mark.parametrize(("offset", "size"), [(0x10, 0x4000), (0x1C, 0x4000)])
def test_a_64_bit_bar_is_sized_and_placed(offset: int, size: int) -> None:
    space = ixgbevf_config_space()
    space.write(offset, b"\xff" * 4)
    space.write(offset + 4, b"\xff" * 4)
    low, high = number(space, offset, 4), number(space, offset + 4, 4)
    assert low & 0xF == pci.BASE_ADDRESS_MEM_TYPE_64
    assert (1 << 64) - (high << 32 | low & ~0xF) == size
    space.write(offset, (0x1234_5678_9ABC_DEF0).to_bytes(8, "little"))
    index = (offset - 0x10) // 4
    assert space.bar_address(index) == 0x1234_5678_9ABC_C000
    assert number(space, offset, 4) == 0x9ABC_C004


def test_a_32_bit_prefetchable_bar_and_absent_ones() -> None:
    space = ConfigSpace(VIRTUAL_FUNCTION, bars=[Bar(2, 4096, is_64bit=False, prefetchable=True)], size=256)
    space.write(pci.BASE_ADDRESS_0, b"\xff" * 24)
    sizes = [number(space, pci.BASE_ADDRESS_0 + 4 * index, 4) for index in range(6)]
    assert sizes == [0, 0, 0xFFFFF008, 0, 0, 0]
    assert space.bar_address(2) == 0xFFFFF000
    with pytest.raises(KeyError):
        space.bar_address(0)


def test_command_and_msix_control_tell_the_device() -> None:
    space = ixgbevf_config_space()
    calls = Calls(space)
    assert (space.bus_master, space.memory_enabled, space.msix_enabled, space.msix_masked) == (False,) * 4
    space.write(pci.COMMAND, b"\xff\xff")
    assert (space.bus_master, space.memory_enabled) == (True, True)
    assert number(space, pci.COMMAND, 2) == pci.COMMAND_MASTER | pci.COMMAND_MEMORY
    space.write(0x73, b"\xc0")
    assert (space.msix_enabled, space.msix_masked) == (True, True)
    assert number(space, 0x72, 2) == 0xC002
    assert calls.seen == ["change", "change"]
    space.write(pci.COMMAND, b"\x06\x00")
    space.write(0x3C, b"\x0b")
    assert calls.seen == ["change", "change"]
    space.write(pci.COMMAND, b"\x02")
    assert (space.bus_master, calls.seen[-1], len(calls.seen)) == (False, "change", 3)


def test_function_level_reset_clears_and_calls_once_and_reads_zero() -> None:
    space = ixgbevf_config_space()
    power_on = space.read(0, 4096)
    space.write(pci.COMMAND, b"\x06\x00")
    space.write(0x72, b"\x00\x80")
    space.write(0x10, b"\x00\x00\x00\xfe")
    calls = Calls(space)
    space.write(0xA8, b"\x10\xa8")
    assert calls.seen == ["change", "flr"]
    assert space.read(0, 4096) == power_on
    space.write(0xA9, b"\x80")
    assert calls.seen == ["change", "flr", "flr"]
    space.write(0xA8, b"\x80")
    space.write(0xA9, b"\x28")
    assert calls.seen == ["change", "flr", "flr"]


def test_reset_by_the_device_is_a_change_but_no_flr() -> None:
    space = ixgbevf_config_space()
    space.write(pci.COMMAND, b"\x06\x00")
    calls = Calls(space)
    space.reset()
    space.reset()
    assert calls.seen == ["change"]
    assert not space.bus_master


def test_a_function_without_the_capabilities() -> None:
    space = ConfigSpace(VIRTUAL_FUNCTION, size=256)
    calls = Calls(space)
    space.write(0x40, b"\xff" * 192)
    assert space.read(0x34, 1) == b"\x00"
    assert number(space, pci.STATUS, 2) & pci.STATUS_CAP_LIST == 0
    assert space.read(0x40, 192) == bytes(192)
    assert (space.msix_enabled, calls.seen) == (False, [])
    assert find_capability(lambda offset, size: number(space, offset, size), pci.CAP_ID_MSIX) == 0


def test_an_endpoint_that_cannot_reset_is_not_reset() -> None:
    able = express_endpoint(0x40)
    values = bytearray(able.values)
    values[pci.EXP_DEVCAP + 3] = 0
    space = ConfigSpace(VIRTUAL_FUNCTION, capabilities=[Capability(0x40, bytes(values), able.writable)])
    calls = Calls(space)
    space.write(0x40 + pci.EXP_DEVCTL, b"\xff\xff")
    assert calls.seen == []


def test_outside_reads_all_ones_and_takes_no_write() -> None:
    space = ixgbevf_config_space()
    assert space.read(4094, 4) == b"\x00\x00\xff\xff"
    assert space.read(5000, 2) == b"\xff\xff"
    assert space.read(-4, 4) == b"\xff" * 4
    before = space.read(0, 4096)
    space.write(4095, b"\xff" * 8)
    space.write(-4, b"\xff" * 8)
    assert space.read(0, 4096) == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"bars": [Bar(5, 4096)]},
        {"bars": [Bar(6, 4096, is_64bit=False)]},
        {"bars": [Bar(-1, 4096)]},
        {"bars": [Bar(0, 4096), Bar(1, 4096)]},
        {"bars": [Bar(0, 5000)]},
        {"bars": [Bar(0, 8)]},
        {"bars": [Bar(0, 1 << 32, is_64bit=False)]},
        {"capabilities": [msix(0x3C, 1, 0, 0, 0, 64)]},
        {"capabilities": [msix(0x42, 1, 0, 0, 0, 64)]},
        {"capabilities": [msix(0xF8, 1, 0, 0, 0, 64)]},
        {"capabilities": [msix(0xA4, 1, 0, 0, 0, 64), express_endpoint(0xA0)]},
        {"capabilities": [Capability(0x40, b"\x09\x00\x00\x00", b"")]},
    ],
)
def test_what_does_not_fit_is_refused_at_construction(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fit|overlap|mask"):
        ConfigSpace(VIRTUAL_FUNCTION, **arguments)


@pytest.mark.parametrize(
    "arguments", [(0, 3, 0, 3, 64), (2049, 3, 0, 3, 64), (3, 6, 0, 3, 64), (3, 3, 4, 3, 64)]
)
def test_an_impossible_msix_capability_is_refused(arguments: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="MSI-X"):
        msix(0x70, *arguments)


def test_capabilities_are_found_by_their_driver() -> None:
    space = ixgbevf_config_space()

    def read(offset: int, size: int) -> int:
        return number(space, offset, size)

    assert find_capability(read, pci.CAP_ID_MSIX) == 0x70
    assert find_capability(read, pci.CAP_ID_EXP) == 0xA0
    assert find_capability(read, pci.CAP_ID_MSI) == 0


@given(st.binary(min_size=256, max_size=256), st.integers(0, 255))
def test_the_walk_ends_on_any_device(content: bytes, identifier: int) -> None:
    """A list that loops, or points anywhere, ends the walk; what is found bears the ID."""
    found = find_capability(lambda at, size: int.from_bytes(content[at : at + size], "little"), identifier)
    assert found == 0 or content[found] == identifier


accesses = st.lists(st.tuples(st.integers(-16, 4200), st.binary(max_size=80)), max_size=30)


@given(accesses)
def test_any_writes_change_only_what_can_be_written(writes: list[tuple[int, bytes]]) -> None:
    space = ixgbevf_config_space()
    power_on = space.read(0, 4096)
    free = bytearray(4096)
    for offset, masks in WRITABLE.items():
        free[offset : offset + len(masks)] = bytes(masks)
    for offset, data in writes:
        space.write(offset, data)
        assert len(space.read(offset, len(data))) == len(data)
    after = space.read(0, 4096)
    kept = [was & ~mask & 0xFF for was, mask in zip(power_on, free, strict=True)]
    assert [now & ~mask & 0xFF for now, mask in zip(after, free, strict=True)] == kept


@given(st.integers(0, 4095), st.binary(min_size=1, max_size=16))
def test_a_write_in_pieces_is_the_same_write(offset: int, data: bytes) -> None:
    """A byte at a time leaves what one access leaves, where no reset is started on the way."""
    whole, pieces = ixgbevf_config_space(), ixgbevf_config_space()
    start = 0xA9 - offset
    if 0 <= start < len(data):
        data = data[:start] + bytes([data[start] & 0x7F]) + data[start + 1 :]
    whole.write(offset, data)
    for index in range(len(data)):
        pieces.write(offset + index, data[index : index + 1])
    assert whole.read(0, 4096) == pieces.read(0, 4096)


@pytest.mark.parametrize("offset", WRITABLE)
def test_writable_bits_really_are(offset: int) -> None:
    space = ixgbevf_config_space()
    masks = WRITABLE[offset]
    for value in (b"\xff", b"\x00"):
        for index, mask in enumerate(masks):
            data = bytes([value[0] & 0x7F]) if offset + index == 0xA9 else value
            space.write(offset + index, data)
            assert space.read(offset + index, 1)[0] & mask == value[0] & mask
