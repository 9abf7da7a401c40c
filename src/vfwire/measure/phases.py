"""The two phases of a measurement on an open path: throughput with losses accounted, and round trips."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath import application as words
from vfwire.layouts.ethernet import FCS_BYTES
from vfwire.paths.counters import Counters
from vfwire.paths.path import Path, System

WARM_UP_SECONDS = 0.2
UNACCOUNTED = "unaccounted"
_SETTLE_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 0.002
_QUIET_SECONDS = 1.0  # nothing has arrived or been dropped for as long: what is missing now is lost
_LOOK_SECONDS = 0.005
_REPLAY_WINDOW = 256
_REPLAY_SECONDS = 600.0

Progress = Callable[[str, float], None]
"""Told what goes on, and how far it is from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What to send. frame_bytes counts the FCS. rate_pps None: as fast as it goes. replay: frames of the
    path's capture.
    """

    frame_bytes: int = 64
    seconds: float = 2.0
    rate_pps: int | None = None
    both_ways: bool = False
    every_byte: bool = False
    flows: int = 1
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Throughput:
    """Rates over the window of `seconds`; counts over the whole phase, from the first frame to the last."""

    seconds: float
    delivered_pps: float
    sent_pps: float
    sent: int
    received: int
    received_bytes: int
    corrupted: int
    reordered: int
    lost: int
    lost_to: dict[str, int]
    cpu_ns: dict[str, float]
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a running path. cpu: of each process, by its place in `path.children`."""

    at: float
    sent: int
    received: int
    cpu: list[int]


def _total(systems: list[System], word: int) -> int:
    return sum(system.board.read(word) for system in systems)


def _look(path: Path, senders: list[System], receivers: list[System]) -> _Look:
    return _Look(
        time.perf_counter(),
        _total(senders, words.SENT),
        _total(receivers, words.RECEIVED),
        [child.cpu_ns() for child in path.children],
    )


def measure_throughput(path: Path, plan: StreamPlan, progress: Progress | None = None) -> Throughput:
    """Run one stream (both ways: two) and account for every frame. Raises PeerGone, WaitTimeout."""
    one, other = path.systems
    senders = [one, other] if plan.both_ways else [one]
    receivers = [other, one] if plan.both_ways else [other]
    before, drops_before = path.count(), path.count_drops()
    _start(path, plan)
    if plan.replay:
        first = _look(path, senders, receivers)
        path.family.wait_until(
            lambda: one.board.read(words.PHASE) >= words.STOPPED_SENDING,
            _REPLAY_SECONDS,
            "the end of the replay",
        )
    else:
        _note_first_packet(path, receivers)
        path.family.wait_time(WARM_UP_SECONDS)
        first = _look(path, senders, receivers)
        _wait_window(path, plan.seconds, progress)
    last = _look(path, senders, receivers)
    for system in senders:
        path.stop(system, 1)
    _wait_settled(path, senders, receivers, drops_before)
    for system in path.systems:
        path.stop(system, 2)
    for system in path.systems:
        path.wait_end(system)
    return _result(path, senders, receivers, first, last, path.count().since(before))


def _note_first_packet(path: Path, receivers: list[System]) -> None:
    """Remember when the path's very first packet arrived. A path on which nothing does is measured all the
    same.
    """
    if path.first_packet_at is None:
        deadline = time.monotonic() + WARM_UP_SECONDS
        while not (arrived := _arrived(receivers)) and time.monotonic() < deadline:
            path.family.wait_time(_FIRST_LOOK_SECONDS)
        path.first_packet_at = time.clock_gettime(time.CLOCK_BOOTTIME) if arrived else None


def _start(path: Path, plan: StreamPlan) -> None:
    one, other = path.systems
    options = {
        "frame_bytes": plan.frame_bytes - FCS_BYTES,
        "every_byte": plan.every_byte,
        "flows": plan.flows,
        "first": path.next_sequence(plan.flows),
    }
    sending = {"send": True, "rate_pps": plan.rate_pps or 0, "window": _REPLAY_WINDOW if plan.replay else 0}
    if plan.both_ways:
        for system in (other, one):
            path.start_stream(system, {**options, **sending, "check": True})
        return
    path.start_stream(other, {**options, "check": True}, replay=plan.replay)
    path.start_stream(one, {**options, **sending}, replay=plan.replay)


def _wait_window(path: Path, seconds: float, progress: Progress | None) -> None:
    """The measured time; says how far it is without touching the systems."""
    steps = max(1, round(seconds / 0.25))
    for step in range(steps):
        path.family.wait_time(seconds / steps)
        if progress is not None:
            progress("", (step + 1) / steps)


def _wait_settled(path: Path, senders: list[System], receivers: list[System], drops_before: int) -> None:
    """Wait until every frame sent has arrived or is known to be dropped, or nothing has happened for
    _QUIET_SECONDS.
    """
    path.family.wait_until(
        lambda: all(system.board.read(words.PHASE) >= words.STOPPED_SENDING for system in senders),
        _SETTLE_SECONDS,
        "the end of sending",
    )
    sent = _total(senders, words.SENT)
    known, since = -1, time.monotonic()
    while time.monotonic() - since < _QUIET_SECONDS:
        arrived = _arrived(receivers)
        if arrived >= sent:
            return
        now = arrived + path.count_drops() - drops_before
        if now >= sent:
            return
        if now != known:
            known, since = now, time.monotonic()
        path.family.wait_time(_LOOK_SECONDS)


def _arrived(receivers: list[System]) -> int:
    return _total(receivers, words.RECEIVED) + _total(receivers, words.CORRUPTED)


def _result(
    path: Path, senders: list[System], receivers: list[System], first: _Look, last: _Look, counted: Counters
) -> Throughput:
    seconds = last.at - first.at
    sent = _total(senders, words.SENT)
    received = _total(receivers, words.RECEIVED)
    corrupted = _total(receivers, words.CORRUPTED)
    lost = max(0, sent - received - corrupted)
    delivered = last.received - first.received
    used = dict(
        zip((child.name for child in path.children), np.subtract(last.cpu, first.cpu).tolist(), strict=True)
    )
    groups = {
        "systems": [system.child.name for system in path.systems],
        "layers": [child.name for child in path.layers],
        "card": [path.card.name],
    }
    return Throughput(
        seconds=seconds,
        delivered_pps=delivered / seconds,
        sent_pps=(last.sent - first.sent) / seconds,
        sent=sent,
        received=received,
        received_bytes=_total(receivers, words.RECEIVED_BYTES),
        corrupted=corrupted,
        reordered=_total(receivers, words.REORDERED),
        lost=lost,
        lost_to=account(lost, counted.drops),
        cpu_ns={
            group: sum(used[name] for name in names) / delivered
            for group, names in groups.items()
            if delivered > 0
        },
        counters=counted,
    )


def account(lost: int, drops: Counter[str]) -> dict[str, int]:
    """Lost frames by cause. What no counter explains stands under UNACCOUNTED; it is never hidden."""
    causes = {cause: count for cause, count in sorted(drops.items()) if count}
    missing = lost - sum(causes.values())
    return {**causes, UNACCOUNTED: missing} if missing else causes


def measure_round_trips(
    path: Path,
    frame_bytes: int,
    seconds: float,
    *,
    interval: float = 0.0,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Round trips from system 1 to system 2 and back in ns, one under way at a time, back to back or every
    `interval` s.

    The array is a copy; it is empty when nothing came back.
    """
    one, other = path.systems
    path.start_echo()
    path.start_ping(
        frame_bytes=frame_bytes - FCS_BYTES,
        seconds=seconds,
        interval=interval,
        first=path.next_sequence(1),
    )
    _wait_window(path, seconds, progress)
    count = path.wait_end(one)
    path.stop(other, 2)
    path.wait_end(other)
    return one.board.samples[:count].copy()
