"""Rows of a register table, and the search in them: what `ixgbevf.py` and `ena_registers.py` are made of."""

from typing import NamedTuple


class Register(NamedTuple):
    """One row: `count` registers, the first at `offset`, the next `stride` bytes on.

    access: RO, RW, WO, RC (a read clears), RW1C (a read clears too, writing 1 clears), RW1S (writing 1 sets),
    WO1C (writing 1 clears what RW1S has set), MIX (by bit).
    """

    name: str
    offset: int
    stride: int
    count: int  # type: ignore[assignment]  # a row has no use for tuple.count
    access: str
    meaning: str


def by_offset(registers: tuple[Register, ...]) -> dict[int, tuple[str, int]]:
    """Every offset that the rows claim, as (name, index). Raises ValueError where two claim the same."""
    names: dict[int, tuple[str, int]] = {}
    for row in registers:
        for index in range(row.count):
            offset = row.offset + index * row.stride
            if offset in names:
                raise ValueError(f"{row.name} and {names[offset][0]} both claim offset {offset:#x}")
            names[offset] = (row.name, index)
    return names
