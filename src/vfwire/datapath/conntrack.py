"""The connections that an instance has under way: a hash table of keys, and of when each was last seen.

Rows that follow each other are looked at until an empty one. So a row that is let go of is GONE, not empty, as long as
one behind it is taken; the sweep goes downwards, where that is known. It takes a second for the whole table, a few rows
at a time: a connection is forgotten by as much later than IDLE_NS after its last packet, or CLOSED_NS after its first
FIN or RST. What becomes of closed ones AWS does not tell; one that goes on after that counts as a new one.
"""

from vfwire.datapath.instance import CONNECTIONS
from vfwire.datapath.packet import KIND_IPV4, KIND_IPV6, KIND_TCP, KIND_UDP
from vfwire.layouts.ethernet import IPV4_SOURCE, IPV6_SOURCE, TCP_FIN, TCP_FLAGS, TCP_RST, TCP_SYN
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read32, read64
from vfwire.memory.words import load8

IDLE_NS = 350_000_000_000  # AWS, "Idle connection tracking timeout": TCP's default on Nitro v6 types
CLOSED_NS = 1_000_000_000
SWEEP_SHIFT = 16  # a row each 66 us
_MOST_ROWS = 64  # of a sweep at once
_PROBES = 32
_EMPTY, _GONE = 0, -1
_POSITIVE, _WORD = (1 << 63) - 1, (1 << 32) - 1
_MIX1, _MIX2, _MIX3 = 0x9E3779B97F4A7C1, 0x2545F4914F6CDD1D, 0x1B873593CC9E2D51


@inlined
def _end(upper, lower, port):  # type: ignore[no-untyped-def]
    """One end of a connection as a number: its address in two words, and its port."""
    mixed = ((upper * _MIX3) ^ (lower + (port << 40))) & _POSITIVE
    return ((mixed * _MIX1) & _POSITIVE) ^ (mixed >> 31)


@inlined
def flow_of(header, kind, l2, l3):  # type: ignore[no-untyped-def]
    """(key of the connection that a packet of TCP or UDP belongs to, the same both ways; its TCP flags); 0: of none."""
    if not kind & (KIND_TCP | KIND_UDP):
        return 0, 0
    ports = read32(header + l2 + l3)
    if kind & KIND_IPV4:
        addresses = read64(header + l2 + IPV4_SOURCE)
        one, other = (
            _end(0, addresses & _WORD, ports & 0xFFFF),
            _end(0, (addresses >> 32) & _WORD, ports >> 16),
        )
    elif kind & KIND_IPV6:
        at = header + l2 + IPV6_SOURCE
        one = _end(read64(at), read64(at + 8), ports & 0xFFFF)
        other = _end(read64(at + 16), read64(at + 24), ports >> 16)
    else:
        return 0, 0
    key = (min(one, other) * _MIX1) ^ (max(one, other) * _MIX2) ^ (1 if kind & KIND_TCP else 2)
    flags = load8(header + l2 + l3 + TCP_FLAGS) if kind & KIND_TCP else 0
    return (key & _POSITIVE) | 1, flags


@inlined
def _is_over(seen, now):  # type: ignore[no-untyped-def]
    """seen: twice the time of the last packet, or twice that of the first FIN or RST and 1."""
    return now - (seen >> 1) > (CLOSED_NS if seen & 1 else IDLE_NS)


@inlined
def _seen(before, now, flags):  # type: ignore[no-untyped-def]
    """What a row says after a packet with these TCP flags."""
    if before & 1 and not flags & TCP_SYN:
        return before
    return now << 1 | (1 if flags & (TCP_FIN | TCP_RST) else 0)


@inlined
def track(state, row, key, flags):  # type: ignore[no-untyped-def]
    """Whether instance `row` has this connection under way, or has it from now on."""
    instance, table = state.instances[row], state.connections
    place = (key ^ (key >> 29)) & (CONNECTIONS - 1)
    free = -1
    for _ in range(_PROBES):
        found = table[row, 2 * place]
        if found == key:
            table[row, 2 * place + 1] = _seen(table[row, 2 * place + 1], instance.now, flags)
            return True
        if free < 0 and found <= 0:
            free = place
        if found == _EMPTY:
            break
        place = (place + 1) & (CONNECTIONS - 1)
    if free < 0 or instance.conntrack_count >= instance.conntrack_most:
        return False
    instance.conntrack_count += 1
    table[row, 2 * free] = key
    table[row, 2 * free + 1] = _seen(0, instance.now, flags)
    return True


@inlined
def forget_some(state, row):  # type: ignore[no-untyped-def]
    """Sweep as many rows of the table as are due by the instance's clock."""
    instance, table = state.instances[row], state.connections
    due = instance.now >> SWEEP_SHIFT
    swept = max(instance.swept, due - CONNECTIONS)
    end = min(due, swept + _MOST_ROWS)
    while swept < end:
        place = -swept & (CONNECTIONS - 1)
        key = table[row, 2 * place]
        if key > 0 and _is_over(table[row, 2 * place + 1], instance.now):
            instance.conntrack_count -= 1
            key = _GONE
        if key == _GONE and table[row, 2 * ((place + 1) & (CONNECTIONS - 1))] == _EMPTY:
            key = _EMPTY
        table[row, 2 * place] = key
        swept += 1
    instance.swept = swept
