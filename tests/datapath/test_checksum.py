import struct

import internet_checksum as reference
from guarded_memory import Guarded
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath.checksum import at_odd_offset, checksum_field, fold, pseudo_header, sum_words, swap16
from vfwire.memory.compiled import compiled

MEMORY = Guarded()


@compiled
def sum_of(address, count, partial):  # type: ignore[no-untyped-def]
    return sum_words(address, count, partial)


@compiled
def folded(partial):  # type: ignore[no-untyped-def]
    return fold(partial)


@compiled
def field_of(partial):  # type: ignore[no-untyped-def]
    return checksum_field(partial)


@compiled
def swapped(word):  # type: ignore[no-untyped-def]
    return swap16(word)


@compiled
def pieces_of(first, count, second, rest):  # type: ignore[no-untyped-def]
    partial = sum_words(first, count, 0)
    if count & 1:
        return fold(partial + at_odd_offset(sum_words(second, rest, 0)))
    return fold(sum_words(second, rest, partial))


@compiled
def pseudo_of(address, is_ipv6, protocol, length):  # type: ignore[no-untyped-def]
    return fold(pseudo_header(address, is_ipv6, protocol, length))


def big_endian(value: int) -> int:
    return int.from_bytes(value.to_bytes(2, "little"), "big")


def test_rfc1071_example() -> None:
    """RFC 1071 section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2."""
    address = MEMORY.put(bytes.fromhex("0001f203f4f5f6f7"))
    assert big_endian(folded(sum_of(address, 8, 0))) == 0xDDF2


def test_a_known_ipv4_header() -> None:
    """The field of this header, from a capture, is b861."""
    header = bytes.fromhex("4500007300004000401100 00c0a80001c0a800c7".replace(" ", ""))
    address = MEMORY.put(header)
    assert big_endian(field_of(sum_of(address, 20, 0))) == 0xB861


@given(st.binary(max_size=300))
def test_any_bytes_at_any_alignment(data: bytes) -> None:
    assert big_endian(folded(sum_of(MEMORY.put(data), len(data), 0))) == reference.ones_sum(data)


@given(st.binary(min_size=1, max_size=40), st.integers(60, 66_000), st.integers(0, 3))
def test_long_ranges(seed: bytes, count: int, shift: int) -> None:
    data = (seed * (count // len(seed) + 1))[:count]
    address = MEMORY.put(data + bytes(shift))
    assert big_endian(folded(sum_of(address, count, 0))) == reference.ones_sum(data)


def test_all_ones_at_full_length_do_not_overflow() -> None:
    data = b"\xff" * 131_072
    partial = sum_of(MEMORY.put(data), len(data), 1 << 40)
    assert 0 <= partial <= 1 << 33
    assert folded(partial) == (((1 << 40) % 0xFFFF) or 0xFFFF)


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_pieces_sum_as_the_whole_does(first: bytes, second: bytes) -> None:
    end = MEMORY.put(second)
    start = MEMORY.put(first + second)
    assert big_endian(pieces_of(start, len(first), end, len(second))) == reference.ones_sum(first + second)


@given(st.integers(0, 1 << 40))
def test_fold_is_the_residue_and_zero_only_for_zero(partial: int) -> None:
    expected = partial % 0xFFFF or (0xFFFF if partial else 0)
    assert folded(partial) == expected


@given(st.binary(min_size=32, max_size=32), st.integers(0, 255), st.integers(0, 65_535), st.booleans())
def test_pseudo_header(addresses: bytes, protocol: int, length: int, is_ipv6: bool) -> None:
    half = 16 if is_ipv6 else 4
    source, destination = addresses[:half], addresses[half : 2 * half]
    header = bytes(8 if is_ipv6 else 12) + source + destination
    wanted = reference.ones_sum(reference.pseudo(source, destination, protocol, length))
    assert big_endian(pseudo_of(MEMORY.put(header), is_ipv6, protocol, length)) == wanted


def test_pseudo_header_counts_lengths_beyond_16_bits() -> None:
    address = MEMORY.put(bytes(40))
    wanted = reference.ones_sum(struct.pack(">I3xB", 0x0001_0004, 6))
    assert big_endian(pseudo_of(address, True, 6, 0x0001_0004)) == wanted


@given(st.integers(0, 0xFFFF))
def test_swap16(value: int) -> None:
    assert swapped(value) == big_endian(value)
