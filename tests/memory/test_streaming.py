"""Streaming stores: what they write is what was meant, and nothing beside it."""

import ctypes

from hypothesis import given
from hypothesis import strategies as st

from vfwire.memory.compiled import compiled, jit_disabled
from vfwire.memory.streaming import LINE, stream64, stream_fence, stream_line

BUFFER = ctypes.create_string_buffer(4096)
BASE = -(-ctypes.addressof(BUFFER) // LINE) * LINE
OFFSET = BASE - ctypes.addressof(BUFFER)
SOURCE = 2048


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
    BUFFER[OFFSET : OFFSET + SOURCE] = b"\xee" * SOURCE
    BUFFER[OFFSET + SOURCE + shift : OFFSET + SOURCE + shift + len(data)] = data
    stream_lines(BASE + LINE, BASE + SOURCE + shift, lines)
    assert BUFFER[OFFSET + LINE : OFFSET + LINE + lines * LINE] == data[: lines * LINE]
    assert BUFFER[OFFSET : OFFSET + LINE] == b"\xee" * LINE
    assert BUFFER[OFFSET + LINE + lines * LINE : OFFSET + SOURCE] == b"\xee" * (SOURCE - LINE - lines * LINE)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 7))
def test_words_are_little_endian(value: int, place: int) -> None:
    BUFFER[OFFSET : OFFSET + LINE] = bytes(LINE)
    stream_word(BASE + place * 8, value)
    expected = bytes(place * 8) + value.to_bytes(8, "little", signed=True) + bytes(56 - place * 8)
    assert BUFFER[OFFSET : OFFSET + LINE] == expected


def test_they_are_what_they_are_called() -> None:
    if jit_disabled():
        assert not hasattr(stream_lines, "inspect_asm")
        return
    stream_lines(BASE, BASE + SOURCE, 1)
    (text,) = stream_lines.inspect_asm().values()
    assert "movnt" in text or "stnp" in text
    assert "sfence" in text or "dmb" in text
