"""Records: the contract's keys, percentiles, ratios."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vfwire.measure.compare import as_json, hops
from vfwire.measure.phases import UNACCOUNTED, Throughput, account
from vfwire.measure.record import PathRecord, gains, percentiles_us
from vfwire.paths.counters import Counters

KEYS = [
    *("path", "driver", "frame_bytes", "direction", "line_rate_bps", "offered_pps", "packets_per_second"),
    *("bits_per_second", "sent", "received", "lost", "lost_to", "corrupted", "reordered", "rtt_us"),
    *("cpu_ns_per_packet", "hops", "cores", "ring_size"),
]


def record(path: str, **changes: object) -> PathRecord:
    values: dict[str, object] = {
        "path": path,
        "driver": "ixgbevf",
        "frame_bytes": 64,
        "direction": "one-way",
        "line_rate_bps": 10**10,
        "offered_pps": None,
        "packets_per_second": 1e6,
        "bits_per_second": 512e6,
        "sent": 10,
        "received": 9,
        "lost": 1,
        "lost_to": {"spoof check": 1},
        "corrupted": 0,
        "reordered": 0,
        "rtt_us": percentiles_us(np.array([1000], np.int64)),
        "cpu_ns_per_packet": {"systems": 100.0, "layers": 0.0, "card": 50.0},
        "hops": {"layers": 0.0, "copies": 1.0, "wakeups_per_packet": 0.0, "traps_per_packet": 0.0},
        "cores": {"card": 1},
        "ring_size": 1024,
    }
    return PathRecord(**{**values, **changes})  # type: ignore[arg-type]


def test_the_keys_of_the_contract() -> None:
    found = as_json({"cores": 2, "cache_line_round_trip_ns": 100.0}, [record("default")])
    assert (found["schema"], list(found)) == (1, ["schema", "machine", "paths"])
    one = found["paths"][0]
    assert list(one) == KEYS
    assert list(one["rtt_us"]) == ["p50", "p90", "p99", "p99.9", "max", "samples"]
    assert list(one["cpu_ns_per_packet"]) == ["systems", "layers", "card"]
    assert list(one["hops"]) == ["layers", "copies", "wakeups_per_packet", "traps_per_packet"]


def test_percentiles_within_three_digits() -> None:
    samples = np.arange(1, 100_001, dtype=np.int64)
    found = percentiles_us(samples)
    for name, want in (("p50", 50), ("p90", 90), ("p99", 99), ("p99.9", 99.9), ("max", 100)):
        assert found[name] == pytest.approx(want, rel=1e-3)
    assert found["samples"] == 100_000


def test_no_samples_have_no_percentiles() -> None:
    found = percentiles_us(np.zeros(0, np.int64))
    assert found["samples"] == 0 and found["p50"] is None


def test_gains_are_ratios_of_enhanced_over_default() -> None:
    slow = record("default", rtt_us=percentiles_us(np.full(5, 30_000, np.int64)))
    slow = record(
        "default", rtt_us=slow.rtt_us, cpu_ns_per_packet={"systems": 100.0, "layers": 300.0, "card": 1.0}
    )
    fast = record("enhanced", packets_per_second=2e7, rtt_us=percentiles_us(np.full(5, 3_000, np.int64)))
    (gain, other) = gains([slow, fast, replace(fast, driver="ena")])
    assert (gain["driver"], other["driver"]) == ("ixgbevf", "ena")
    assert {**other, "driver": "ixgbevf"} == gain
    assert gain["frame_bytes"] == 64
    assert gain["packets_per_second"] == pytest.approx(20)
    assert gain["rtt_p50"] == pytest.approx(10, rel=1e-2)
    assert gain["packets_per_cpu_second"] == pytest.approx(4)


def test_gains_without_round_trips_or_without_a_pair() -> None:
    none = percentiles_us(np.zeros(0, np.int64))
    (gain,) = gains([record("default", rtt_us=none), record("enhanced", rtt_us=none)])
    assert gain["rtt_p50"] is None
    assert gains([record("enhanced")]) == []


def test_lost_frames_that_no_counter_explains_are_shown() -> None:
    assert account(3, Counter({"spoof check": 3, "link down": 0})) == {"spoof check": 3}
    assert account(3, Counter({"spoof check": 1})) == {"spoof check": 1, UNACCOUNTED: 2}
    assert account(0, Counter()) == {}


def test_hops_are_counters_over_what_was_delivered() -> None:
    counted = Counters(copied=3 * 600, notified=5, traps=2, layer_frames=20)
    found = Throughput(1.0, 10, 10, 10, 10, 600, 0, 0, 0, {}, {}, counted)
    assert hops(found) == {"layers": 2.0, "copies": 3.0, "wakeups_per_packet": 0.5, "traps_per_packet": 0.2}
    nothing = Throughput(1.0, 0, 0, 0, 0, 0, 0, 0, 0, {}, {}, counted)
    assert set(hops(nothing).values()) == {None}


def test_counters_add_up_and_subtract() -> None:
    part = {"copied": 5, "notified": 1, "traps": 2, "drops": {"link down": 4}}
    before = Counters.of([part])
    after = Counters.of([part, {**part, "frames": 7, "drops": {"spoof check": 1}}])
    delta = after.since(before)
    assert (delta.copied, delta.notified, delta.traps, delta.layer_frames) == (5, 1, 2, 7)
    assert delta.drops == Counter({"spoof check": 1})
