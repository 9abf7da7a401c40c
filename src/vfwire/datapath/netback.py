"""The loop of a virtualization layer: frames of its vifs and its uplink, through a learning bridge, in
bursts.

A burst from a vif: take up to BURST requests, fetch the frames (one batch of grant copies), let the bridge
decide, send them on, answer the requests, wake the vif if it asks for it. Frames of a vif whose last one went to
the uplink are fetched whole, into buffers that the uplink then sends. Of others only the first 16 bytes are fetched to
decide by, and the frame is copied once the bridge has decided (a second batch), into another vif's granted page.
A frame from the uplink is copied straight out of its receive buffer. The header that the bridge looked at is the
header that is delivered: a guest that changes its frame meanwhile gains nothing.
"""

from vfwire.datapath.bridge import mac_at
from vfwire.datapath.grants import OWN, grant_copy
from vfwire.datapath.netback_checksum import complete_checksum
from vfwire.datapath.netback_move import (
    NOT_AT_ALL,
    decide,
    deliver_backlog,
    forward,
    forward_own,
    give_back_requests,
    make_moves,
    push_received,
    stop_vif,
)
from vfwire.datapath.netback_state import (
    BURST,
    DROP_BAD_GRANT,
    DROP_BAD_SIZE,
    DROP_CHECKSUM,
    DROP_FRAGMENTED,
    DROP_NO_BUFFER,
    DROP_UPLINK_FULL,
    HEADER,
    HEADER_ROOM,
    RUNNING,
    STOP_EXTRA_INFO,
    STOP_TX_INDEX,
    UPLINK,
    copy_of,
    drop,
    fetch_of,
    give_own,
    request_of,
    staged_of,
    stop_wanted,
    take_own,
    vif_of,
)
from vfwire.datapath.port import RX_L4_GOOD, RX_MORE
from vfwire.datapath.verbs import receive, transmit
from vfwire.datapath.xen_rings import (
    push_responses,
    read_tx_request,
    requests_after,
    want_request_event,
    write_tx_response,
)
from vfwire.layouts.ethernet import ETHERNET_BYTES, ETHERNET_SOURCE, WIRE_OVERHEAD_BYTES
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
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import clock_ns, fence, prefetch, signal_eventfd, yield_core

# What `run_slice` comes back with.
AGAIN = 0  # its time is up
IDLE = 1  # nothing to do for as long as it was told to look
WANTED = 2  # the stop word is set
VIF_STOPPED = 3  # a vif broke the protocol and was stopped

# credit that can pile up: as long as the loop may be away from its core and still keep the rate
CREDIT_NS = 2_000_000
STUCK_NS = 20_000_000  # an uplink that takes nothing for so long loses what waits for it
SHORTEST = ETHERNET_BYTES


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
def _take_requests(layer, v, count):  # type: ignore[no-untyped-def]
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
def _from_vif(layer, v, now):  # type: ignore[no-untyped-def]
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
    if not _take_requests(layer, v, count):
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


@inlined
def _from_uplink(layer, pool, stack, rx, arrived, now):  # type: ignore[no-untyped-def]
    """One burst of what uplink queue `q` received."""
    count = receive(rx, pool, stack, arrived, BURST)
    for i in range(count):
        prefetch(arrived[i].address)
    chain = 0
    for i in range(count):
        frame = arrived[i]
        layer.uplink_rx_frames += 1
        layer.uplink_rx_bytes += frame.length
        more = frame.flags & RX_MORE
        port = NOT_AT_ALL
        if chain or more:
            if not more:
                drop(layer, UPLINK, DROP_FRAGMENTED)
            chain = more
        elif frame.length < SHORTEST or frame.length > layer.max_frame:
            drop(layer, UPLINK, DROP_BAD_SIZE)
        else:
            source = frame.address + ETHERNET_SOURCE
            port = decide(layer, UPLINK, mac_at(frame.address), mac_at(source), now)
        if port == NOT_AT_ALL:
            give_own(layer, frame.address)
            continue
        flags = 0
        if frame.flags & RX_L4_GOOD:
            flags = NETRXF_DATA_VALIDATED
        forward_own(layer, port, UPLINK, frame.address, frame.length, flags)
    make_moves(layer)
    return count


@inlined
def _send_staged(layer, pool, stack, tx, staged, now):  # type: ignore[no-untyped-def]
    """Hand the uplink what waits for it.

    False when its ring had no room for all: then nothing more is taken for it.
    """
    count = layer.staged_end - layer.staged_start
    if count == 0:
        layer.staged_ns = now
        return True
    sent = transmit(tx[0], pool, stack, staged, layer.staged_start, count)
    for i in range(layer.staged_start, layer.staged_start + sent):
        layer.uplink_tx_bytes += staged_of(layer, i).length
    layer.uplink_tx_frames += sent
    layer.staged_start += sent
    if sent == count:
        layer.staged_start = 0
        layer.staged_end = 0
        layer.staged_ns = now
        return True
    if sent > 0:
        layer.staged_ns = now
    elif now - layer.staged_ns > STUCK_NS:
        for i in range(layer.staged_start, layer.staged_end):
            give_own(layer, staged_of(layer, i).address)
            drop(layer, UPLINK, DROP_UPLINK_FULL)
        layer.staged_start = 0
        layer.staged_end = 0
    return False


@inlined
def _round(layer, pool, stack, rx, tx, arrived, staged, now):  # type: ignore[no-untyped-def]
    """One turn over all ports; returns how many frames moved, -1 when none did but some wait for credit or
    the uplink.
    """
    done = 0
    waiting = False
    for q in range(len(rx)):
        done += _from_uplink(layer, pool, stack, rx[q], arrived, now)
    for v in range(layer.vifs):
        vif = vif_of(layer, v)
        if vif.state != RUNNING:
            continue
        if vif.backlog_head != vif.backlog_tail:
            done += deliver_backlog(layer, v + 1)
        if not _send_staged(layer, pool, stack, tx, staged, now):
            waiting = True
            continue
        taken = _from_vif(layer, v, now)
        done += max(taken, 0)
        waiting = waiting or taken < 0
    if not _send_staged(layer, pool, stack, tx, staged, now):
        waiting = True
    push_received(layer)
    if done == 0 and waiting:
        return -1
    return done


@compiled
def run_slice(  # type: ignore[no-untyped-def]
    layers,
    pools,
    stack,
    rx,
    tx,
    arrived,
    staged,
    until_ns,
    spin_ns,
):
    """Work until CLOCK_MONOTONIC reaches `until_ns`, or nothing was to be done for `spin_ns` (the core is
    yielded meanwhile), or somebody wants the thread back; at least one round. Returns AGAIN, IDLE, WANTED or
    VIF_STOPPED. layers to staged: as netback_state.Host has them.
    """
    layer = layers[0]
    pool = pools[0]
    idle_since = 0
    while True:
        now = clock_ns()
        done = _round(layer, pool, stack, rx, tx, arrived, staged, now)
        layer.rounds += 1
        if layer.stopped:
            return VIF_STOPPED
        if stop_wanted(layer):
            return WANTED
        if done != 0:
            idle_since = 0
        elif idle_since == 0:
            idle_since = now
        if done <= 0:
            layer.idle_rounds += 1
            if done == 0 and now - idle_since >= spin_ns:
                return IDLE
            yield_core()
        if now >= until_ns:
            return AGAIN


@compiled
def arm_events(layers):  # type: ignore[no-untyped-def]
    """Ask every vif to send an event with its next request.

    Then run one more slice before sleeping: one may be there.
    """
    layer = layers[0]
    for v in range(layer.vifs):
        vif = vif_of(layer, v)
        if vif.state == RUNNING:
            want_request_event(vif.tx, vif.tx_cons + 1)
            if vif.backlog_head != vif.backlog_tail:
                want_request_event(vif.rx, vif.rx_known + 1)
    fence()
