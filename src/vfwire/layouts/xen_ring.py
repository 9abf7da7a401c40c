"""Xen's shared rings: one page that holds four indices and the entries that requests and responses share.

Source: Xen public headers, io/ring.h (struct name##_sring, RING_SIZE, the *_AND_CHECK_NOTIFY macros). Offsets
and sizes in bytes. Indices are free-running and 32 bits wide; an entry's slot is its index modulo the ring's
size.
"""

PAGE_BYTES = 4096  # XEN_PAGE_SIZE: rings and grants have 4 KiB pages on every architecture

REQ_PROD = 0  # written by the frontend: requests made so far
REQ_EVENT = 4  # written by the backend: wake me when req_prod passes this
RSP_PROD = 8  # written by the backend: responses made so far
RSP_EVENT = 12  # written by the frontend: wake me when rsp_prod passes this
ENTRIES = 64  # of entry 0; 48 bytes of padding lie between

INDEX_MASK = 0xFFFF_FFFF
FIRST_EVENT = 1  # req_event and rsp_event of a new ring (SHARED_RING_INIT)


def ring_entries(entry_bytes: int) -> int:
    """How many entries of a size a ring page holds: as many as fit, rounded down to a power of two."""
    return 1 << ((PAGE_BYTES - ENTRIES) // entry_bytes).bit_length() - 1
