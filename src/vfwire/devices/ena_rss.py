"""How an ENA spreads what it receives: hash function and key, fields that are hashed, indirection table.

The device takes the key's bytes in reverse order (DPDK ena_rss.c, ena_reorder_rss_hash_key, says so; Linux's driver
hands its key over as it is, so its guest sees the other order of it). Each of the two addresses and ports can be chosen
by itself, for each protocol; one that is left out counts as zeros, and its function's frames take the general path.
What is no IP packet goes to the queue of the first entry, whatever is chosen for it. Sorting of fields is not offered;
Linux's driver asks for it all the same, always, and its guests' flows are to be found by the hash that others compute.
"""

import secrets

import numpy as np

from vfwire.datapath.rss import (
    KEY_BYTES,
    LEFT_OUT_BITS,
    LEFT_OUT_SHIFT,
    RSS_IPV4,
    RSS_IPV4_TCP,
    RSS_IPV4_UDP,
    RSS_IPV6,
    RSS_IPV6_TCP,
    RSS_IPV6_UDP,
    build_toeplitz_table,
)
from vfwire.datapath.state import RETA_ENTRIES
from vfwire.datapath.switch import forget_paths
from vfwire.devices.ena_rings import Refused
from vfwire.devices.engine import Engine
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages

TABLE_LOG2 = RETA_ENTRIES.bit_length() - 1
WHOLE_TABLE = 0xFFFFFFFF
_TOEPLITZ_BIT = 1 << admin.TOEPLITZ
_ADDRESSES = admin.RSS_L3_SA | admin.RSS_L3_DA
_PORTS = admin.RSS_L4_SP | admin.RSS_L4_DP
_LINK_ADDRESSES = admin.RSS_L2_SA | admin.RSS_L2_DA
_WITH_PORTS = {  # protocol: the type of the loop that hashes its ports, too
    admin.RSS_TCP4: RSS_IPV4_TCP,
    admin.RSS_UDP4: RSS_IPV4_UDP,
    admin.RSS_TCP6: RSS_IPV6_TCP,
    admin.RSS_UDP6: RSS_IPV6_UDP,
}
_SUPPORTED = {
    **dict.fromkeys(_WITH_PORTS, _ADDRESSES | _PORTS),
    admin.RSS_IP4: _ADDRESSES,
    admin.RSS_IP6: _ADDRESSES,
    admin.RSS_IP4_FRAG: _ADDRESSES,
    admin.RSS_NOT_IP: _LINK_ADDRESSES,
}
_FAMILIES = (
    (RSS_IPV4, (admin.RSS_TCP4, admin.RSS_UDP4, admin.RSS_IP4, admin.RSS_IP4_FRAG)),
    (RSS_IPV6, (admin.RSS_TCP6, admin.RSS_UDP6, admin.RSS_IP6)),
)


class EnaRss:
    """The RSS settings of one function, entered for the loop as they are made."""

    def __init__(self, engine: Engine, function: int, record: np.void, queues: int) -> None:
        self._engine = engine
        self._function = function
        self._record = record
        self._queues = queues
        self._key = bytes(KEY_BYTES)
        self._init = 0
        self._selected: dict[int, int] = {}
        self._table = np.zeros(RETA_ENTRIES, np.int64)

    def reset(self) -> None:
        """A random key, all fields, everything to the first queue, and no hash until the driver asks for one. While
        the loop is parked.
        """
        self._key = secrets.token_bytes(KEY_BYTES)
        self._init = 0
        self._selected = dict(_SUPPORTED)
        self._table[:] = 0
        self._record["rss"] = self._record["hash_left_out"] = 0
        self._enter(on=False)

    def _enter(self, *, on: bool = True) -> None:
        with self._engine.parked() as state:
            key = np.frombuffer(self._key[::-1], np.uint8)
            state.toeplitz[self._function] = build_toeplitz_table(key)
            state.reta[self._function] = self._table
            self._record["hash_init"] = self._init
            if on:
                self._record["rss"] = self._types()
                if self._record["hash_left_out"] != self._left_out():
                    self._record["hash_left_out"] = self._left_out()
                    forget_paths(state)

    def _types(self) -> int:
        """A protocol that was left out is hashed by its addresses, as long as another of its family is hashed."""
        chosen = [kind for proto, kind in _WITH_PORTS.items() if self._selected[proto] & _PORTS]
        chosen += [kind for kind, protos in _FAMILIES if any(self._selected[proto] for proto in protos)]
        return sum(chosen)

    def _left_out(self) -> int:
        """Fields that `_types` would hash and the driver did not choose, as the loop has them."""
        found = 0
        for proto in (*_WITH_PORTS, admin.RSS_IP4, admin.RSS_IP6, admin.RSS_IP4_FRAG):
            chosen = self._selected[proto]
            hashed = _ADDRESSES | _PORTS if chosen & _PORTS else _ADDRESSES
            if chosen:
                found |= (hashed & ~chosen) >> LEFT_OUT_SHIFT << LEFT_OUT_BITS * proto
        return found

    # --- Hash function and key -----------------------------------------------------------------------------

    def function(self) -> bytes:
        answer = np.zeros((), messages.HASH_FUNCTION)
        answer["supported_func"] = answer["selected_func"] = _TOEPLITZ_BIT
        answer["init_val"] = self._init
        return answer.tobytes()

    def key(self) -> bytes:
        """The control buffer of a read."""
        buffer = np.zeros((), messages.HASH_KEY)
        buffer["key_parts"] = admin.RSS_KEY_PARTS
        buffer["key"] = np.frombuffer(self._key, "<u4")
        return buffer.tobytes()

    def set_function(self, command: np.void, buffer: bytes) -> None:
        if int(command["selected_func"]) != _TOEPLITZ_BIT:
            raise Refused(admin.ILLEGAL_PARAMETER)
        key = _structure(buffer, messages.HASH_KEY)
        if int(key["key_parts"]) != admin.RSS_KEY_PARTS:
            raise Refused(admin.ILLEGAL_PARAMETER)
        self._key = key["key"].tobytes()
        self._init = int(command["init_val"])
        self._enter()

    # --- Fields --------------------------------------------------------------------------------------------

    def input(self) -> bytes:
        return np.zeros((), messages.HASH_INPUT).tobytes()

    def fields(self) -> bytes:
        """The control buffer of a read."""
        buffer = np.zeros((), messages.HASH_CONTROL)
        for proto, supported in _SUPPORTED.items():
            buffer["supported_fields"]["fields"][proto] = supported
            buffer["selected_fields"]["fields"][proto] = self._selected[proto]
        return buffer.tobytes()

    def set_fields(self, buffer: bytes) -> None:
        wanted = _structure(buffer, messages.HASH_CONTROL)["selected_fields"]["fields"].tolist()
        for proto, fields in enumerate(wanted):
            if fields & ~_SUPPORTED.get(proto, 0):
                raise Refused(admin.ILLEGAL_PARAMETER)
        for proto in _SUPPORTED:
            self._selected[proto] = wanted[proto]
        self._enter()

    # --- Indirection table ---------------------------------------------------------------------------------

    def table(self) -> bytes:
        answer = np.zeros((), messages.IND_TABLE)
        answer["min_size"] = answer["max_size"] = answer["size"] = TABLE_LOG2
        answer["flags"] = admin.FEATURE_RSS_IND_TABLE_ONE_ENTRY_UPDATE_MASK
        answer["inline_index"] = WHOLE_TABLE
        return answer.tobytes()

    def entries(self) -> bytes:
        """The control buffer of a read."""
        buffer = np.zeros(RETA_ENTRIES, messages.IND_TABLE_ENTRY)
        buffer["cq_idx"] = self._table
        return buffer.tobytes()

    def set_table(self, command: np.void, buffer: bytes) -> None:
        index = int(command["inline_index"])
        if index != WHOLE_TABLE:
            self.set_entry(index, int(command["inline_entry"]["cq_idx"]))
            return
        if int(command["size"]) != TABLE_LOG2:
            raise Refused(admin.ILLEGAL_PARAMETER)
        size = RETA_ENTRIES * messages.IND_TABLE_ENTRY.itemsize
        if len(buffer) < size:
            raise Refused(admin.MALFORMED_REQUEST)
        queues = np.frombuffer(buffer[:size], messages.IND_TABLE_ENTRY)["cq_idx"]
        if int(queues.max()) >= self._queues:
            raise Refused(admin.ILLEGAL_PARAMETER)
        self._table[:] = queues
        self._enter()

    def set_entry(self, index: int, queue: int) -> None:
        if index >= RETA_ENTRIES or queue >= self._queues:
            raise Refused(admin.ILLEGAL_PARAMETER)
        self._table[index] = queue
        self._enter()


def _structure(buffer: bytes, kind: np.dtype[np.void]) -> np.void:
    if len(buffer) < kind.itemsize:
        raise Refused(admin.MALFORMED_REQUEST)
    return np.frombuffer(buffer[: kind.itemsize], kind)[0]  # type: ignore[no-any-return]
