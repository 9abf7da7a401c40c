"""Each field's place in the 64-bit words, against a table typed from Linux's ena_eth_io_defs.h: byte of the structure's
member, bit within it, width.
"""

import csv
from pathlib import Path

import pytest

from vfwire.datapath import ena_words as words
from vfwire.memory.compiled import compiled

TABLE = Path(__file__).parent.parent / "layouts" / "golden" / "ena_words.csv"
SUMS = {"TX_OFFLOADS": {"TX_TSO", "TX_L3_SUM", "TX_L4_SUM"}}  # of several fields that do not touch
SIZES = {"DESCRIPTOR_BYTES": 16, "RX_WHOLE": 1 << 16}  # rx_desc.length: "0 means 64KB"


def rows() -> list[dict[str, str]]:
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def wanted(row: dict[str, str]) -> int:
    place = (8 * int(row["byte"]) + int(row["bit"])) % 64
    if row["name"].endswith("_SHIFT"):
        return place
    if row["name"].endswith("_BITS"):
        return int(row["width"])
    return ((1 << int(row["width"])) - 1) << place


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["name"])
def test_a_field_lies_where_the_header_has_it(row: dict[str, str]) -> None:
    assert getattr(words, row["name"]) == wanted(row)


def test_none_is_without_a_witness() -> None:
    ours = {name for name, value in vars(words).items() if name.isupper() and isinstance(value, int)}
    assert ours == {row["name"] for row in rows()} | SUMS.keys() | SIZES.keys()
    assert {name: getattr(words, name) for name in SIZES} == SIZES
    for name, parts in SUMS.items():
        assert getattr(words, name) == sum(getattr(words, part) for part in parts)


@compiled
def there_and_back(request):  # type: ignore[no-untyped-def]
    bits = words.id_bits(request)
    return bits, words.request_id(bits)


@pytest.mark.parametrize("request_id", [0, 1, 0x3FF, 0x400, 0xA5C3, 0xFFFF])
def test_a_request_id_lies_in_two_parts(request_id: int) -> None:
    """req_id_lo: bits 9:0 at bit 22 of meta_ctrl; req_id_hi: bits 15:10 at bit 16 of len_ctrl."""
    bits, back = there_and_back(request_id)
    assert bits % (1 << 64) == (request_id % 1024) << 54 | (request_id // 1024) << 16
    assert back == request_id


@compiled
def phase_at(count, size):  # type: ignore[no-untyped-def]
    return words.phase_of(count, size)


def test_the_phase_is_one_in_every_other_lap() -> None:
    assert [phase_at(count, 4) for count in range(12)] == [1] * 4 + [0] * 4 + [1] * 4
