"""What a layer's uplink receives, copied straight out of its receive buffers, and what waits to be sent by it."""

from vfwire.datapath.bridge import mac_at
from vfwire.datapath.netback_move import NOT_AT_ALL, decide, forward_own, make_moves
from vfwire.datapath.netback_state import (
    BURST,
    DROP_BAD_SIZE,
    DROP_FRAGMENTED,
    DROP_UPLINK_FULL,
    SHORTEST,
    UPLINK,
    drop,
    give_own,
    staged_of,
)
from vfwire.datapath.port import RX_L4_GOOD, RX_MORE
from vfwire.datapath.verbs import receive, transmit
from vfwire.layouts.ethernet import ETHERNET_SOURCE
from vfwire.layouts.xen_netif import NETRXF_DATA_VALIDATED
from vfwire.memory.compiled import inlined
from vfwire.memory.words import prefetch

STUCK_NS = 20_000_000  # an uplink that takes nothing for so long loses what waits for it


@inlined
def from_uplink(layer, pool, stack, rx, arrived, now):  # type: ignore[no-untyped-def]
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
def send_staged(layer, pool, stack, tx, staged, now):  # type: ignore[no-untyped-def]
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
