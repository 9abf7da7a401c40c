"""Single words of the card's state, for control code: Python reaches them here by atomic operations while the
loop runs.

`words.py` can only be called from compiled code; these are its doors for Python, a fraction of a microsecond
each.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfwire.memory.compiled import compiled
from vfwire.memory.words import (
    compare_exchange64,
    exchange64,
    fetch_and64,
    fetch_or64,
    load32,
    load64,
    store32,
    store64,
)


@compiled
def load_word(address):  # type: ignore[no-untyped-def]
    """The 64-bit word at `address`, signed."""
    return load64(address)


@compiled
def store_word(address, value):  # type: ignore[no-untyped-def]
    store64(address, value)


@compiled
def take_word(address):  # type: ignore[no-untyped-def]
    """Read the word and leave 0 behind, in one step: what a clear-on-read register does."""
    return exchange64(address, 0)


@compiled
def swap_word(address, value):  # type: ignore[no-untyped-def]
    """Store `value`; returns the word as it was."""
    return exchange64(address, value)


@compiled
def replace_word(address, expected, value):  # type: ignore[no-untyped-def]
    """Store `value` where the word is `expected`, in one step; returns the word as it was."""
    return compare_exchange64(address, expected, value)


@compiled
def set_bits(address, bits):  # type: ignore[no-untyped-def]
    """Set `bits`; returns the word as it was."""
    return fetch_or64(address, bits)


@compiled
def clear_bits(address, bits):  # type: ignore[no-untyped-def]
    """Clear `bits`; returns the word as it was."""
    return fetch_and64(address, ~bits)


@compiled
def load_register(address):  # type: ignore[no-untyped-def]
    """The 32-bit word at `address` (a multiple of 4), as 0 to 2**32 - 1."""
    return load32(address)


@compiled
def store_register(address, value):  # type: ignore[no-untyped-def]
    store32(address, value)


def warm_up_words(scratch: Any) -> None:
    """Compile all of the above on one scratch word (an int64 array of at least one entry)."""
    address = int(scratch.ctypes.data)
    load_word(address)
    store_word(address, 0)
    take_word(address)
    swap_word(address, 0)
    replace_word(address, 0, 0)
    set_bits(address, 0)
    clear_bits(address, 0)
    load_register(address)
    store_register(address, 0)


def row_of(records: Any, row: int) -> Any:
    """One record as a plain view: `view["field"]` reads and writes it, dozens of times faster than a recarray
    does.
    """
    return records.view(np.ndarray)[row]


def words_of(records: Any) -> NDArray[np.int64]:
    """Records of int64 fields only as int64[rows, fields], to clear whole rows at once."""
    return np.asarray(records.view(np.ndarray)).view(np.int64).reshape(len(records), -1)


def field_address(records: Any, row: int, field: str) -> int:
    """The address of an int64 field of one record, for the functions above."""
    return int(records.ctypes.data) + row * int(records.dtype.itemsize) + int(records.dtype.fields[field][1])
