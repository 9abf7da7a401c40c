"""Xen's grant table, version 1: which pages a domain lets which other domain reach.

Source: Xen public headers, grant_table.h (struct grant_entry_v1, GTF_*, GNTST_*). An entry is 8 bytes,
little-endian, so that one 64-bit access takes or gives all of it: flags in bits 0-15, domid in 16-31, frame
in 32-63.
"""

ENTRY_FLAGS = 0  # u16: GTF_*
ENTRY_DOMID = 2  # u16: the domain that may reach the page
ENTRY_FRAME = 4  # u32: the page, by number
ENTRY_BYTES = 8
ENTRIES_PER_PAGE = 4096 // ENTRY_BYTES

DOMID_SHIFT = 16
FRAME_SHIFT = 32
DOMID_MASK = 0xFFFF
FRAME_MASK = 0xFFFF_FFFF
FLAGS_MASK = 0xFFFF

GTF_INVALID = 0
GTF_PERMIT_ACCESS = 1
GTF_ACCEPT_TRANSFER = 2
GTF_TRANSITIVE = 3
GTF_TYPE_MASK = 3
GTF_READONLY = 1 << 2
GTF_READING = 1 << 3  # set by the hypervisor while it is mapped or copied from
GTF_WRITING = 1 << 4
GTF_SUB_PAGE = 1 << 8  # version 2 only

RESERVED_ENTRIES = 8  # GNTTAB_NR_RESERVED_ENTRIES: the toolstack's own

DOMID_0 = 0
DOMID_FIRST_RESERVED = 0x7FF0

GNTST_OKAY = 0
GNTST_GENERAL_ERROR = -1
GNTST_BAD_DOMAIN = -2
GNTST_BAD_GNTREF = -3
GNTST_PERMISSION_DENIED = -8
GNTST_BAD_PAGE = -9
GNTST_BAD_COPY_ARG = -10
