"""The loop of a virtualization layer: frames of its vifs and its uplink, through a learning bridge, in bursts."""

from vfwire.datapath.netback_move import deliver_backlog, push_received
from vfwire.datapath.netback_requests import from_vif
from vfwire.datapath.netback_state import RUNNING, stop_wanted, vif_of
from vfwire.datapath.netback_uplink import from_uplink, send_staged
from vfwire.datapath.xen_rings import want_request_event
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import clock_ns, fence, yield_core

# What `run_slice` comes back with.
AGAIN = 0  # its time is up
IDLE = 1  # nothing to do for as long as it was told to look
WANTED = 2  # the stop word is set
VIF_STOPPED = 3  # a vif broke the protocol and was stopped


@inlined
def _round(layer, pool, stack, rx, tx, arrived, staged, now):  # type: ignore[no-untyped-def]
    """One turn over all ports; returns how many frames moved, -1 when none did but some wait for credit or
    the uplink.
    """
    done = 0
    waiting = False
    for q in range(len(rx)):
        done += from_uplink(layer, pool, stack, rx[q], arrived, now)
    for v in range(layer.vifs):
        vif = vif_of(layer, v)
        if vif.state != RUNNING:
            continue
        if vif.backlog_head != vif.backlog_tail:
            done += deliver_backlog(layer, v + 1)
        if not send_staged(layer, pool, stack, tx, staged, now):
            waiting = True
            continue
        taken = from_vif(layer, v, now)
        done += max(taken, 0)
        waiting = waiting or taken < 0
    if not send_staged(layer, pool, stack, tx, staged, now):
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
