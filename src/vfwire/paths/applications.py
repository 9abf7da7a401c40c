"""The compiled applications, as calls: each runs on a started driver in the caller's thread until its board
says stop.

    stream   generate probes (or replay frames), check them, or both at once
    echo     answer everything       forward  from one driver to another and back       ping  time the answers
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath import application as words
from vfwire.datapath.application import APP, BURST
from vfwire.datapath.port import POOL, QUEUE
from vfwire.datapath.probe import GAPS, SINK, SMALLEST_PROBE
from vfwire.datapath.round_trip import run_forward, run_ping
from vfwire.datapath.traffic import SENDER, run_stream
from vfwire.drivers.verbs import Driver, burst
from vfwire.errors import UsageError
from vfwire.memory.compiled import is_cached
from vfwire.paths.board import Board
from vfwire.paths.flow import Station, swapped, templates

SPIN = 4  # empty rounds before the core is offered to others
NO_SPIN = 0  # of who waits for an answer, where the one to answer waits for this very core
TURN_SHARE = 3  # quarters of a ring after which a sender lets a receiver on the same core have its turn
_BACKLOG = 1024  # frames that a late sender may catch up with at once


def _records(dtype: Any, count: int = 1) -> Any:
    return np.zeros(count, dtype).view(np.recarray)


@dataclass(frozen=True, slots=True)
class Packed:
    """Frames one behind another: `data` uint8[n], `index` int64[frames, 2] with offset and length of each."""

    data: NDArray[np.uint8]
    index: NDArray[np.int64]

    @classmethod
    def of(cls, frames: list[bytes]) -> "Packed":
        lengths = np.array([len(frame) for frame in frames], np.int64)
        ends = np.cumsum(lengths)
        index = np.ascontiguousarray(np.stack([ends - lengths, lengths], axis=1), dtype=np.int64)
        return cls(np.frombuffer(b"".join(frames) + bytes(8), np.uint8), index)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What a stream does. frame_bytes: of a probe, without FCS (at least 60). rate_pps 0: as fast as it goes.

    count 0: until told to stop. first: number of the first probe, so that a late frame of an earlier stream
    is told from one of this. quiet_seconds 0: a receiver ends only by STOP 2. window: in a replay, frames
    under way at most.
    """

    send: bool = False
    check: bool = False
    every_byte: bool = False
    frame_bytes: int = SMALLEST_PROBE
    rate_pps: int = 0
    count: int = 0
    flows: int = 1
    first: int = 0
    seconds: float = 0.0
    quiet_seconds: float = 0.0
    window: int = 0
    spin: int = SPIN


@dataclass(slots=True)
class _Kept:
    """Arrays that compiled code knows by address: alive as long as this is."""

    arrays: list[NDArray[Any]] = field(default_factory=list)

    def address(self, array: NDArray[Any]) -> int:
        self.arrays.append(array)
        return int(array.ctypes.data)


def _deadline(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9) if seconds else 0


def stream(
    driver: Driver,
    board: Board,
    options: StreamOptions,
    near: Station,
    far: Station,
    *,
    packed: Packed | None = None,
    peer: Board | None = None,
) -> None:
    """Run a stream between `near` (this driver) and `far`. Results are on the board.

    packed: frames to send, or to expect, in place of probes; peer: the receiver's board for `window`. Raises
    UsageError.
    """
    if options.frame_bytes < SMALLEST_PROBE or options.frame_bytes > driver.pool.buffer_bytes:
        raise UsageError(f"a probe has {SMALLEST_PROBE} to {driver.pool.buffer_bytes} bytes without FCS")
    if options.flows < 1 or options.flows & (options.flows - 1) or options.first % options.flows:
        raise UsageError(
            "the number of flows is a power of two, and the first sequence number a multiple of it"
        )
    kept = _Kept()
    apps, senders, sinks = _records(APP), _records(SENDER), _records(SINK)
    app = apps[0]
    app.board = board.address
    app.send, app.check, app.full = int(options.send), int(options.check), int(options.every_byte)
    app.length, app.rate_pps, app.count = options.frame_bytes, options.rate_pps, options.count
    app.backlog, app.spin, app.turn = _BACKLOG, options.spin, int(driver.tx["size"][0]) * TURN_SHARE // 4
    app.flows, app.first = options.flows, options.first
    app.deadline_ns, app.quiet_ns = _deadline(options.seconds), int(options.quiet_seconds * 1e9)
    app.templates = kept.address(templates(near, far, options.frame_bytes, options.flows))
    app.expected = kept.address(templates(far, near, options.frame_bytes, options.flows))
    app.nexts = kept.address(options.first + np.arange(options.flows, dtype=np.int64))
    app.gaps = kept.address(np.zeros((GAPS, 2), np.int64))
    app.timeout_ns = 200_000_000
    if packed is not None:
        app.packed = kept.address(packed.data)
        app.packed_index = kept.address(packed.index)
        app.packed_count = len(packed)
        app.count = len(packed)
        if peer is not None:
            app.window, app.peer = options.window, peer.address
    senders[0].sequence = options.first
    pool = driver.pool
    run_stream(driver.rx, driver.tx, pool.words, pool.stack, burst(BURST), burst(BURST), apps, senders, sinks)


def echo(driver: Driver, board: Board, *, seconds: float = 0.0, spin: int = SPIN) -> None:
    """Send back whatever comes, with its addresses exchanged, until STOP or the deadline."""
    apps = _records(APP, 2)
    app = apps[0]
    app.board, app.swap, app.spin, app.deadline_ns = board.address, 1, spin, _deadline(seconds)
    none = _records(QUEUE, 0)
    pool = driver.pool
    run_forward(driver.rx, driver.tx, none, none, pool.words, pool.stack, burst(BURST), apps)


def forward(
    one: Driver,
    other: Driver,
    board: Board,
    to_one: bytes,
    to_other: bytes,
    *,
    seconds: float = 0.0,
    spin: int = SPIN,
) -> None:
    """Pass frames from `one` on to `to_other` (a MAC) over `other`, and back to `to_one`. Both drivers are on
    one pool.
    """
    if one.pool is not other.pool or len(one.rx) != len(other.tx) or len(other.rx) != len(one.tx):
        raise UsageError("a forwarder wants two drivers on one pool, with as many queues each")
    apps = _records(APP, 2)
    for app, sender, receiver in ((apps[0], other.mac, to_other), (apps[1], one.mac, to_one)):
        app.board, app.spin, app.deadline_ns = board.address, spin, _deadline(seconds)
        app.from_mac, app.to_mac = int.from_bytes(sender, "little"), int.from_bytes(receiver, "little")
    pool = one.pool
    run_forward(one.rx, other.tx, other.rx, one.tx, pool.words, pool.stack, burst(BURST), apps)


def ping(
    driver: Driver,
    board: Board,
    near: Station,
    far: Station,
    *,
    frame_bytes: int = SMALLEST_PROBE,
    seconds: float = 0.0,
    count: int = 0,
    interval: float = 0.0,
    timeout: float = 0.1,
    first: int = 0,
    spin: int = SPIN,
) -> int:
    """Time round trips to an echo at `far`: board.samples[:n] in ns; returns n. Ends by STOP, `seconds` or
    `count`.
    """
    kept = _Kept()
    apps = _records(APP)
    app = apps[0]
    app.board, app.length, app.flows, app.first = board.address, frame_bytes, 1, first
    app.templates = kept.address(templates(near, far, frame_bytes))
    app.expected = kept.address(swapped(near, far, frame_bytes))
    app.interval_ns, app.timeout_ns = int(interval * 1e9), int(timeout * 1e9)
    app.deadline_ns, app.spin = _deadline(seconds), spin
    pool = driver.pool
    samples = board.samples[: count or len(board.samples)]
    return int(run_ping(driver.rx, driver.tx, pool.words, pool.stack, burst(BURST), apps, samples))


def warm_up_applications(progress: Callable[[str], None] | None = None) -> None:
    """Compile all of the above, or load it from the cache, so that no traffic ever waits for it."""
    board = Board("vfwire-warm-up")
    board.write(words.STOP, 2)
    none, pools, stack = _records(QUEUE, 0), _records(POOL), np.zeros(1, np.int64)
    apps, one = _records(APP, 2), _records(APP)
    for app in (apps[0], one[0]):
        app.board = board.address
    frames = burst(BURST)
    steps: list[tuple[str, Any, tuple[Any, ...]]] = [
        (
            "generator and sink",
            run_stream,
            (none, none, pools, stack, frames, frames, one, _records(SENDER), _records(SINK)),
        ),
        ("echo and forwarder", run_forward, (none, none, none, none, pools, stack, frames, apps)),
        ("ping", run_ping, (none, none, pools, stack, frames, one, board.samples)),
    ]
    for title, function, arguments in steps:
        if progress is not None and not is_cached(function):
            progress(title)
        function(*arguments)
    board.close()
