"""Xen's grants: how a domain lets the layer reach some of its pages, and how the layer is held to that.

Two steps keep a layer out of a system's memory. The first is the kernel's: a system hands over one
descriptor, the memfd of its pool (buffers, rings, grant table), which the layer maps; nothing else of that
process exists for the layer. The second is `grant_copy` and `grant_map` below, which stand where Xen's
hypercalls of those names stand. They are the only code of the layer that turns a frame number into an address
of that mapping, and they check each use against the entry as it is at that moment: its type, the domain it
names, read-only, the frame's number, and the range within one page. A test holds that netback has no other
way (tests/datapath/test_grants.py).

Xen marks an entry GTF_reading or GTF_writing while in use, because a page that a guest takes back may go
to another guest. Here the memory stays that system's own, so only mappings, which last, are marked. For copies
the two locked instructions would buy nothing: a frontend takes an entry back when it has the response, which
is written after the copy. A page is Xen's grain: buffers that share one are opened together, so netfront's
are pages of their own.
"""

import numpy as np

from vfwire.layouts.xen_grant import (
    DOMID_MASK,
    DOMID_SHIFT,
    ENTRY_BYTES,
    FLAGS_MASK,
    FRAME_MASK,
    FRAME_SHIFT,
    GNTST_BAD_COPY_ARG,
    GNTST_BAD_DOMAIN,
    GNTST_BAD_GNTREF,
    GNTST_BAD_PAGE,
    GNTST_OKAY,
    GNTST_PERMISSION_DENIED,
    GTF_PERMIT_ACCESS,
    GTF_READING,
    GTF_READONLY,
    GTF_SUB_PAGE,
    GTF_TYPE_MASK,
    GTF_WRITING,
)
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.records import record_at
from vfwire.memory.words import copy, fetch_and64, fetch_or64, load64, prefetch, store64

PREFIX = 16
OWN = -1  # source_domain, dest_domain of a GRANT_COPY: this process's own memory

SOURCE, DEST = 1, 2

DOMAIN = np.dtype(
    [
        ("arena", "i8"),  # where its memory is mapped here
        ("pages", "i8"),  # of 4 KiB, that it has
        ("table", "i8"),  # where its grant table is mapped here
        ("entries", "i8"),  # that the table has
        ("grantee", "i8"),  # the domain id that its grants must name: the layer's own
        ("refused", "i8"),  # accesses that a check stopped
        ("bytes", "i8"),  # copied from and to its pages
    ],
    align=True,
)

GRANT_COPY = np.dtype(
    [
        ("source_domain", "i8"),  # an index into the DOMAIN array, or OWN
        ("source", "i8"),  # a grant reference, or an own address
        ("source_offset", "i8"),  # in the page; of no meaning for OWN
        ("dest_domain", "i8"),
        ("dest", "i8"),
        ("dest_offset", "i8"),
        ("length", "i8"),
        (
            "prefix",
            "i8",
        ),  # address of PREFIX bytes in own memory that stand for the first of the source, or 0: they
        # have been fetched and looked at, and must not change any more
        ("status", "i8"),  # GNTST_*
        ("side", "i8"),  # which check failed: SOURCE, DEST
    ],
    align=True,
)

_domain_at = record_at(DOMAIN)
_copy_at = record_at(GRANT_COPY)
_DOMAIN_BYTES = DOMAIN.itemsize
_COPY_BYTES = GRANT_COPY.itemsize


@inlined
def give_access(table, ref, domid, frame, readonly):  # type: ignore[no-untyped-def]
    """Frontend: let domain `domid` reach page `frame` by reference `ref`.

    One store: no half-made entry is ever seen.
    """
    flags = GTF_PERMIT_ACCESS | GTF_READONLY if readonly else GTF_PERMIT_ACCESS
    store64(table + ref * ENTRY_BYTES, flags | (domid << DOMID_SHIFT) | (frame << FRAME_SHIFT))


@inlined
def end_access(table, ref):  # type: ignore[no-untyped-def]
    """Frontend: take it back.

    Returns False when the page is still mapped by the other side; the entry is gone anyhow.
    """
    marks = load64(table + ref * ENTRY_BYTES) & (GTF_READING | GTF_WRITING)
    store64(table + ref * ENTRY_BYTES, 0)
    return marks == 0


@inlined
def _resolve(domain, ref, offset, length, write):  # type: ignore[no-untyped-def]
    """The address at which `length` bytes at `offset` of the granted page lie here, or a negative GNTST_*."""
    if ref < 0 or ref >= domain.entries:
        return GNTST_BAD_GNTREF
    entry = load64(domain.table + ref * ENTRY_BYTES)
    flags = entry & FLAGS_MASK
    if flags & (GTF_TYPE_MASK | GTF_SUB_PAGE) != GTF_PERMIT_ACCESS:
        return GNTST_BAD_GNTREF
    if (entry >> DOMID_SHIFT) & DOMID_MASK != domain.grantee:
        return GNTST_BAD_DOMAIN
    if write and flags & GTF_READONLY:
        return GNTST_PERMISSION_DENIED
    frame = (entry >> FRAME_SHIFT) & FRAME_MASK
    if frame >= domain.pages:
        return GNTST_BAD_PAGE
    if offset < 0 or length < 1 or offset + length > PAGE_BYTES:
        return GNTST_BAD_COPY_ARG
    return domain.arena + frame * PAGE_BYTES + offset


@inlined
def _checked(domains, index, place, offset, length, write):  # type: ignore[no-untyped-def]
    if index == OWN:
        return place
    domain = _domain_at(domains + index * _DOMAIN_BYTES)
    address = _resolve(domain, place, offset, length, write)
    if address < 0:
        domain.refused += 1
    else:
        domain.bytes += length
    return address


@inlined
def _move(to, source, count):  # type: ignore[no-untyped-def]
    """Copy. Headers and small frames by moves of fixed size, which may overlap: a third of a call of memcpy."""
    if 32 <= count <= 64:
        copy(to, source, 32)
        copy(to + count - 32, source + count - 32, 32)
    elif count == PREFIX:
        copy(to, source, PREFIX)
    else:
        copy(to, source, count)


@inlined
def grant_copy(domains, operations, count):  # type: ignore[no-untyped-def]
    """GNTTABOP_copy: `count` operations, of GRANT_COPY[...] at an address; each gets its own status.

    domains: address of DOMAIN[...].

    The first pass checks all and starts to bring in what will be read, so that the misses of a batch overlap.
    Returns how many failed.
    """
    failed = 0
    for i in range(count):
        op = _copy_at(operations + i * _COPY_BYTES)
        source = _checked(domains, op.source_domain, op.source, op.source_offset, op.length, False)
        if source < 0:
            op.status = source
            op.side = SOURCE
            failed += 1
            continue
        dest = _checked(domains, op.dest_domain, op.dest, op.dest_offset, op.length, True)
        if dest < 0:
            op.status = dest
            op.side = DEST
            failed += 1
            continue
        op.status = GNTST_OKAY
        op.source = source
        op.dest = dest
        prefetch(source)
    for i in range(count):
        op = _copy_at(operations + i * _COPY_BYTES)
        if op.status != GNTST_OKAY:
            continue
        done = 0
        if op.prefix != 0:
            done = min(op.length, PREFIX)
            _move(op.dest, op.prefix, done)
        _move(op.dest + done, op.source + done, op.length - done)
    return failed


@inlined
def grant_map(domains, index, ref):  # type: ignore[no-untyped-def]
    """GNTTABOP_map_grant_ref, for writing: the page's address here, or a negative GNTST_*.

    `grant_unmap` ends it.
    """
    domain = _domain_at(domains + index * _DOMAIN_BYTES)
    address = _resolve(domain, ref, 0, PAGE_BYTES, True)
    if address < 0:
        domain.refused += 1
        return address
    fetch_or64(domain.table + ref * ENTRY_BYTES, GTF_READING | GTF_WRITING)
    return address


@inlined
def grant_unmap(domains, index, ref):  # type: ignore[no-untyped-def]
    domain = _domain_at(domains + index * _DOMAIN_BYTES)
    if ref >= 0 and ref < domain.entries:
        fetch_and64(domain.table + ref * ENTRY_BYTES, ~(GTF_READING | GTF_WRITING))
