"""Streaming stores: what they write is what was meant, and nothing beside it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from vfwire.memory.compiled import compiled, jit_disabled
from vfwire.memory.streaming import LINE, stream64, stream_fence, stream_line

SOURCE = 2048
MEMORY = np.zeros(2 * SOURCE + LINE, np.uint8)
BASE = -(-MEMORY.ctypes.data // LINE) * LINE
LINES = MEMORY[BASE - MEMORY.ctypes.data :]  # begins on a line
UNTOUCHED = 0xEE


@compiled
def stream_lines(to, source, lines):  # type: ignore[no-untyped-def]
    for line in range(lines):
        stream_line(to + line * LINE, source + line * LINE)
    stream_fence()


@compiled
def stream_word(to, value):  # type: ignore[no-untyped-def]
    stream64(to, value)
    stream_fence()


@given(st.binary(min_size=5 * LINE, max_size=5 * LINE), st.integers(0, LINE - 1), st.integers(0, 4))
def test_lines_arrive_whole_from_any_address(data: bytes, shift: int, lines: int) -> None:
    LINES[:SOURCE] = UNTOUCHED
    LINES[SOURCE + shift : SOURCE + shift + len(data)] = np.frombuffer(data, np.uint8)
    stream_lines(BASE + LINE, BASE + SOURCE + shift, lines)
    end = LINE + lines * LINE
    assert LINES[LINE:end].tobytes() == data[: lines * LINE]
    assert (LINES[:LINE] == UNTOUCHED).all() and (LINES[end:SOURCE] == UNTOUCHED).all()


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 7))
def test_words_are_little_endian(value: int, place: int) -> None:
    LINES[:LINE] = 0
    stream_word(BASE + place * 8, value)
    expected = bytes(place * 8) + value.to_bytes(8, "little", signed=True) + bytes(56 - place * 8)
    assert LINES[:LINE].tobytes() == expected


def test_they_are_what_they_are_called() -> None:
    if jit_disabled():
        assert not hasattr(stream_lines, "inspect_asm")
        return
    fresh = njit(stream_lines.py_func)  # what comes from the cache cannot be looked into
    fresh(BASE, BASE + SOURCE, 1)
    (text,) = fresh.inspect_asm().values()
    assert "movnt" in text or "stnp" in text
    assert "sfence" in text or "dmb" in text
