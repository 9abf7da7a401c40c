"""The ENA's constants and structures against golden tables typed from the vendor's headers, two witnesses each.

`golden/ena_structures.csv`: our name, the header's structure and field (empty: the whole), offset and size in bytes
in Linux's driver (amzn-drivers) and in DPDK's.
"""

import csv
import importlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from golden_tables import FOLDER, WITNESSES, facts
from test_golden import wrong

from vfwire.layouts import ena_admin, ena_io, ena_messages, ena_registers

TABLES = {"ena_registers": 100, "ena_admin": 180, "ena_io": 110}
_HEADS = {  # structures whose head stands apart here: bytes to take off the header's offsets
    "CREATE_SQ_ANSWER": ena_messages.ACQ_ANSWER,
    "CREATE_CQ_ANSWER": ena_messages.ACQ_ANSWER,
    "LINK_CHANGE_EVENT": ena_messages.EVENT_DATA,
    "KEEP_ALIVE_EVENT": ena_messages.EVENT_DATA,
    "CONF_NOTIFICATIONS_EVENT": ena_messages.EVENT_DATA,
}
_RENAMED = {  # members of C unions, by the one name that they have here
    "u.control_buffer": "control_buffer",
    "accel_mode.u.get.supported_flags": "accel_flags",
    "accel_mode.u.get.max_tx_burst_size": "max_tx_burst_size",
}


class Place(NamedTuple):
    name: str
    field: str
    offset: int
    size: int


def places(witness: str) -> list[Place]:
    with (FOLDER / "ena_structures.csv").open(newline="") as file:
        return [
            Place(row["name"], row["field"], int(row[f"{witness}_offset"]), int(row[f"{witness}_size"]))
            for row in csv.DictReader(file)
            if row[f"{witness}_offset"]
        ]


@pytest.mark.parametrize("table", TABLES)
def test_constants_are_what_the_headers_say(table: str) -> None:
    module = importlib.import_module(f"vfwire.layouts.{table}")
    read = list(facts(table))
    assert len({fact.name for fact in read}) >= TABLES[table]
    assert {fact.witness for fact in read} == set(WITNESSES)
    assert wrong(module, read) == []


@pytest.mark.parametrize("table", TABLES)
def test_constants_are_plain_ints(table: str) -> None:
    module = importlib.import_module(f"vfwire.layouts.{table}")
    named = {name: value for name, value in vars(module).items() if name.isupper() and name[0] != "_"}
    odd = {name for name, value in named.items() if type(value) is not int}
    assert all(type(named[name]) in (dict, tuple) for name in odd)


def _ours(place: Place) -> tuple[int, int] | None:
    """Offset and size of the same field in our dtype or among ena_io's byte offsets; None where there is none."""
    dtype = getattr(ena_messages, place.name, None)
    if dtype is None:
        offset = 0 if not place.field else getattr(ena_io, f"{place.name}_{place.field.upper()}", None)
        return None if offset is None else (offset, place.size)
    head = _HEADS.get(place.name, 0)
    if not place.field:
        return 0, dtype.itemsize + head
    field = _RENAMED.get(place.field, place.field.removeprefix("max_queue_ext."))
    if field not in dtype.fields:
        return None
    kind, offset = dtype.fields[field]
    return offset + head, kind.itemsize


@pytest.mark.parametrize("witness", WITNESSES)
def test_structures_lie_as_the_headers_have_them(witness: str) -> None:
    read = places(witness)
    found = [(place, _ours(place)) for place in read]
    assert [p for p, ours in found if ours is not None and ours != (p.offset, p.size)] == []
    assert sum(ours is not None for _, ours in found) > 200


def test_no_field_of_ours_is_without_a_witness() -> None:
    witnessed: set[tuple[str, str]] = set()
    for place in places("linux"):
        field = _RENAMED.get(place.field, place.field.removeprefix("max_queue_ext."))
        witnessed.add((place.name, field))
    alone = [
        (name, field)
        for name, dtype in vars(ena_messages).items()
        if isinstance(dtype, np.dtype)
        for field in dtype.names or ()
        if (name, field) not in witnessed
    ]
    assert alone == [("LLQ_DESC", "accel_raw")]  # what is left of a union


def test_io_structures_have_their_headers_sizes() -> None:
    sizes = {place.name: place.size for place in places("linux") if not place.field}
    assert ena_io.TX_DESC_BYTES == sizes["TX_DESC"] == sizes["TX_META_DESC"]
    assert sizes["TX_CDESC"] == ena_io.TX_CDESC_BYTES
    assert sizes["RX_DESC"] == ena_io.RX_DESC_BYTES
    assert sizes["RX_CDESC_BASE"] == ena_io.RX_CDESC_BASE_BYTES


def test_entries_hold_what_is_put_into_them() -> None:
    answers = [
        *("CREATE_SQ_ANSWER", "CREATE_CQ_ANSWER", "DEVICE_ATTR", "MAX_QUEUES", "MAX_QUEUES_EXT", "LLQ_DESC"),
        *("LINK_DESC", "AENQ_DESC", "OFFLOAD", "HW_HINTS_DESC", "PHC_DESC", "BASIC_STATS", "ENI_STATS"),
        *("SRD_INFO", "IND_TABLE", "HASH_FUNCTION", "HASH_INPUT"),
    ]
    room = ena_messages.ACQ_ENTRY_BYTES - ena_messages.ACQ_ANSWER
    assert all(getattr(ena_messages, name).itemsize <= room for name in answers)
    assert ena_messages.FEATURE_CMD.itemsize == ena_messages.AQ_ENTRY_BYTES
    assert ena_messages.FEATURE_CMD.fields is not None
    assert ena_messages.FEATURE_CMD.fields["raw"][1] == ena_messages.FEATURE_DATA


def test_every_register_has_a_witness_and_is_decoded() -> None:
    witnessed = {fact.name for fact in facts("ena_registers")}
    assert {row.name for row in ena_registers.REGISTERS} <= witnessed
    decoded = {offset: ena_registers.decode(offset) for offset in range(-8, 0x1000)}
    assert {offset: found for offset, found in decoded.items() if found} == {
        row.offset: (row.name, 0) for row in ena_registers.REGISTERS
    }


def test_names_are_complete() -> None:
    """Each value of these kinds that a header has is named, and by its own name."""
    for prefix, names in (("GET_STATS_TYPE_", ena_admin.STATS_NAMES), ("LINK_SPEED_", ena_admin.LINK_SPEEDS)):
        assert {value for name, value in vars(ena_admin).items() if name.startswith(prefix)} == set(names)
    named: list[dict[int, str]] = [
        ena_admin.OPCODE_NAMES,
        ena_admin.STATUS_NAMES,
        ena_admin.FEATURE_NAMES,
        ena_admin.EVENT_NAMES,
    ]
    for names in named:
        assert all(getattr(ena_admin, name) == value for value, name in names.items())
    assert len(ena_admin.EVENT_NAMES) == ena_admin.AENQ_GROUPS_NUM
    reasons = {v for k, v in vars(ena_registers).items() if k.startswith("RESET_") and isinstance(v, int)}
    assert set(ena_registers.RESET_REASONS) == reasons


def test_bits_of_the_transmit_descriptor_do_not_overlap() -> None:
    def bits(names: tuple[str, ...]) -> Any:
        return [getattr(ena_io, f"TX_DESC_{name}_MASK") for name in names]

    first = bits(("LENGTH", "REQ_ID_HI", "META_DESC", "PHASE", "FIRST", "LAST", "COMP_REQ"))
    second = bits(("L3_PROTO_IDX", "DF", "TSO_EN", "L4_PROTO_IDX", "L3_CSUM_EN", "L4_CSUM_EN"))
    second += bits(("ETHERNET_FCS_DIS", "L4_CSUM_PARTIAL", "REQ_ID_LO"))
    for masks in (first, second):
        assert sum(masks) == int(np.bitwise_or.reduce(masks))
