"""Where a layer's frames go: the bridge's decision, the batch of copies, and what follows when they are made.

Nothing here reads or writes a domain's memory but by `grant_copy`, and its two ring pages by `xen_rings`.
"""

from vfwire.datapath.bridge import NOWHERE, is_group, is_reserved, learn, look_up
from vfwire.datapath.grants import OWN, SOURCE, grant_copy
from vfwire.datapath.netback_state import (
    BACKLOG,
    DROP_BAD_GRANT,
    DROP_BAD_RX_GRANT,
    DROP_BAD_SOURCE,
    DROP_DETACHED,
    DROP_NO_BUFFER,
    DROP_NO_PORT,
    DROP_NO_REQUEST,
    DROP_RESERVED,
    DROP_SAME_PORT,
    MOVES,
    RUNNING,
    STOP_RX_INDEX,
    STOPPED,
    UPLINK,
    copy_of,
    drop,
    give_own,
    move_of,
    request_of,
    staged_of,
    take_own,
    vif_of,
    waiting_of,
)
from vfwire.datapath.xen_rings import (
    push_responses,
    read_rx_request,
    requests_after,
    rx_response,
    write_rx_response,
)
from vfwire.layouts.xen_grant import GNTST_OKAY
from vfwire.layouts.xen_netif import NETIF_RSP_ERROR, RX_RING_SIZE
from vfwire.memory.compiled import inlined
from vfwire.memory.words import signal_eventfd

FLOOD = NOWHERE
NOT_AT_ALL = -2  # dropped, and counted
LEARN_AGAIN_NS = 10_000_000  # an address that keeps coming is learned this often, not with every frame
# received frames begin at 16 different lines of their pages: at one, they would fight for one cache set
COLOURS = 15
LINE = 64


@inlined
def stop_vif(layer, vif, reason):  # type: ignore[no-untyped-def]
    vif.state = STOPPED
    vif.reason = reason
    layer.stopped += 1


@inlined
def _flood(layer, from_port):  # type: ignore[no-untyped-def]
    """All other ports; where there are two in all, the other one, which takes no more copies than a known address."""
    if layer.lone == 0:
        return FLOOD
    return layer.lone if from_port == UPLINK else UPLINK


@inlined
def _decide_unlearned(layer, from_port, dst):  # type: ignore[no-untyped-def]
    if is_group(dst) and is_reserved(dst):
        drop(layer, from_port, DROP_RESERVED)
        return NOT_AT_ALL
    return _flood(layer, from_port)


@inlined
def decide(layer, from_port, dst, src, now):  # type: ignore[no-untyped-def]
    """The port for a frame heard on `from_port`: its number, FLOOD or NOT_AT_ALL."""
    if is_group(src) or src == 0:
        drop(layer, from_port, DROP_BAD_SOURCE)
        return NOT_AT_ALL
    if layer.learning == 0:
        return _decide_unlearned(layer, from_port, dst)
    if from_port == UPLINK:
        if src != layer.uplink_heard or now - layer.uplink_heard_ns > LEARN_AGAIN_NS:
            learn(layer.table, src, from_port, now)
            layer.uplink_heard = src
            layer.uplink_heard_ns = now
    else:
        vif = vif_of(layer, from_port - 1)
        if src != vif.learned or now - vif.learned_ns > LEARN_AGAIN_NS:
            learn(layer.table, src, from_port, now)
            vif.learned = src
            vif.learned_ns = now
    if is_group(dst):
        if is_reserved(dst):
            drop(layer, from_port, DROP_RESERVED)
            return NOT_AT_ALL
        return _flood(layer, from_port)
    port = look_up(layer.table, dst, now)
    if port == NOWHERE:
        return _flood(layer, from_port)
    if port == from_port:
        drop(layer, from_port, DROP_SAME_PORT)
        return NOT_AT_ALL
    return port


@inlined
def _request_there(layer, vif):  # type: ignore[no-untyped-def]
    """True when the vif has a buffer for one more frame."""
    if vif.rx_cons != vif.rx_known:
        return True
    pending = requests_after(vif.rx, vif.rx_cons)
    if pending > RX_RING_SIZE:
        stop_vif(layer, vif, STOP_RX_INDEX)
        return False
    vif.rx_known = vif.rx_cons + pending
    return pending > 0


@inlined
def _into_ring(vif, port, flags, op, move):  # type: ignore[no-untyped-def]
    ident, gref = read_rx_request(vif.rx, vif.rx_cons)
    offset = vif.headroom + (vif.rx_cons & COLOURS) * LINE
    op.dest_domain = port - 1
    op.dest = gref
    op.dest_offset = offset
    move.response = rx_response(ident, offset, flags, op.length)
    move.index = vif.rx_cons
    vif.rx_cons += 1


@inlined
def _into_backlog(layer, port, address, length, flags):  # type: ignore[no-untyped-def]
    """Put an own buffer at the end of what waits for a vif; returns its entry, or -1 when as many wait as
    may.
    """
    vif = vif_of(layer, port - 1)
    if vif.backlog_tail - vif.backlog_head == BACKLOG:
        drop(layer, port, DROP_NO_REQUEST)
        return -1
    index = (port - 1) * BACKLOG + (vif.backlog_tail & (BACKLOG - 1))
    vif.backlog_tail += 1
    entry = waiting_of(layer, index)
    entry.address = address
    entry.length = length
    entry.flags = flags
    return index


@inlined
def _into_own(layer, port, flags, op, move):  # type: ignore[no-untyped-def]
    """Let the copy go to a buffer of the layer, for the uplink or for a vif that has no room now."""
    buffer = take_own(layer)
    if buffer == 0:
        drop(layer, port, DROP_NO_BUFFER)
        return False
    op.dest_domain = OWN
    op.dest = buffer
    move.response = 0
    if port != UPLINK:
        move.index = _into_backlog(layer, port, buffer, op.length, flags)
        if move.index < 0:
            give_own(layer, buffer)
            return False
    return True


@inlined
def _to_port(layer, port, domain, source, offset, length, prefix, flags, request):  # type: ignore[no-untyped-def]
    """Add one copy to the batch; returns 1, or 0 when the frame was dropped."""
    number = layer.planned
    op = copy_of(layer, number)
    move = move_of(layer, number)
    op.source_domain = domain
    op.source = source
    op.source_offset = offset
    op.length = length
    op.prefix = prefix
    move.port = port
    move.request = request
    move.release = 0
    in_ring = False
    if port != UPLINK:
        vif = vif_of(layer, port - 1)
        if vif.state != RUNNING:
            drop(layer, port, DROP_DETACHED)
            return 0
        in_ring = vif.backlog_head == vif.backlog_tail and _request_there(layer, vif)
        if in_ring:
            _into_ring(vif, port, flags, op, move)
    if not in_ring and not _into_own(layer, port, flags, op, move):
        return 0
    layer.planned = number + 1
    return 1


@inlined
def forward(  # type: ignore[no-untyped-def]
    layer,
    port,
    from_port,
    domain,
    source,
    offset,
    length,
    prefix,
    flags,
    request,
):
    """Add the copies that a frame needs to the batch (made first, if it has no room); returns how many."""
    if layer.planned + layer.vifs + 1 > MOVES:
        make_moves(layer)
    first, last = port, port + 1
    if port == FLOOD:
        first, last = 1 - layer.uplink, layer.vifs + 1
    tried = 0
    made = 0
    for to in range(first, last):
        if port == FLOOD and (to == from_port or (to != UPLINK and vif_of(layer, to - 1).state != RUNNING)):
            continue
        tried += 1
        made += _to_port(layer, to, domain, source, offset, length, prefix, flags, request)
    if tried == 0:
        drop(layer, from_port, DROP_NO_PORT)
    return made


@inlined
def stage(layer, address, length):  # type: ignore[no-untyped-def]
    """A frame in an own buffer goes to the uplink with the next burst."""
    frame = staged_of(layer, layer.staged_end)
    frame.address = address
    frame.length = length
    frame.flags = 0
    layer.staged_end += 1


@inlined
def forward_own(layer, port, from_port, address, length, flags):  # type: ignore[no-untyped-def]
    """Forward a frame in an own buffer, which is given back when it is no longer needed."""
    if port == UPLINK:
        stage(layer, address, length)
        return
    if port != FLOOD:
        vif = vif_of(layer, port - 1)
        if vif.state == RUNNING and (vif.backlog_head != vif.backlog_tail or not _request_there(layer, vif)):
            # It waits where it is: no copy.
            if _into_backlog(layer, port, address, length, flags) < 0:
                give_own(layer, address)
            return
    if forward(layer, port, from_port, OWN, address, 0, length, 0, flags, -1) > 0:
        move_of(layer, layer.planned - 1).release = address
    else:
        give_own(layer, address)


@inlined
def deliver_backlog(layer, port):  # type: ignore[no-untyped-def]
    """Frames that waited for a vif go, oldest first; returns how many went."""
    vif = vif_of(layer, port - 1)
    gone = 0
    while vif.backlog_head != vif.backlog_tail and gone < MOVES and _request_there(layer, vif):
        entry = waiting_of(layer, (port - 1) * BACKLOG + (vif.backlog_head & (BACKLOG - 1)))
        vif.backlog_head += 1
        if entry.length == 0:
            give_own(layer, entry.address)
            continue
        op = copy_of(layer, gone)
        move = move_of(layer, gone)
        op.source_domain = OWN
        op.source = entry.address
        op.length = entry.length
        op.prefix = 0
        move.port = port
        move.request = -1
        move.release = entry.address
        _into_ring(vif, port, entry.flags, op, move)
        gone += 1
    layer.planned = gone
    make_moves(layer)
    return gone


@inlined
def _made(layer, op, move):  # type: ignore[no-untyped-def]
    layer.copied_bytes += op.length
    if move.response != 0:
        vif = vif_of(layer, move.port - 1)
        write_rx_response(vif.rx, move.index, move.response)
        vif.rx_frames += 1
        vif.rx_bytes += op.length
    elif move.port == UPLINK:
        stage(layer, op.dest, op.length)


@inlined
def _refused(layer, op, move):  # type: ignore[no-untyped-def]
    if op.side == SOURCE:
        drop(layer, op.source_domain + 1, DROP_BAD_GRANT)
        if move.request >= 0:
            request_of(layer, move.request).status = NETIF_RSP_ERROR
    else:
        drop(layer, move.port, DROP_BAD_RX_GRANT)
    if move.response != 0:
        error = rx_response(move.response & 0xFFFF, 0, 0, NETIF_RSP_ERROR)
        write_rx_response(vif_of(layer, move.port - 1).rx, move.index, error)
    elif move.port == UPLINK:
        give_own(layer, op.dest)
    else:
        waiting_of(layer, move.index).length = 0


@inlined
def make_moves(layer):  # type: ignore[no-untyped-def]
    """Make the batch of copies, then write what follows from each: a response, or a place on the way to the
    uplink.
    """
    count = layer.planned
    layer.planned = 0
    if count == 0:
        return
    grant_copy(layer.domains, layer.copies, count)
    for i in range(count):
        op = copy_of(layer, i)
        move = move_of(layer, i)
        if op.status == GNTST_OKAY:
            _made(layer, op, move)
        else:
            _refused(layer, op, move)
        if move.release != 0:
            give_own(layer, move.release)


@inlined
def push_received(layer):  # type: ignore[no-untyped-def]
    """Show all vifs the responses that were written, and wake those that asked for it."""
    for v in range(layer.vifs):
        vif = vif_of(layer, v)
        if vif.rx_pushed != vif.rx_cons and vif.state == RUNNING:
            wake = push_responses(vif.rx, vif.rx_pushed, vif.rx_cons)
            vif.rx_pushed = vif.rx_cons
            if wake:
                vif.notified += 1
                signal_eventfd(vif.rx_event)


@inlined
def give_back_requests(layer, count):  # type: ignore[no-untyped-def]
    """The buffers that were taken for the first `count` requests of a burst that goes nowhere."""
    for i in range(count):
        if request_of(layer, i).buffer != 0:
            give_own(layer, request_of(layer, i).buffer)
