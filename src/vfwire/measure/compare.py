"""The comparison: all paths in one run, size by size, one path right after the other, into records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vfwire.datapath.probe import SMALLEST_PROBE
from vfwire.errors import UsageError
from vfwire.layouts.ethernet import FCS_BYTES, MAXIMUM_FRAME_BYTES, MINIMUM_FRAME_BYTES
from vfwire.measure.phases import Progress, StreamPlan, Throughput, measure_round_trips, measure_throughput
from vfwire.measure.record import SCHEMA, PathRecord, percentiles_us
from vfwire.paths.path import Path

SIZES = (64, 1518)
SMALLEST, LARGEST = SMALLEST_PROBE + FCS_BYTES, MAXIMUM_FRAME_BYTES + FCS_BYTES
ONE_WAY, BOTH_WAYS = "one-way", "both-ways"
_NO_SAMPLES = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """What to compare. sizes: frame bytes with FCS. seconds: of each throughput window. rtt_seconds: of each
    RTT phase.
    """

    sizes: tuple[int, ...] = SIZES
    seconds: float = 2.0
    rtt_seconds: float = 1.0
    stream: StreamPlan = field(default_factory=StreamPlan)

    def check(self) -> None:
        """Raises UsageError for what makes no sense."""
        for size in self.sizes:
            if not SMALLEST <= size <= LARGEST:
                raise UsageError(f"a frame has {SMALLEST} to {LARGEST} bytes with its FCS, not {size}")
        if not 0.05 <= self.seconds <= 3600 or not 0 <= self.rtt_seconds <= 3600:
            raise UsageError("a measured window takes 0.05 to 3600 seconds")
        if self.stream.rate_pps is not None and self.stream.rate_pps < 1:
            raise UsageError("a rate is at least one packet a second")


def compare(paths: Sequence[Path], plan: ComparePlan, tell: Callable[[str], Progress]) -> list[PathRecord]:
    """Measure each size on each path in turn; a path is opened when its turn comes. `tell` is given each step's
    title and gives what its progress is told to.
    """
    plan.check()
    records = []
    for size in plan.sizes:
        for path in paths:
            if not path.is_open:
                tell(f"opening the path over {path.title}")
                path.open()
            stream = replace(plan.stream, frame_bytes=size, seconds=plan.seconds)
            throughput = measure_throughput(path, stream, tell(f"{path.title}, {size} B: packets a second"))
            record = to_record(path, stream, throughput)
            if plan.rtt_seconds:
                progress = tell(f"{path.title}, {size} B: round trips")
                samples = measure_round_trips(path, size, plan.rtt_seconds, progress=progress)
                record = replace(record, rtt_us=percentiles_us(samples))
            records.append(record)
    return records


def to_record(path: Path, plan: StreamPlan, found: Throughput) -> PathRecord:
    """One record without round trips. In a replay, frame_bytes is the mean, rounded."""
    size = plan.frame_bytes
    if plan.replay:
        size = round(found.received_bytes / found.received) + FCS_BYTES if found.received else 0
    return PathRecord(
        path=path.name,
        driver=path.systems[0].driver,
        frame_bytes=size,
        direction=BOTH_WAYS if plan.both_ways else ONE_WAY,
        line_rate_bps=path.options.line_rate_bps,
        offered_pps=plan.rate_pps,
        packets_per_second=found.delivered_pps,
        bits_per_second=found.delivered_pps * size * 8,
        sent=found.sent,
        received=found.received,
        lost=found.lost,
        lost_to=found.lost_to,
        corrupted=found.corrupted,
        reordered=found.reordered,
        rtt_us=percentiles_us(_NO_SAMPLES),
        cpu_ns_per_packet={group: found.cpu_ns.get(group) for group in ("systems", "layers", "card")},
        hops=hops(found),
        cores=path.cores,
        ring_size=path.systems[0].ring_size,
    )


def hops(found: Throughput) -> dict[str, float | None]:
    """What a delivered packet went through, from counters; None where nothing was delivered."""
    counted = found.counters
    frames, size = found.received, found.received_bytes
    return {
        "layers": counted.layer_frames / frames if frames else None,
        "copies": counted.copied / size if size else None,
        "wakeups_per_packet": counted.notified / frames if frames else None,
        "traps_per_packet": counted.traps / frames if frames else None,
    }


def padded(frames: Sequence[bytes]) -> list[bytes]:
    """The frames as an Ethernet MAC sends them: short ones filled with zeros to the smallest size (IEEE 802.3
    4.2.8).
    """
    return [frame.ljust(MINIMUM_FRAME_BYTES, b"\0") for frame in frames]


def as_json(machine: dict[str, Any], records: Sequence[PathRecord], **more: Any) -> dict[str, Any]:
    """The object that `vfwire compare --json` prints."""
    return {"schema": SCHEMA, "machine": machine, "paths": [record.to_json() for record in records], **more}
