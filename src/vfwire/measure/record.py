"""One result: what `vfwire compare --json` prints for each path and frame size. The keys are a contract."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

SCHEMA = 1
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
_LONGEST_NS = 60_000_000_000
_DIGITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRecord:
    """One path at one frame size. frame_bytes counts the FCS, and so do bits_per_second (no preamble, no
    gap).

    line_rate_bps is None when lifted, offered_pps None for as fast as it goes. lost_to: lost frames by cause.
    rtt_us: in microseconds, by PERCENTILES, with `samples`. cpu_ns_per_packet: `systems`, `layers`, `card`,
    over the measured window. hops: `layers`, `copies`, `wakeups_per_packet`, `traps_per_packet`, from
    counters. cores: the core of each process. corrupted, reordered: None where nobody looked.
    """

    path: str
    driver: str
    frame_bytes: int
    direction: str
    line_rate_bps: int | None
    offered_pps: int | None
    packets_per_second: float
    bits_per_second: float
    sent: int
    received: int
    lost: int
    lost_to: dict[str, int]
    corrupted: int | None
    reordered: int | None
    rtt_us: dict[str, float | None]
    cpu_ns_per_packet: dict[str, float | None]
    hops: dict[str, float | None]
    cores: dict[str, int]
    ring_size: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def percentiles_us(samples_ns: NDArray[np.int64]) -> dict[str, float | None]:
    """Percentiles of round trips, by HdrHistogram with three digits; all None, and 0 samples, for none."""
    if len(samples_ns) == 0:
        return {**dict.fromkeys(PERCENTILES, None), "samples": 0}
    histogram = HdrHistogram(1, _LONGEST_NS, _DIGITS)
    values, counts = np.unique(samples_ns, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(max(1, min(value, _LONGEST_NS)), count)
    found: dict[str, float | None] = {
        name: histogram.get_value_at_percentile(percent) / 1000 for name, percent in PERCENTILES.items()
    }
    return {**found, "samples": len(samples_ns)}


def gains(records: list[PathRecord]) -> list[dict[str, Any]]:
    """What each enhanced path gained over the default path of its frame size: ratios, larger is better, None where
    one is missing. `driver`: the enhanced path's.
    """
    found = []
    defaults = {record.frame_bytes: record for record in records if record.path == "default"}
    for enhanced in records:
        default = defaults.get(enhanced.frame_bytes)
        if enhanced.path == "enhanced" and default is not None:
            found.append(
                {
                    "frame_bytes": enhanced.frame_bytes,
                    "driver": enhanced.driver,
                    "packets_per_second": _ratio(enhanced.packets_per_second, default.packets_per_second),
                    "rtt_p50": _ratio(default.rtt_us["p50"], enhanced.rtt_us["p50"]),
                    "packets_per_cpu_second": _ratio(cpu_ns(default), cpu_ns(enhanced)),
                }
            )
    return found


def cpu_ns(record: PathRecord) -> float | None:
    """CPU nanoseconds a packet that systems and layers burn together (the card is hardware, and apart)."""
    parts = [record.cpu_ns_per_packet["systems"], record.cpu_ns_per_packet["layers"]]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
