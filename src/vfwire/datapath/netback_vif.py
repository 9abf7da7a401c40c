"""A vif comes and goes: its rings are mapped by grant, and all that it held is let go of again."""

from vfwire.datapath.bridge import forget_port
from vfwire.datapath.grants import grant_map, grant_unmap
from vfwire.datapath.netback_state import BACKLOG, DROP_DETACHED, FREE, drop, give_own, vif_of, waiting_of
from vfwire.layouts.xen_grant import GNTST_OKAY
from vfwire.memory.compiled import compiled


@compiled
def map_rings(layers, v, tx_ref, rx_ref):  # type: ignore[no-untyped-def]
    """Map both rings of vif `v` by grant; returns 0, or the negative GNTST_* of the one that was refused."""
    layer = layers[0]
    tx = grant_map(layer.domains, v, tx_ref)
    if tx < 0:
        return tx
    rx = grant_map(layer.domains, v, rx_ref)
    if rx < 0:
        grant_unmap(layer.domains, v, tx_ref)
        return rx
    vif_of(layer, v).tx = tx
    vif_of(layer, v).rx = rx
    return GNTST_OKAY


@compiled
def detach_vif(layers, v, tx_ref, rx_ref):  # type: ignore[no-untyped-def]
    """Let go of a vif: what waits for it is dropped, the bridge forgets it, its rings are unmapped."""
    layer = layers[0]
    vif = vif_of(layer, v)
    while vif.backlog_head != vif.backlog_tail:
        entry = waiting_of(layer, v * BACKLOG + (vif.backlog_head & (BACKLOG - 1)))
        give_own(layer, entry.address)
        drop(layer, v + 1, DROP_DETACHED)
        vif.backlog_head += 1
    forget_port(layer.table, v + 1)
    grant_unmap(layer.domains, v, tx_ref)
    grant_unmap(layer.domains, v, rx_ref)
    vif.state = FREE
