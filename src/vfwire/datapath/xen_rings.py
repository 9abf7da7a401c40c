"""Xen's shared rings in memory: what frontend and backend do with indices and entries (io/ring.h,
io/netif.h).

`ring` is the address at which the page is mapped here. Indices given may be of any width; 32 bits go to the
page.
What is read out of a page may have been written by the other side at any moment: each word is fetched once.
"""

from vfwire.layouts.xen_netif import (
    RX_ENTRY_BYTES,
    RX_RING_SIZE,
    TX_ENTRY_BYTES,
    TX_RING_SIZE,
    TXREQ_ID,
    TXREQ_OFFSET,
)
from vfwire.layouts.xen_ring import (
    ENTRIES,
    FIRST_EVENT,
    INDEX_MASK,
    REQ_EVENT,
    REQ_PROD,
    RSP_EVENT,
    RSP_PROD,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.words import fence, load32, load64, store32, store64

_TX_MASK = TX_RING_SIZE - 1
_RX_MASK = RX_RING_SIZE - 1
_SIGN16 = 0x8000


@inlined
def init_ring(ring):  # type: ignore[no-untyped-def]
    """SHARED_RING_INIT, by the frontend."""
    store32(ring + REQ_PROD, 0)
    store32(ring + RSP_PROD, 0)
    store32(ring + REQ_EVENT, FIRST_EVENT)
    store32(ring + RSP_EVENT, FIRST_EVENT)


@inlined
def requests_after(ring, consumed):  # type: ignore[no-untyped-def]
    """How many requests the frontend says there are after `consumed`: 0 to 2**32 - 1, to be checked by the
    caller.
    """
    return (load32(ring + REQ_PROD) - consumed) & INDEX_MASK


@inlined
def responses_after(ring, consumed):  # type: ignore[no-untyped-def]
    """How many responses the backend says there are after `consumed`, to be checked by the caller."""
    return (load32(ring + RSP_PROD) - consumed) & INDEX_MASK


@inlined
def push_requests(ring, old, new):  # type: ignore[no-untyped-def]
    """Publish requests up to `new` (`old` were before); True when the backend wants to be woken.

    The full fence is what keeps a sleeper from being missed: either it sees the new index in its last look,
    or its event index is seen here.
    """
    store32(ring + REQ_PROD, new & INDEX_MASK)
    fence()
    return ((new - load32(ring + REQ_EVENT)) & INDEX_MASK) < ((new - old) & INDEX_MASK)


@inlined
def push_responses(ring, old, new):  # type: ignore[no-untyped-def]
    """Publish responses up to `new` (`old` were before); True when the frontend wants to be woken."""
    store32(ring + RSP_PROD, new & INDEX_MASK)
    fence()
    return ((new - load32(ring + RSP_EVENT)) & INDEX_MASK) < ((new - old) & INDEX_MASK)


@inlined
def want_request_event(ring, index):  # type: ignore[no-untyped-def]
    """The backend is to be woken when request `index` has been made.

    Look at the ring once more after a fence.
    """
    store32(ring + REQ_EVENT, index & INDEX_MASK)


@inlined
def want_response_event(ring, index):  # type: ignore[no-untyped-def]
    """The frontend is to be woken when response `index` has been made.

    Look at the ring once more after a fence.
    """
    store32(ring + RSP_EVENT, index & INDEX_MASK)


@inlined
def write_tx_request(ring, index, gref, offset, flags, ident, size):  # type: ignore[no-untyped-def]
    entry = ring + ENTRIES + (index & _TX_MASK) * TX_ENTRY_BYTES
    store32(entry, gref)
    store32(entry + TXREQ_OFFSET, offset | (flags << 16))
    store32(entry + TXREQ_ID, ident | (size << 16))


@inlined
def read_tx_request(ring, index):  # type: ignore[no-untyped-def]
    """(gref, offset, flags, id, size)"""
    entry = ring + ENTRIES + (index & _TX_MASK) * TX_ENTRY_BYTES
    gref = load32(entry)
    place = load32(entry + TXREQ_OFFSET)
    what = load32(entry + TXREQ_ID)
    return gref, place & 0xFFFF, (place >> 16) & 0xFFFF, what & 0xFFFF, (what >> 16) & 0xFFFF


@inlined
def write_tx_response(ring, index, ident, status):  # type: ignore[no-untyped-def]
    store32(ring + ENTRIES + (index & _TX_MASK) * TX_ENTRY_BYTES, ident | ((status & 0xFFFF) << 16))


@inlined
def read_tx_response(ring, index):  # type: ignore[no-untyped-def]
    """(id, status)"""
    word = load32(ring + ENTRIES + (index & _TX_MASK) * TX_ENTRY_BYTES)
    return word & 0xFFFF, (((word >> 16) & 0xFFFF) ^ _SIGN16) - _SIGN16


@inlined
def write_rx_request(ring, index, ident, gref):  # type: ignore[no-untyped-def]
    store64(ring + ENTRIES + (index & _RX_MASK) * RX_ENTRY_BYTES, ident | (gref << 32))


@inlined
def read_rx_request(ring, index):  # type: ignore[no-untyped-def]
    """(id, gref)"""
    word = load64(ring + ENTRIES + (index & _RX_MASK) * RX_ENTRY_BYTES)
    return word & 0xFFFF, (word >> 32) & 0xFFFF_FFFF


@inlined
def rx_response(ident, offset, flags, status):  # type: ignore[no-untyped-def]
    """A receive response as one word: never 0 for a frame."""
    return ident | (offset << 16) | (flags << 32) | (status << 48)


@inlined
def write_rx_response(ring, index, response):  # type: ignore[no-untyped-def]
    store64(ring + ENTRIES + (index & _RX_MASK) * RX_ENTRY_BYTES, response)


@inlined
def read_rx_response(ring, index):  # type: ignore[no-untyped-def]
    """(id, offset, flags, status)"""
    word = load64(ring + ENTRIES + (index & _RX_MASK) * RX_ENTRY_BYTES)
    return word & 0xFFFF, (word >> 16) & 0xFFFF, (word >> 32) & 0xFFFF, word >> 48
