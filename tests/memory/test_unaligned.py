import ctypes

from hypothesis import given
from hypothesis import strategies as st

from vfwire.memory.compiled import compiled
from vfwire.memory.unaligned import (
    BLOCK,
    read16,
    read16_be,
    read32,
    read32_be,
    read64,
    read64_be,
    sum_blocks,
    write16,
    write16_be,
    write32,
    write32_be,
    write64,
)

BUFFER = ctypes.create_string_buffer(4096)
BASE = ctypes.addressof(BUFFER)


@compiled
def read_all(address):  # type: ignore[no-untyped-def]
    return (
        read16(address),
        read16_be(address),
        read32(address),
        read32_be(address),
        read64(address),
        read64_be(address),
    )


@compiled
def write_all(address, value):  # type: ignore[no-untyped-def]
    write16(address, value)
    write16_be(address + 2, value)
    write32(address + 4, value)
    write32_be(address + 8, value)
    write64(address + 12, value)


@compiled
def sum_at(address, blocks):  # type: ignore[no-untyped-def]
    return sum_blocks(address, blocks)


@given(st.binary(min_size=8, max_size=8), st.integers(0, 15))
def test_reads_at_any_alignment(data: bytes, shift: int) -> None:
    ctypes.memmove(BASE + shift, data, 8)
    wanted = []
    for size in (2, 4, 8):
        wanted += [int.from_bytes(data[:size], order, signed=size == 8) for order in ("little", "big")]
    assert list(read_all(BASE + shift)) == wanted


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(1, 16))
def test_writes_at_any_alignment_touch_only_their_bytes(value: int, shift: int) -> None:
    ctypes.memset(BASE, 0xA5, 64)
    write_all(BASE + shift, value)
    word = (value & ((1 << 64) - 1)).to_bytes(8, "little")
    wanted = word[:2] + word[1::-1] + word[:4] + word[3::-1] + word
    assert BUFFER.raw[: shift + 21] == b"\xa5" * shift + wanted + b"\xa5"


@given(st.binary(min_size=BLOCK, max_size=BLOCK), st.integers(0, 30), st.integers(0, 63))
def test_sum_blocks(data: bytes, blocks: int, shift: int) -> None:
    ctypes.memmove(BASE + shift, data * blocks, blocks * BLOCK)
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, BLOCK, 4)]
    assert sum_at(BASE + shift, blocks) == sum(words) * blocks
