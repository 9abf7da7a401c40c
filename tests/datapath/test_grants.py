"""Grants: what a domain permits is reached, and nothing else, whatever its table says."""

import ast
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath import grants
from vfwire.datapath.grants import (
    DOMAIN,
    GRANT_COPY,
    OWN,
    end_access,
    give_access,
    grant_copy,
    grant_map,
    grant_unmap,
)
from vfwire.layouts import xen_grant as layout
from vfwire.memory.compiled import compiled

DATAPATH = Path(grants.__file__).parent
PAGES = 6
ENTRIES = 1024
PERMIT, READONLY = 1, 4


@compiled
def copy_all(domains, operations, count):  # type: ignore[no-untyped-def]
    return grant_copy(domains, operations, count)


@compiled
def map_page(domains, index, ref):  # type: ignore[no-untyped-def]
    return grant_map(domains, index, ref)


@compiled
def unmap_page(domains, index, ref):  # type: ignore[no-untyped-def]
    grant_unmap(domains, index, ref)


@compiled
def give(table, ref, domid, frame, readonly):  # type: ignore[no-untyped-def]
    give_access(table, ref, domid, frame, readonly)


@compiled
def end(table, ref):  # type: ignore[no-untyped-def]
    return end_access(table, ref)


class Domain:
    """Two domains: pages and a table each, with a margin that nothing may touch."""

    def __init__(self) -> None:
        self.memory = np.zeros((2, PAGES + 2, 4096), np.uint8)
        self.memory[0], self.memory[1] = 0x11, 0x22
        self.tables = np.zeros((2, ENTRIES), np.uint64)
        self.domains: Any = np.zeros(2, DOMAIN).view(np.recarray)
        for number in range(2):
            self.domains[number].arena = self.memory[number, 1].ctypes.data
            self.domains[number].pages = PAGES
            self.domains[number].table = self.tables[number].ctypes.data
            self.domains[number].entries = ENTRIES
        self.own = np.full(8192, 0x33, np.uint8)
        self.operations: Any = np.zeros(4, GRANT_COPY).view(np.recarray)

    def entry(self, number: int, ref: int, flags: int, domid: int, frame: int) -> None:
        self.tables[number, ref] = flags | (domid << 16) | (frame << 32)

    def copy(self, source: tuple[int, int, int], dest: tuple[int, int, int], length: int) -> int:
        """One copy between (domain, reference or own offset, page offset) places; returns its status."""
        op = self.operations[0]
        for name, (domain, place, offset) in (("source", source), ("dest", dest)):
            own = self.own.ctypes.data + place
            op[name + "_domain"] = domain
            op[name] = own if domain == OWN else place
            op[name + "_offset"] = offset
        op.length = length
        op.prefix = 0
        failed = copy_all(self.domains.ctypes.data, self.operations.ctypes.data, 1)
        assert failed == (op.status != 0)
        return int(op.status)


@pytest.fixture
def domain() -> Iterator[Domain]:
    yield Domain()


def test_a_granted_page_can_be_copied_from_and_to(domain: Domain) -> None:
    domain.entry(0, 9, PERMIT, 0, 2)
    assert domain.copy((0, 9, 100), (OWN, 0, 0), 60) == layout.GNTST_OKAY
    assert (domain.own[:60] == 0x11).all() and (domain.own[60:] == 0x33).all()
    assert domain.copy((OWN, 4096, 0), (0, 9, 4000), 96) == layout.GNTST_OKAY
    assert (domain.memory[0, 3, 4000:] == 0x33).all()
    assert (domain.memory[0] == 0x33).sum() == 96
    assert domain.domains[0].bytes == 156 and domain.domains[0].refused == 0


def test_between_two_domains(domain: Domain) -> None:
    domain.entry(0, 1, PERMIT | READONLY, 0, 0)
    domain.entry(1, 2, PERMIT, 0, 5)
    assert domain.copy((0, 1, 0), (1, 2, 0), 4096) == layout.GNTST_OKAY
    assert (domain.memory[1, 6] == 0x11).all() and (domain.memory[1] == 0x11).sum() == 4096


@pytest.mark.parametrize(
    ("flags", "domid", "frame", "status"),
    [
        (0, 0, 1, layout.GNTST_BAD_GNTREF),  # revoked, or never given
        (2, 0, 1, layout.GNTST_BAD_GNTREF),  # a transfer
        (3, 0, 1, layout.GNTST_BAD_GNTREF),  # transitive
        (PERMIT | 0x100, 0, 1, layout.GNTST_BAD_GNTREF),  # version 2's sub-page
        (PERMIT, 7, 1, layout.GNTST_BAD_DOMAIN),  # somebody else's
        (PERMIT | READONLY, 0, 1, layout.GNTST_PERMISSION_DENIED),
        (PERMIT, 0, PAGES, layout.GNTST_BAD_PAGE),
        (PERMIT, 0, 0xFFFF_FFFF, layout.GNTST_BAD_PAGE),
        (PERMIT, 0, 0x8000_0000, layout.GNTST_BAD_PAGE),
    ],
)
def test_what_is_not_granted_is_not_written(
    domain: Domain, flags: int, domid: int, frame: int, status: int
) -> None:
    domain.entry(0, 3, flags, domid, frame)
    assert domain.copy((OWN, 0, 0), (0, 3, 0), 64) == status
    assert (domain.memory[0] == 0x11).all()
    assert domain.domains[0].refused == 1
    assert domain.operations[0].side == grants.DEST
    if status != layout.GNTST_PERMISSION_DENIED:
        assert domain.copy((0, 3, 0), (OWN, 0, 0), 64) == status
        assert (domain.own == 0x33).all()
        assert domain.operations[0].side == grants.SOURCE


def test_reading_a_read_only_page_is_fine(domain: Domain) -> None:
    domain.entry(0, 3, PERMIT | READONLY, 0, 1)
    assert domain.copy((0, 3, 0), (OWN, 0, 0), 64) == layout.GNTST_OKAY


@pytest.mark.parametrize(
    ("offset", "length"),
    [(4095, 2), (0, 4097), (-1, 10), (4096, 1), (0, 0), (10, -1), (65535, 65535)],
)
def test_a_copy_stays_inside_one_page(domain: Domain, offset: int, length: int) -> None:
    domain.entry(0, 3, PERMIT, 0, 1)
    assert domain.copy((0, 3, offset), (OWN, 0, 0), length) == layout.GNTST_BAD_COPY_ARG
    assert domain.copy((OWN, 0, 0), (0, 3, offset), length) == layout.GNTST_BAD_COPY_ARG
    assert (domain.memory[0] == 0x11).all() and (domain.own == 0x33).all()


@pytest.mark.parametrize("ref", [-1, ENTRIES, 0xFFFF_FFFF])
def test_a_reference_outside_of_the_table(domain: Domain, ref: int) -> None:
    assert domain.copy((0, ref, 0), (OWN, 0, 0), 64) == layout.GNTST_BAD_GNTREF


def test_one_bad_operation_does_not_hold_up_the_others(domain: Domain) -> None:
    domain.entry(0, 1, PERMIT, 0, 0)
    for i, ref in enumerate((1, 2, 1)):
        op = domain.operations[i]
        op.source_domain, op.source, op.source_offset = 0, ref, 0
        op.dest_domain, op.dest, op.length, op.prefix = OWN, domain.own.ctypes.data + 100 * i, 10, 0
    assert copy_all(domain.domains.ctypes.data, domain.operations.ctypes.data, 3) == 1
    assert [int(op.status) for op in domain.operations[:3]] == [0, layout.GNTST_BAD_GNTREF, 0]
    assert (domain.own == 0x11).sum() == 20


def test_the_prefix_comes_from_own_memory(domain: Domain) -> None:
    domain.entry(0, 1, PERMIT, 0, 0)
    op = domain.operations[0]
    op.source_domain, op.source, op.source_offset = 0, 1, 0
    op.dest_domain, op.dest, op.length = OWN, domain.own.ctypes.data, 40
    op.prefix = domain.own.ctypes.data + 4096
    domain.own[4096:4112] = 0x44
    assert copy_all(domain.domains.ctypes.data, domain.operations.ctypes.data, 1) == 0
    assert (domain.own[:16] == 0x44).all() and (domain.own[16:40] == 0x11).all()


def test_a_mapping_is_marked_until_it_ends(domain: Domain) -> None:
    table = domain.tables[0].ctypes.data
    give(table, 5, 0, 2, False)
    assert map_page(domain.domains.ctypes.data, 0, 5) == domain.memory[0, 3].ctypes.data
    assert domain.tables[0, 5] == PERMIT | 0x18 | (2 << 32)  # GTF_reading and GTF_writing
    give(table, 6, 0, 3, False)
    assert end(table, 6)
    unmap_page(domain.domains.ctypes.data, 0, 5)
    assert domain.tables[0, 5] == PERMIT | (2 << 32)
    map_page(domain.domains.ctypes.data, 0, 5)
    assert not end(table, 5)
    assert domain.tables[0, 5] == 0


def test_a_read_only_page_is_not_mapped_for_writing(domain: Domain) -> None:
    give(domain.tables[0].ctypes.data, 5, 0, 2, True)
    assert map_page(domain.domains.ctypes.data, 0, 5) == layout.GNTST_PERMISSION_DENIED
    assert domain.tables[0, 5] == PERMIT | READONLY | (2 << 32)


def reference(entry: int, ref: int, offset: int, length: int, write: bool) -> bool:
    """What Xen permits, written down a second time."""
    flags, domid, frame = entry & 0xFFFF, entry >> 16 & 0xFFFF, entry >> 32
    return (
        0 <= ref < ENTRIES
        and flags & 0x103 == 1
        and domid == 0
        and not (write and flags & 4)
        and frame < PAGES
        and length > 0
        and offset + length <= 4096
    )


ENTRY = st.one_of(
    st.integers(0, 2**64 - 1),
    st.builds(
        lambda flags, frame: flags | frame << 32,
        st.sampled_from([0, 1, 5, 2, 3, 0x101, 0x19]),
        st.integers(0, PAGES + 1),
    ),
)


@given(
    ENTRY,
    st.integers(0, ENTRIES + 3),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.booleans(),
    st.booleans(),
)
def test_any_entry(entry: int, ref: int, offset: int, length: int, write: bool, small: bool) -> None:
    if small:
        offset, length = offset % 4096, length % 200
    domain = Domain()
    domain.tables[0, ref % ENTRIES] = entry
    there, here = (0, ref, offset), (OWN, 0, 0)
    allowed = reference(entry if ref < ENTRIES else 0, ref, offset, length, write)
    status = domain.copy(here, there, length) if write else domain.copy(there, here, length)
    assert (status == 0) == allowed
    frame = entry >> 32
    changed = np.argwhere(domain.memory[0].reshape(-1) != 0x11).reshape(-1)
    if allowed and write:
        start = (1 + frame) * 4096 + offset
        assert changed.tolist() == list(range(start, start + length))
    else:
        assert not len(changed)
    assert (domain.memory[1] == 0x22).all()
    assert (domain.own == 0x11).sum() == (length if allowed and not write else 0)


def words_imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vfwire.memory"):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import | ast.Attribute):
            names = [node.attr] if isinstance(node, ast.Attribute) else [a.name for a in node.names]
            assert not {"ctypes", "from_address", "words"} & set(names), path
    return found


@pytest.mark.parametrize(
    "name", ["netback.py", "netback_requests.py", "netback_uplink.py", "netback_move.py"]
)
def test_netback_has_no_other_way_to_memory(name: str) -> None:
    """The loops that hold frame numbers and references import nothing that reads or writes at an address; and
    the address of a domain's arena is known to the grants alone.
    """
    harmless = {"compiled", "inlined", "clock_ns", "fence", "prefetch", "signal_eventfd", "yield_core"}
    assert words_imported(DATAPATH / name) <= harmless
    source = (DATAPATH / name).read_text()
    assert ".arena" not in source and ".table +" not in source


def test_only_grants_know_where_a_domain_lies() -> None:
    users = [path.name for path in DATAPATH.glob("*.py") if ".arena" in path.read_text()]
    assert users == ["grants.py"]


def test_entry_is_eight_bytes_in_one_store() -> None:
    table = (ctypes.c_uint8 * 64)()
    give(ctypes.addressof(table), 3, 0x1234, 0x0BADF00D, True)
    assert bytes(table) == bytes(24) + bytes.fromhex("0500 3412 0df0ad0b") + bytes(32)
