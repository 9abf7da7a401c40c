"""Netfront's loops: a system's two rings with its virtualization layer (io/netif.h; Linux xen-netfront.c).

A frame is one request with one granted page. Each grant is given with its request and taken back with its
response, as stock netfronts do. The layer is not trusted: an index beyond the ring marks the queue broken for
good; an id that is not on its way, an offset or a size beyond the page is an error and never an address.

What a queue's `context` points to (int64 each): the grant table, the first reference of the queue's own, the
arena, 1 when the queue is broken, and for transmit the free ids, a circle so that grant entries are used in
order.
Offloads: an IPv4 header checksum is computed here, for Xen has no flag for it; TCP and UDP checksums are left
blank for the layer (NETTXF_csum_blank). VLAN tags and segmentation are not Xen's: such frames are refused and
counted.
"""

from vfwire.datapath.grants import end_access, give_access
from vfwire.datapath.netback_checksum import complete_ipv4_header
from vfwire.datapath.port import (
    RX_L4_GOOD,
    TX_IP_CHECKSUM,
    TX_MORE,
    TX_SEGMENT,
    TX_TCP_CHECKSUM,
    TX_UDP_CHECKSUM,
    TX_VLAN,
    give,
)
from vfwire.datapath.xen_rings import (
    init_ring,
    push_requests,
    read_rx_response,
    read_tx_response,
    responses_after,
    want_response_event,
    write_rx_request,
    write_tx_request,
)
from vfwire.layouts.xen_grant import DOMID_0
from vfwire.layouts.xen_netif import (
    NETIF_RSP_OKAY,
    NETRXF_CSUM_BLANK,
    NETRXF_DATA_VALIDATED,
    NETTXF_CSUM_BLANK,
    NETTXF_DATA_VALIDATED,
)
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import fence, load64, signal_eventfd, store64

CTX_TABLE = 0
CTX_FIRST_REF = 8
CTX_ARENA = 16
CTX_BROKEN = 24
CTX_FREE_HEAD = 32  # free ids: ids[head], ids[head + 1] ... up to tail, free-running
CTX_FREE_TAIL = 40
CTX_IDS = 64
CTX_BYTES = CTX_IDS + 256 * 8

REFILL = 32  # receive requests that are pushed at once: a fence each time
_PAGE_SHIFT = 12
_SHORTEST = 14
_NOT_XENS = TX_VLAN | TX_SEGMENT
_L4 = TX_TCP_CHECKSUM | TX_UDP_CHECKSUM


@inlined
def _broken(queue):  # type: ignore[no-untyped-def]
    store64(queue.context + CTX_BROKEN, 1)
    queue.errors += 1


@inlined
def _responses(queue):  # type: ignore[no-untyped-def]
    """Responses to be taken; 0 for ever once the layer has claimed more than was asked for."""
    pending = responses_after(queue.ring, queue.head)
    if pending > queue.tail - queue.head:
        if load64(queue.context + CTX_BROKEN) == 0:
            _broken(queue)
        return 0
    if load64(queue.context + CTX_BROKEN) != 0:
        return 0
    return pending


@inlined
def _take_back(queue, ident):  # type: ignore[no-untyped-def]
    """End the grant of request `ident`; returns its buffer, or 0 for an id that is not on its way."""
    if ident >= queue.size:
        return 0
    slot = queue.slots + ident * 8
    buffer = load64(slot)
    if buffer != 0:
        store64(slot, 0)
        end_access(load64(queue.context), load64(queue.context + CTX_FIRST_REF) + ident)
    return buffer


@inlined
def _grant(queue, ident, address, readonly):  # type: ignore[no-untyped-def]
    """Lend the page of a buffer; returns the reference."""
    context = queue.context
    ref = load64(context + CTX_FIRST_REF) + ident
    frame = (address - load64(context + CTX_ARENA)) >> _PAGE_SHIFT
    store64(queue.slots + ident * 8, address)
    give_access(load64(context), ref, DOMID_0, frame, readonly)
    return ref


@inlined
def _refill(queue, pool, stack):  # type: ignore[no-untyped-def]
    """Ask for as many frames as there are free slots and buffers."""
    room = queue.size - (queue.tail - queue.head)
    if room < REFILL or load64(queue.context + CTX_BROKEN) != 0:
        return
    count = min(room, pool.free)
    if count < room:
        pool.failed += 1
    if count == 0:
        return
    old = queue.tail
    for index in range(old, old + count):
        ident = index & (queue.size - 1)
        pool.free -= 1
        ref = _grant(queue, ident, stack[pool.free], False)
        write_rx_request(queue.ring, index, ident, ref)
    queue.tail = old + count
    if push_requests(queue.ring, old, queue.tail):
        queue.notified += 1
        signal_eventfd(queue.event)


@inlined
def netfront_receive(queue, pool, stack, frames, limit):  # type: ignore[no-untyped-def]
    """See verbs.receive.

    Errors of single frames are counted and skipped; each response must be in its request's slot.
    """
    count = min(_responses(queue), limit)
    taken = 0
    for index in range(queue.head, queue.head + count):
        ident, offset, flags, status = read_rx_response(queue.ring, index)
        if ident != index & (queue.size - 1):
            _broken(queue)
            return taken
        buffer = _take_back(queue, ident)
        queue.head = index + 1
        plain = flags & ~(NETRXF_DATA_VALIDATED | NETRXF_CSUM_BLANK) == 0
        if status < _SHORTEST or offset + status > PAGE_BYTES or not plain:
            queue.errors += 1
            give(pool, stack, buffer)
            continue
        frame = frames[taken]
        frame.address = buffer + offset
        frame.length = status
        frame.flags = 0
        if flags & (NETRXF_DATA_VALIDATED | NETRXF_CSUM_BLANK) == NETRXF_DATA_VALIDATED:
            frame.flags = RX_L4_GOOD
        queue.bytes += status
        taken += 1
    queue.frames += taken
    _refill(queue, pool, stack)
    return taken


@inlined
def _collect(queue, pool, stack):  # type: ignore[no-untyped-def]
    """Take back the buffers of all frames that the layer has answered, in whatever order it did."""
    count = _responses(queue)
    context = queue.context
    tail = load64(context + CTX_FREE_TAIL)
    for index in range(queue.head, queue.head + count):
        ident, status = read_tx_response(queue.ring, index)
        buffer = _take_back(queue, ident)
        if buffer == 0:
            _broken(queue)
            break
        give(pool, stack, buffer)
        store64(context + CTX_IDS + (tail & (queue.size - 1)) * 8, ident)
        tail += 1
        queue.head = index + 1
        if status != NETIF_RSP_OKAY:
            queue.errors += 1
    store64(context + CTX_FREE_TAIL, tail)


@inlined
def _is_sendable(pool, frame):  # type: ignore[no-untyped-def]
    """One buffer, inside one page, of a length that the ring can say; nothing asked for that Xen has not."""
    offset = (frame.address - pool.first) & (PAGE_BYTES - 1)
    return frame.length >= _SHORTEST and offset + frame.length <= PAGE_BYTES and frame.flags & _NOT_XENS == 0


@inlined
def netfront_transmit(queue, pool, stack, frames, start, count):  # type: ignore[no-untyped-def]
    """See verbs.transmit.

    A frame that cannot be sent at all is taken, counted as an error, and its buffer given back.
    """
    _collect(queue, pool, stack)
    room = queue.size - (queue.tail - queue.head)
    if load64(queue.context + CTX_BROKEN) != 0:
        room = 0
    if count > room:
        queue.full += 1
        count = room
    if count <= 0:
        return 0
    context = queue.context
    free = load64(context + CTX_FREE_HEAD)
    old = queue.tail
    index = old
    for i in range(start, start + count):
        frame = frames[i]
        address = frame.address
        length = frame.length
        more = frame.flags & TX_MORE
        if more or queue.mark or not _is_sendable(pool, frame):
            queue.mark = more  # a frame in several buffers goes as a whole
            queue.errors += 1
            give(pool, stack, address)
            continue
        flags = 0
        if frame.flags & TX_IP_CHECKSUM:
            complete_ipv4_header(address, length)
        if frame.flags & _L4:
            flags = NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED
        ident = load64(context + CTX_IDS + (free & (queue.size - 1)) * 8)
        free += 1
        ref = _grant(queue, ident, address, True)
        write_tx_request(queue.ring, index, ref, address & (PAGE_BYTES - 1), flags, ident, length)
        index += 1
        queue.bytes += length
    store64(context + CTX_FREE_HEAD, free)
    queue.frames += index - old
    queue.tail = index
    if index != old and push_requests(queue.ring, old, index):
        queue.notified += 1
        signal_eventfd(queue.event)
    return count


@compiled
def receive_burst(queues, number, pools, stack, frames, limit):  # type: ignore[no-untyped-def]
    """`netfront_receive` for Python."""
    return netfront_receive(queues[number], pools[0], stack, frames, limit)


@compiled
def transmit_burst(queues, number, pools, stack, frames, start, count):  # type: ignore[no-untyped-def]
    """`netfront_transmit` for Python."""
    return netfront_transmit(queues[number], pools[0], stack, frames, start, count)


@compiled
def arm_responses(rxs, txs, sent):  # type: ignore[no-untyped-def]
    """Ask for an event with the next received frame and, if `sent`, with the next frame that was sent.

    Returns how many responses there are already: then there may be no event to wait for.
    """
    rx, tx = rxs[0], txs[0]
    want_response_event(rx.ring, rx.head + 1)
    if sent:
        want_response_event(tx.ring, tx.head + 1)
    fence()
    there = responses_after(rx.ring, rx.head)
    if sent:
        there += responses_after(tx.ring, tx.head)
    return there


@compiled
def disarm_responses(rxs, txs):  # type: ignore[no-untyped-def]
    """Ask for no events: an event index that has been passed is met again only after 2**32 responses."""
    rx, tx = rxs[0], txs[0]
    want_response_event(rx.ring, rx.head)
    want_response_event(tx.ring, tx.head)


@compiled
def take_all_back(queues, number, pools, stack):  # type: ignore[no-untyped-def]
    """The layer is gone: end every grant, and give all buffers back."""
    queue, pool = queues[number], pools[0]
    for ident in range(queue.size):
        buffer = _take_back(queue, ident)
        if buffer != 0:
            give(pool, stack, buffer)
    store64(queue.context + CTX_BROKEN, 1)


@compiled
def open_rings(tx_ring, tx_ref, rx_ring, rx_ref, table, arena):  # type: ignore[no-untyped-def]
    """New rings in two pages, granted to the layer by these references."""
    init_ring(tx_ring)
    init_ring(rx_ring)
    give_access(table, tx_ref, DOMID_0, (tx_ring - arena) >> _PAGE_SHIFT, False)
    give_access(table, rx_ref, DOMID_0, (rx_ring - arena) >> _PAGE_SHIFT, False)


@compiled
def close_rings(table, tx_ref, rx_ref):  # type: ignore[no-untyped-def]
    """Take the ring pages back; False when the layer still has one of them mapped."""
    tx_free = end_access(table, tx_ref)
    return end_access(table, rx_ref) and tx_free


@compiled
def fill_receive_ring(queues, number, pools, stack):  # type: ignore[no-untyped-def]
    """Ask for the first frames."""
    _refill(queues[number], pools[0], stack)
