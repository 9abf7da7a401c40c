"""What a virtualization layer's loop works on: its vifs, its bridge, what is on its way, and why frames were
dropped.

Ports of the bridge: 0 is the uplink, vif v is port v + 1. All arrays are made once, by `new_host`.
"""

from typing import Any, NamedTuple

import numpy as np

from vfwire.datapath.bridge import MAC_ENTRY, TABLE_ENTRIES
from vfwire.datapath.grants import DOMAIN, GRANT_COPY, PREFIX
from vfwire.datapath.port import FRAME, POOL, QUEUE, buffer_of
from vfwire.layouts.ethernet import ETHERNET_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.records import record_at
from vfwire.memory.words import load64, store64

MAX_VIFS = 32
UPLINK = 0  # a port
BURST = 64  # frames taken from one port at a time
MOVES = BURST + 2 * MAX_VIFS  # copies in one batch: a flooded frame takes one for each port
HEADER = PREFIX  # bytes of a frame that the bridge fetches to look at
HEADER_ROOM = 64  # a cache line for each of them
SHORTEST = ETHERNET_BYTES  # frame that is forwarded
BACKLOG = 1024  # frames that wait in the layer for one vif to give buffers, a power of two
STAGED = 4 * MOVES

VIF = np.dtype(
    [
        ("state", "i8"),  # FREE, RUNNING, STOPPED
        ("reason", "i8"),  # why it was stopped: STOP_*
        ("tx", "i8"),  # its transmit ring, mapped
        ("tx_cons", "i8"),  # requests taken, all of them answered (free-running)
        ("tx_event", "i8"),  # eventfd that tells it of transmit responses
        ("chain", "i8"),  # a refused frame goes on in the next request
        (
            "whole",
            "i8",
        ),  # its last frame went to the uplink: the next ones are fetched whole, into buffers for it
        ("rx", "i8"),  # its receive ring, mapped
        ("rx_known", "i8"),  # requests that it was last seen to have made
        ("rx_cons", "i8"),  # requests taken
        ("rx_pushed", "i8"),  # responses published
        ("rx_event", "i8"),  # eventfd that tells it of received frames
        ("headroom", "i8"),  # bytes to leave free before a received frame
        ("backlog_head", "i8"),  # frames that wait for it (free-running)
        ("backlog_tail", "i8"),
        ("learned", "i8"),  # the source address of its last frame, and when that was learned
        ("learned_ns", "i8"),
        ("tx_frames", "i8"),  # taken from it, good ones
        ("tx_bytes", "i8"),
        ("rx_frames", "i8"),  # delivered to it
        ("rx_bytes", "i8"),
        ("notified", "i8"),  # event notifications sent to it
        ("woken", "i8"),  # event notifications received from it
    ],
    align=True,
)

FREE, RUNNING, STOPPED = 0, 1, 2

STOP_TX_INDEX = 1
STOP_RX_INDEX = 2
STOP_EXTRA_INFO = 3
STOP_REASONS = {
    STOP_TX_INDEX: "its transmit ring's request index is beyond the ring",
    STOP_RX_INDEX: "its receive ring's request index is beyond the ring",
    STOP_EXTRA_INFO: "it sent an extra info entry, which was not offered",
}

# Why a frame was dropped; `drops[port, cause]` counts. The port is where it came from, or for causes of the
# receiving side (marked ->) where it was to go.
(
    DROP_NO_REQUEST,
    DROP_NO_BUFFER,
    DROP_UPLINK_FULL,
    DROP_BAD_GRANT,
    DROP_BAD_RX_GRANT,
    DROP_BAD_SIZE,
    DROP_FRAGMENTED,
    DROP_BAD_SOURCE,
    DROP_RESERVED,
    DROP_SAME_PORT,
    DROP_NO_PORT,
    DROP_CHECKSUM,
    DROP_DETACHED,
) = range(13)
DROP_CAUSES = (
    "no receive request",  # -> its receive ring was empty, and as many frames as may wait did
    "no buffer in the layer",
    "uplink ring full",
    "bad grant",
    "bad receive grant",  # ->
    "bad size",
    "in several buffers",  # feature-sg is not offered
    "bad source address",
    "reserved destination address",
    "destination is where it came from",
    "no other port",
    "checksum asked for where none is",
    "receiver went away",  # ->
)

LAYER = np.dtype(
    [
        ("vifs", "i8"),  # 1 + the highest vif in use
        ("uplink", "i8"),  # 1 when there is one
        (
            "lone",
            "i8",
        ),  # the port of the only vif there is beside an uplink, or 0: to flood is then to send to the other
        ("max_frame", "i8"),  # bytes without FCS
        ("stop_word", "i8"),  # address of an int64 that another thread sets: come back now
        ("stopped", "i8"),  # vifs that were stopped since Python last looked
        ("rate_bps", "i8"),  # 0: lifted
        ("credit", "i8"),  # bits x 1e9
        ("credit_ns", "i8"),  # when it was last topped up
        ("credit_waits", "i8"),  # times that frames were left waiting for credit
        ("headers", "i8"),  # address of BURST * HEADER_ROOM bytes; the next ones are addresses of arrays
        ("vif_array", "i8"),  # VIF[MAX_VIFS]
        ("domains", "i8"),  # DOMAIN[MAX_VIFS]
        ("requests", "i8"),  # REQUEST[BURST]
        ("fetches", "i8"),  # GRANT_COPY[BURST]: of headers
        ("copies", "i8"),  # GRANT_COPY[MOVES]
        ("moves", "i8"),  # MOVE[MOVES]: one for each copy
        ("backlog", "i8"),  # WAITING[MAX_VIFS * BACKLOG]
        ("table", "i8"),  # MAC_ENTRY[TABLE_ENTRIES]
        ("drops", "i8"),  # int64[MAX_VIFS + 1, causes]
        ("staged", "i8"),  # FRAME[STAGED]
        ("pool", "i8"),  # POOL[1]: the layer's own buffers, which are the uplink's where there is one
        ("stack", "i8"),  # that pool's stack
        ("planned", "i8"),  # copies in the batch being made
        ("staged_start", "i8"),  # frames on their way to the uplink: staged[start:end]
        ("staged_end", "i8"),
        ("staged_ns", "i8"),  # when the uplink last took one
        ("uplink_rx_frames", "i8"),
        ("uplink_rx_bytes", "i8"),
        ("uplink_tx_frames", "i8"),
        ("uplink_tx_bytes", "i8"),
        ("learning", "i8"),  # 0: every frame goes to every other port, as in a hub
        ("uplink_heard", "i8"),  # the source address of the uplink's last frame, and when it was learned
        ("uplink_heard_ns", "i8"),
        ("copied_bytes", "i8"),  # all that the layer copied
        ("rounds", "i8"),
        ("idle_rounds", "i8"),
    ],
    align=True,
)

REQUEST = np.dtype(
    [
        ("gref", "i8"),
        ("offset", "i8"),
        ("flags", "i8"),
        ("id", "i8"),
        ("size", "i8"),
        ("status", "i8"),
        ("fetched", "i8"),  # address of the whole frame in an own buffer, or of its header
        ("buffer", "i8"),  # that buffer, or 0
    ],
    align=True,
)

# What is to be done when a copy of the batch is made.
MOVE = np.dtype(
    [
        ("port", "i8"),  # where it goes
        ("response", "i8"),  # into a vif's ring: the response to write; 0 on the way to a buffer
        ("index", "i8"),  # of that response, or of the vif's backlog entry
        ("release", "i8"),  # own buffer to give back, or 0
        ("request", "i8"),  # index of the transmit request to blame, or -1
    ],
    align=True,
)

WAITING = np.dtype([("address", "i8"), ("length", "i8"), ("flags", "i8")], align=True)


class Host(NamedTuple):
    """The arrays of one layer. LAYER has their addresses for the compiled loop; Python reads them here."""

    layer: Any  # LAYER[1]
    vifs: Any
    domains: Any
    drops: Any
    staged: Any
    arrived: Any  # FRAME[BURST], from the uplink
    uplink_rx: Any  # QUEUE[...], empty without an uplink
    uplink_tx: Any
    pool: Any  # POOL[1]
    stack: Any
    own: Any  # uint8: the stop word, and headers
    others: tuple[Any, ...]  # what is only kept alive


_vif_at = record_at(VIF)
_request_at = record_at(REQUEST)
_copy_at = record_at(GRANT_COPY)
_move_at = record_at(MOVE)
_waiting_at = record_at(WAITING)
_frame_at = record_at(FRAME)
_pool_at = record_at(POOL)
_VIF_BYTES = VIF.itemsize
_REQUEST_BYTES = REQUEST.itemsize
_COPY_BYTES = GRANT_COPY.itemsize
_MOVE_BYTES = MOVE.itemsize
_WAITING_BYTES = WAITING.itemsize
_FRAME_BYTES = FRAME.itemsize
_CAUSES = len(DROP_CAUSES)


@inlined
def vif_of(layer, v):  # type: ignore[no-untyped-def]
    return _vif_at(layer.vif_array + v * _VIF_BYTES)


@inlined
def request_of(layer, i):  # type: ignore[no-untyped-def]
    return _request_at(layer.requests + i * _REQUEST_BYTES)


@inlined
def fetch_of(layer, i):  # type: ignore[no-untyped-def]
    return _copy_at(layer.fetches + i * _COPY_BYTES)


@inlined
def copy_of(layer, i):  # type: ignore[no-untyped-def]
    return _copy_at(layer.copies + i * _COPY_BYTES)


@inlined
def move_of(layer, i):  # type: ignore[no-untyped-def]
    return _move_at(layer.moves + i * _MOVE_BYTES)


@inlined
def waiting_of(layer, i):  # type: ignore[no-untyped-def]
    return _waiting_at(layer.backlog + i * _WAITING_BYTES)


@inlined
def staged_of(layer, i):  # type: ignore[no-untyped-def]
    return _frame_at(layer.staged + i * _FRAME_BYTES)


@inlined
def take_own(layer):  # type: ignore[no-untyped-def]
    """port.take, by address: an array is seven arguments in every call on a frame's way."""
    pool = _pool_at(layer.pool)
    free = pool.free
    if free == 0:
        pool.failed += 1
        return 0
    pool.free = free - 1
    return load64(layer.stack + (free - 1) * 8)


@inlined
def give_own(layer, address):  # type: ignore[no-untyped-def]
    """port.give, by address."""
    pool = _pool_at(layer.pool)
    store64(layer.stack + pool.free * 8, buffer_of(pool, address))
    pool.free += 1


@inlined
def drop(layer, port, cause):  # type: ignore[no-untyped-def]
    """Count a dropped frame."""
    counter = layer.drops + (port * _CAUSES + cause) * 8
    store64(counter, load64(counter) + 1)


@inlined
def stop_wanted(layer):  # type: ignore[no-untyped-def]
    return load64(layer.stop_word) != 0


def _records(dtype: Any, count: int) -> Any:
    return np.zeros(count, dtype).view(np.recarray)


def new_host(uplink_rx: Any, uplink_tx: Any, pool: Any, stack: Any) -> Host:
    """All arrays of a layer. `uplink_rx` and `uplink_tx` None: no uplink."""
    arrays = {
        "vif_array": _records(VIF, MAX_VIFS),
        "domains": _records(DOMAIN, MAX_VIFS),
        "requests": _records(REQUEST, BURST),
        "fetches": _records(GRANT_COPY, BURST),
        "copies": _records(GRANT_COPY, MOVES),
        "moves": _records(MOVE, MOVES),
        "backlog": _records(WAITING, MAX_VIFS * BACKLOG),
        "table": _records(MAC_ENTRY, TABLE_ENTRIES),
        "drops": np.zeros((MAX_VIFS + 1, _CAUSES), np.int64),
        "staged": _records(FRAME, STAGED),
        "pool": pool,
        "stack": stack,
    }
    own = np.zeros(BURST * HEADER_ROOM + 128, np.uint8)
    start = -(-own.ctypes.data // 64) * 64
    layer = _records(LAYER, 1)
    for name, value in arrays.items():
        layer[0][name] = value.ctypes.data
    layer[0].uplink = int(uplink_rx is not None)
    layer[0].stop_word = start
    layer[0].headers = start + 64
    none = _records(QUEUE, 0)
    return Host(
        layer=layer,
        vifs=arrays["vif_array"],
        domains=arrays["domains"],
        drops=arrays["drops"],
        staged=arrays["staged"],
        arrived=_records(FRAME, BURST),
        uplink_rx=none if uplink_rx is None else uplink_rx,
        uplink_tx=none if uplink_tx is None else uplink_tx,
        pool=pool,
        stack=stack,
        own=own,
        others=tuple(arrays.values()),
    )


def count_vifs(host: Host) -> None:
    """To be called when a vif has come or gone, by whoever runs the loop."""
    layer = host.layer[0]
    running = [v for v in range(MAX_VIFS) if host.vifs[v]["state"] == RUNNING]
    layer.vifs = max(running, default=-1) + 1
    layer.lone = running[0] + 1 if len(running) == 1 and layer.uplink else 0
