"""An MSI-X table and its pending bits, by the book and by accesses that make no sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.pci.msix import MsixTable

ENTRY = bytes.fromhex("0010e0fe 00000000 41400000 01000000")


def test_vectors_start_masked_and_zero() -> None:
    table = MsixTable(3)
    assert table.read(0, 48) == bytes.fromhex("000000000000000000000000 01000000") * 3
    assert [table.masked(vector) for vector in range(3)] == [True] * 3
    assert table.read(0x2000, 8) == bytes(8)


def test_an_entry_holds_its_message() -> None:
    table = MsixTable(3)
    table.write(16, ENTRY)
    assert table.message(1) == (0xFEE01000, 0x4041)
    assert table.message(0) == (0, 0)
    assert table.read(16, 16) == ENTRY
    for vector in (-1, 3):
        with pytest.raises(IndexError):
            table.message(vector)


def test_reserved_bits_stay_zero() -> None:
    table = MsixTable(1)
    table.write(0, b"\xff" * 16)
    assert table.read(0, 16) == b"\xfc" + b"\xff" * 11 + b"\x01\x00\x00\x00"


def test_unmasking_is_told_once_for_each_vector() -> None:
    table = MsixTable(3)
    told: list[int] = []
    table.on_unmask = told.append
    table.write(0, bytes(48))
    assert told == [0, 1, 2]
    table.write(12, b"\x00")
    assert told == [0, 1, 2]
    table.write(12, b"\x01")
    table.write(0, b"\x00" * 12)
    assert table.masked(0)
    table.write(8, b"\x00" * 6)
    assert told == [0, 1, 2, 0]


def test_the_device_may_look_while_it_is_told() -> None:
    table = MsixTable(2)
    seen: list[bool] = []
    table.on_unmask = lambda vector: seen.append(table.masked(vector))
    table.write(28, b"\x00\x00\x00\x00")
    assert seen == [False]


def test_pending_bits_are_the_devices() -> None:
    table = MsixTable(70, pba_offset=0x1000)
    table.set_pending(1)
    table.set_pending(69)
    assert table.read(0x1000, 16) == (1 << 1 | 1 << 69).to_bytes(16, "little")
    assert table.read(0x1008, 1) == b"\x20"
    table.write(0x1000, b"\xff" * 16)
    assert table.read(0x1000, 16) == (1 << 1 | 1 << 69).to_bytes(16, "little")
    table.clear_pending(69)
    assert (table.pending(1), table.pending(69)) == (True, False)
    table.set_pending(70)
    table.set_pending(-1)
    assert table.read(0x1000, 24) == (1 << 1).to_bytes(24, "little")
    assert (table.pending(70), table.pending(-1)) == (False, False)


def test_a_vector_that_is_not_there_is_masked() -> None:
    table = MsixTable(2)
    table.write(0, bytes(32))
    assert [table.masked(vector) for vector in (-1, 0, 1, 2)] == [True, False, False, True]


def test_reset_masks_and_forgets() -> None:
    table = MsixTable(3)
    table.write(0, bytes(16))
    table.write(16, ENTRY)
    table.set_pending(2)
    table.reset()
    assert table.read(0, 0x4000) == MsixTable(3).read(0, 0x4000)


def test_pending_bits_may_come_first_or_after_but_not_inside() -> None:
    table = MsixTable(3, table_offset=0x100, pba_offset=0)
    table.set_pending(0)
    table.write(0x100, ENTRY)
    assert table.read(0, 8) == b"\x01" + bytes(7)
    assert table.read(0x100, 16) == ENTRY
    assert table.read(0x80, 16) == bytes(16)
    for vectors, offset in ((3, 0), (3, 40), (0, 0x2000), (2049, 0x20000)):
        with pytest.raises(ValueError, match="MSI-X"):
            MsixTable(vectors, pba_offset=offset)


accesses = st.lists(
    st.tuples(st.sampled_from([0, 0x1FF0, 0x3FF0]), st.integers(-20, 60), st.binary(max_size=64)), max_size=25
)


@given(accesses, st.sets(st.integers(0, 2)))
def test_any_accesses_are_taken(steps: list[tuple[int, int, bytes]], pending: set[int]) -> None:
    """A plain byte array with masks, kept beside it, agrees on every byte of the BAR after every write."""
    table = MsixTable(3)
    masks = (b"\xfc" + b"\xff" * 11 + b"\x01\x00\x00\x00") * 3
    model = bytearray(table.read(0, 0x4000))
    for vector in pending:
        table.set_pending(vector)
        model[0x2000] |= 1 << vector
    for base, shift, data in steps:
        table.write(base + shift, data)
        for position, byte in enumerate(data, base + shift):
            if 0 <= position < len(masks):
                model[position] = model[position] & ~masks[position] | byte & masks[position]
        count = len(data)
        low = max(base + shift, 0)
        assert table.read(low, count) == (bytes(model) + bytes(200))[low : low + count]
    assert table.read(0, 0x4000) == model
    assert len(table.read(-5, 10)) == 10
