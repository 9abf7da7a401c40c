"""The embedded switch: which functions of a card a frame goes to (82599 datasheet 7.10.3, packet switching).

A destination is a bit mask of pools. A unicast MAC names its pools in a small hash table; a VLAN names its pools in a
row; a frame goes where both say so. What no pool of the card wants goes to the uplink. The multicast table is a
function's own here (the hardware shares one among all), so a neighbour's groups do not leak in.
Control code changes the tables while the loop is parked, then calls `forget_paths`.
"""

from vfwire.datapath.state import MAC_ROWS, CardState
from vfwire.memory.compiled import inlined

BROADCAST = 0xFFFFFFFFFFFF
_PRESENT = 1 << 48


def first_row(mac: int) -> int:
    """The first row to look at for a MAC: a multiplicative hash of its folded bytes."""
    return ((((mac ^ (mac >> 24)) & 0x7FFFFFFF) * 0x9E3779B1) >> 20) & (MAC_ROWS - 1)


mac_row = inlined(first_row)


@inlined
def pools_of_mac(state, card, mac):  # type: ignore[no-untyped-def]
    """The pools that own a unicast MAC, 0 for none."""
    row = mac_row(mac)
    keys = state.mac_keys
    wanted = mac | _PRESENT
    while keys[card, row] != 0:
        if keys[card, row] == wanted:
            return state.mac_pools[card, row]
        row = (row + 1) & (MAC_ROWS - 1)
    return 0


@inlined
def multicast_hash(mac):  # type: ignore[no-untyped-def]
    """Bits 47:36 of the address: the vector of filter type 0 (82599 datasheet 8.2.3.7.7, MTA; MCSTCTRL.MO 00)."""
    return (((mac >> 32) & 0xFF) >> 4) | (((mac >> 40) & 0xFF) << 4)


@inlined
def _wants_group(state, function, mac):  # type: ignore[no-untyped-def]
    record = state.functions[function]
    if not record.dma:  # nobody there: not a receiver that loses it
        return False
    if mac == BROADCAST or record.all_multicast or record.promiscuous:
        return True
    vector = multicast_hash(mac)
    return (state.multicast[function, vector >> 6] >> (vector & 63)) & 1 == 1


@inlined
def destinations(state, card, sender_pool, mac, vlan):  # type: ignore[no-untyped-def]
    """(mask of pools of `card` that take a frame to `mac` in `vlan`, whether it is at home there).

    vlan: 0 for untagged. sender_pool: -1 from the uplink. A unicast frame whose address a pool owns stays on the card;
    all others go to the uplink too: a promiscuous pool listens, and does not hold frames up.
    """
    record = state.cards[card]
    allowed = state.vlan_pools[card, vlan & 0xFFF]
    if sender_pool >= 0:
        allowed &= ~(1 << sender_pool)
    pools = 0
    if mac & 1:
        for pool in range(record.functions):
            if _wants_group(state, record.first + pool, mac):
                pools |= 1 << pool
        return pools & allowed, False
    owners = pools_of_mac(state, card, mac) & allowed
    for pool in range(record.functions):
        function = state.functions[record.first + pool]
        if function.promiscuous and function.dma:
            pools |= 1 << pool
    return owners | (pools & allowed), owners != 0


@inlined
def forget_sender(state, queue):  # type: ignore[no-untyped-def]
    """Drop the cached path of one transmit queue."""
    state.tx[queue].to = -1
    state.tx[queue].key0 = 0
    state.tx[queue].key1 = 0


def forget_paths(state: CardState) -> None:
    """Drop every cached path: after any change of MACs, VLANs, links, checks or sizes. While the loop is parked."""
    state.tx.to[:] = -1
    state.tx.key0[:] = 0
    state.tx.key1[:] = 0


def set_mac(state: CardState, card: int, mac: int, pool: int, present: bool) -> bool:
    """Enter or remove a unicast MAC of a pool. While the loop is parked. Returns False when the table is full.

    At most three quarters of the rows are used, so that a search always ends.
    """
    keys, pools = state.mac_keys[card], state.mac_pools[card]
    row, wanted = first_row(mac), mac | _PRESENT
    while keys[row] not in (0, wanted):
        row = (row + 1) % MAC_ROWS
    bit = 1 << pool if pool < 63 else -(1 << 63)
    if present:
        if keys[row] == 0 and int((keys != 0).sum()) >= MAC_ROWS * 3 // 4:
            return False
        keys[row] = wanted
        pools[row] |= bit
        return True
    if keys[row] == wanted:
        pools[row] &= ~bit
        if pools[row] == 0:
            _remove_row(state, card, row)
    return True


def _remove_row(state: CardState, card: int, row: int) -> None:
    """Empty a row and enter again what followed it, so that no search stops short."""
    keys, pools = state.mac_keys[card], state.mac_pools[card]
    keys[row] = 0
    row = (row + 1) % MAC_ROWS
    while keys[row] != 0:
        key, mask = int(keys[row]), int(pools[row])
        keys[row], pools[row] = 0, 0
        to = first_row(key & (_PRESENT - 1))
        while keys[to] != 0:
            to = (to + 1) % MAC_ROWS
        keys[to], pools[to] = key, mask
        row = (row + 1) % MAC_ROWS


def set_vlan(state: CardState, card: int, vlan: int | slice, pool: int, present: bool) -> None:
    """Let a pool take part in a VLAN, or in several. Row 0 stands for untagged frames: a pool in a port VLAN is not in
    it.
    """
    bit = 1 << pool if pool < 63 else -(1 << 63)
    if present:
        state.vlan_pools[card, vlan] |= bit
    else:
        state.vlan_pools[card, vlan] &= ~bit
