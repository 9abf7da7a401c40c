"""A learning bridge's table: which port a MAC address was last heard on (IEEE 802.1D 7.8 and 7.9).

Four entries a set; a full set forgets what it heard longest ago, so that a flood of made-up addresses costs
nothing but their floods. A MAC address is an int64: its six bytes as they lie in memory, little-endian, so
bit 0 says "group".
"""

import numpy as np

from vfwire.memory.compiled import inlined
from vfwire.memory.records import record_at
from vfwire.memory.unaligned import read64

MAC_ENTRY = np.dtype([("mac", "i8"), ("port", "i8"), ("heard", "i8")], align=True)

TABLE_ENTRIES = 4096
AGEING_NS = 300_000_000_000  # 802.1D 7.9.2, its recommended 300 s
NOWHERE = -1  # look_up: never heard, or too long ago

_entry_at = record_at(MAC_ENTRY)
_ENTRY_BYTES = MAC_ENTRY.itemsize
_WAYS = 4
_SETS = TABLE_ENTRIES // _WAYS
_MAC_MASK = 0xFFFF_FFFF_FFFF
_GROUP = 1
_RESERVED = 0x0000_00C2_8001  # 01-80-C2-00-00-00 to -0F: never forwarded by a bridge (802.1D 7.12.6)
_RESERVED_MASK = 0xF0FF_FFFF_FFFF


@inlined
def mac_at(address):  # type: ignore[no-untyped-def]
    """The MAC address at an address in own memory; two bytes beyond it are read too."""
    return read64(address) & _MAC_MASK


@inlined
def is_group(mac):  # type: ignore[no-untyped-def]
    return mac & _GROUP != 0


@inlined
def is_reserved(mac):  # type: ignore[no-untyped-def]
    return mac & _RESERVED_MASK == _RESERVED


@inlined
def _set_of(table, mac):  # type: ignore[no-untyped-def]
    folded = mac ^ (mac >> 11) ^ (mac >> 29)
    return table + ((folded ^ (folded >> 24)) & (_SETS - 1)) * (_WAYS * _ENTRY_BYTES)


@inlined
def learn(table, mac, port, now):  # type: ignore[no-untyped-def]
    """`mac` was heard on `port` at `now` (ns, never 0). table: address of MAC_ENTRY[TABLE_ENTRIES]."""
    first = _set_of(table, mac)
    victim = _entry_at(first)
    for i in range(_WAYS):
        entry = _entry_at(first + i * _ENTRY_BYTES)
        if entry.mac == mac:
            victim = entry
            break
        if entry.heard < victim.heard:
            victim = entry
    victim.mac = mac
    victim.port = port
    victim.heard = now


@inlined
def look_up(table, mac, now):  # type: ignore[no-untyped-def]
    """The port of `mac`, or NOWHERE."""
    first = _set_of(table, mac)
    for i in range(_WAYS):
        entry = _entry_at(first + i * _ENTRY_BYTES)
        if entry.mac == mac and entry.heard != 0 and now - entry.heard < AGEING_NS:
            return entry.port
    return NOWHERE


@inlined
def forget_port(table, port):  # type: ignore[no-untyped-def]
    """A port is gone, and all that was heard on it."""
    for i in range(TABLE_ENTRIES):
        entry = _entry_at(table + i * _ENTRY_BYTES)
        if entry.port == port:
            entry.mac = 0
            entry.heard = 0
