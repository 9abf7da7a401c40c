"""A burst of what a vif sends: up to BURST requests taken, their frames fetched and sent on, the requests answered.

Frames of a vif whose last one went to the uplink are fetched whole, into buffers that the uplink then sends. Of others
only the first 16 bytes are fetched to decide by, and the frame is copied once the bridge has decided (a second batch),
into another vif's granted page. The header that the bridge looked at is the header that is delivered: a guest that
changes its frame meanwhile gains nothing.
"""

from vfwire.datapath.bridge import mac_at
from vfwire.datapath.grants import OWN, grant_copy
from vfwire.datapath.netback_checksum import complete_checksum
from vfwire.datapath.netback_move import (
    NOT_AT_ALL,
    decide,
    forward,
    forward_own,
    give_back_requests,
    make_moves,
    stop_vif,
)
from vfwire.datapath.netback_state import (
    BURST,
    DROP_BAD_GRANT,
    DROP_BAD_SIZE,
    DROP_CHECKSUM,
    DROP_FRAGMENTED,
    DROP_NO_BUFFER,
    HEADER,
    HEADER_ROOM,
    SHORTEST,
    STOP_EXTRA_INFO,
    STOP_TX_INDEX,
    UPLINK,
    copy_of,
    drop,
    fetch_of,
    give_own,
    request_of,
    take_own,
    vif_of,
)
from vfwire.datapath.xen_rings import push_responses, read_tx_request, requests_after, write_tx_response
from vfwire.layouts.ethernet import ETHERNET_SOURCE, WIRE_OVERHEAD_BYTES
from vfwire.layouts.xen_grant import GNTST_OKAY
from vfwire.layouts.xen_netif import (
    NETIF_RSP_ERROR,
    NETIF_RSP_OKAY,
    NETRXF_DATA_VALIDATED,
    NETTXF_CSUM_BLANK,
    NETTXF_DATA_VALIDATED,
    NETTXF_EXTRA_INFO,
    NETTXF_MORE_DATA,
    TX_RING_SIZE,
)
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.words import signal_eventfd

CREDIT_NS = 2_000_000  # credit that can pile up: as long as the loop may be away from its core and still keep the rate


@inlined
def _in_credit(layer, now):  # type: ignore[no-untyped-def]
    """Top up the layer's credit; False when frames have to wait. A burst may go below zero, which is paid
    back first.
    """
    if layer.rate_bps == 0:
        return True
    passed = min(now - layer.credit_ns, CREDIT_NS)
    layer.credit_ns = now
    layer.credit = min(layer.credit + passed * layer.rate_bps, CREDIT_NS * layer.rate_bps)
    if layer.credit > 0:
        return True
    layer.credit_waits += 1
    return False


@inlined
def take_requests(layer, v, count):  # type: ignore[no-untyped-def]
    """Take `count` transmit requests and plan the fetch of each good frame's header; False when the vif was
    stopped.
    """
    vif = vif_of(layer, v)
    for i in range(count):
        request = request_of(layer, i)
        gref, offset, flags, ident, size = read_tx_request(vif.tx, vif.tx_cons + i)
        request.gref = gref
        request.offset = offset
        request.flags = flags
        request.id = ident
        request.size = size
        request.status = NETIF_RSP_OKAY
        op = fetch_of(layer, i)
        op.source_domain = v
        op.source = gref
        op.source_offset = offset
        op.dest_domain = OWN
        op.prefix = 0
        request.buffer = take_own(layer) if vif.whole else 0
        if request.buffer != 0:
            request.fetched = request.buffer
            op.length = size
        else:
            request.fetched = layer.headers + i * HEADER_ROOM
            op.length = min(size, HEADER)
        op.dest = request.fetched
        if flags & NETTXF_EXTRA_INFO:
            stop_vif(layer, vif, STOP_EXTRA_INFO)
            give_back_requests(layer, i + 1)
            return False
        if vif.chain or flags & NETTXF_MORE_DATA:
            if not vif.chain:
                drop(layer, v + 1, DROP_FRAGMENTED)
            vif.chain = flags & NETTXF_MORE_DATA
            request.status = NETIF_RSP_ERROR
        elif size < SHORTEST or size > layer.max_frame or offset + size > PAGE_BYTES:
            drop(layer, v + 1, DROP_BAD_SIZE)
            request.status = NETIF_RSP_ERROR
        if request.status != NETIF_RSP_OKAY:
            op.source_domain = OWN  # nothing of it is fetched: an empty copy within own memory
            op.source = op.dest
            op.length = 0
    return True


@inlined
def _fetch_rest(layer, v, request):  # type: ignore[no-untyped-def]
    """A frame of which only the header was fetched comes into an own buffer; False when it cannot."""
    make_moves(layer)
    buffer = take_own(layer)
    if buffer == 0:
        drop(layer, v + 1, DROP_NO_BUFFER)
        return False
    op = copy_of(layer, 0)
    op.source_domain = v
    op.source = request.gref
    op.source_offset = request.offset
    op.dest_domain = OWN
    op.dest = buffer
    op.length = request.size
    op.prefix = request.fetched
    if grant_copy(layer.domains, layer.copies, 1) != 0:
        drop(layer, v + 1, DROP_BAD_GRANT)
        request.status = NETIF_RSP_ERROR
        give_own(layer, buffer)
        return False
    layer.copied_bytes += request.size
    request.buffer = buffer
    return True


@inlined
def _forward_request(layer, v, i, port):  # type: ignore[no-untyped-def]
    """Send the frame of request `i` on its way."""
    request = request_of(layer, i)
    flags = NETRXF_DATA_VALIDATED if request.flags & NETTXF_DATA_VALIDATED else 0
    if request.flags & NETTXF_CSUM_BLANK:
        # The sum is taken over an own buffer, where nobody changes what it covers.
        if request.buffer == 0 and not _fetch_rest(layer, v, request):
            return
        if not complete_checksum(request.buffer, request.size):
            drop(layer, v + 1, DROP_CHECKSUM)
            request.status = NETIF_RSP_ERROR
            give_own(layer, request.buffer)
            return
        flags = NETRXF_DATA_VALIDATED
    if request.buffer != 0:
        forward_own(layer, port, v + 1, request.buffer, request.size, flags)
    else:
        source = request.gref
        forward(layer, port, v + 1, v, source, request.offset, request.size, request.fetched, flags, i)


@inlined
def _forward_requests(layer, v, count, now):  # type: ignore[no-untyped-def]
    vif = vif_of(layer, v)
    for i in range(count):
        request = request_of(layer, i)
        op = fetch_of(layer, i)
        port = NOT_AT_ALL
        if request.status == NETIF_RSP_OKAY and op.status != GNTST_OKAY:
            drop(layer, v + 1, DROP_BAD_GRANT)
            request.status = NETIF_RSP_ERROR
        elif request.status == NETIF_RSP_OKAY:
            vif.tx_frames += 1
            vif.tx_bytes += request.size
            layer.copied_bytes += op.length
            layer.credit -= (request.size + WIRE_OVERHEAD_BYTES) * 8_000_000_000
            header = request.fetched
            port = decide(layer, v + 1, mac_at(header), mac_at(header + ETHERNET_SOURCE), now)
        if port != NOT_AT_ALL:
            vif.whole = port == UPLINK
            _forward_request(layer, v, i, port)
        elif request.buffer != 0:
            give_own(layer, request.buffer)
    make_moves(layer)


@inlined
def from_vif(layer, v, now):  # type: ignore[no-untyped-def]
    """One burst of what vif `v` sends; returns how many requests were answered."""
    vif = vif_of(layer, v)
    pending = requests_after(vif.tx, vif.tx_cons)
    if pending == 0:
        return 0
    if pending > TX_RING_SIZE:
        stop_vif(layer, vif, STOP_TX_INDEX)
        return 0
    if not _in_credit(layer, now):
        return -1
    count = min(pending, BURST)
    if not take_requests(layer, v, count):
        return 0
    grant_copy(layer.domains, layer.fetches, count)
    _forward_requests(layer, v, count, now)
    for i in range(count):
        write_tx_response(vif.tx, vif.tx_cons + i, request_of(layer, i).id, request_of(layer, i).status)
    wake = push_responses(vif.tx, vif.tx_cons, vif.tx_cons + count)
    vif.tx_cons += count
    if wake:
        vif.notified += 1
        signal_eventfd(vif.tx_event)
    return count
