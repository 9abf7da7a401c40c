"""Set-ups of an enhanced path of ENAs, measured in turn, round by round: each meets the same weather.

A shared machine can change its speed by a factor of two within minutes, so ratios are taken inside each round.
"""

import json
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import progress_line
from bench.zero_loss import line_rate_pps
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import Pool
from vfwire.errors import WaitTimeout
from vfwire.measure.phases import StreamPlan, Throughput, measure_round_trips, measure_throughput
from vfwire.paths.enhanced import EnhancedPath
from vfwire.paths.path import PathOptions
from vfwire.paths.pinning import CARD, SYSTEMS
from vfwire.paths.process import Family


@dataclass(frozen=True, slots=True)
class Setup:
    """idle_vfs: neighbours on the card that have a driver and no traffic."""

    options: PathOptions
    frame_bytes: int
    flows: int = 1
    idle_vfs: int = 0

    @property
    def line_pps(self) -> int | None:
        rate = self.options.line_rate_bps
        return line_rate_pps(self.frame_bytes, rate) if rate else None


@dataclass(frozen=True, slots=True)
class Run:
    """One window of a set-up. taken: see `record`."""

    throughput: Throughput
    taken: dict[str, float]
    rtt_p50_us: float
    cores: dict[str, int]

    @property
    def card_ns(self) -> float:
        return self.throughput.cpu_ns["card"]


def _taken(path: EnhancedPath, run: Throughput, group: str, names: tuple[str, ...]) -> float:
    cores = len({path.cores[name] for name in names})
    return 1 - run.cpu_ns[group] * run.delivered_pps / 1e9 / cores


def measure_once(setup: Setup, seconds: float) -> Run:
    """Open the path, one window of throughput, one of round trips."""
    with Family() as family, ExitStack() as stack:
        path = EnhancedPath(family, setup.options, "ena", idle_vfs=setup.idle_vfs)
        path.open()
        for socket in path.idle:
            pool = stack.enter_context(Pool(1024))
            stack.enter_context(Ena.open(VfioUserFunction(Path(socket)), pool, ring_size=64))
        plan = StreamPlan(frame_bytes=setup.frame_bytes, seconds=seconds, flows=setup.flows)
        run = measure_throughput(path, plan)
        if not run.cpu_ns:
            raise WaitTimeout(f"no frame arrived in a window of {seconds:g} s: this machine is busy")
        samples = measure_round_trips(path, setup.frame_bytes, seconds)
        taken = {
            "systems": _taken(path, run, "systems", SYSTEMS),
            "card": _taken(path, run, "card", (CARD,)),
        }
        stack.close()
        path.close()
    return Run(run, taken, float(statistics.median(samples.tolist())) / 1000, path.cores)


def record(setup: Setup, runs: list[Run], first: list[Run]) -> dict[str, Any]:
    """Medians of `runs`; first: those of the set-up to compare with, of the same rounds.

    taken: the share of the window in which the cores of the systems, and of the card, who poll and never sleep, ran
    something else. line_share: what arrived of what the line carries.
    """
    pps = statistics.median(run.throughput.delivered_pps for run in runs)
    ratios = (run.card_ns / other.card_ns for run, other in zip(runs, first, strict=True))
    return {
        "frame_bytes": setup.frame_bytes,
        "line_rate_bps": setup.options.line_rate_bps,
        "line_share": None if setup.line_pps is None else round(pps / setup.line_pps, 4),
        "llq_bytes": setup.options.llq,
        "queues": setup.options.queues,
        "idle_vfs": setup.idle_vfs,
        "ring_size": setup.options.ring_size,
        "packets_per_second": round(pps),
        "card_ns_per_packet": round(statistics.median(run.card_ns for run in runs), 1),
        "card_ns_times_first": round(statistics.median(ratios), 2),
        "taken": {
            group: round(statistics.median(run.taken[group] for run in runs), 4)
            for group in ("systems", "card")
        },
        "lost_share": round(statistics.median(run.throughput.lost / run.throughput.sent for run in runs), 5),
        "rtt_p50_us": round(statistics.median(run.rtt_p50_us for run in runs), 1),
        "cores": runs[0].cores,
    }


def in_turn(setups: list[Setup], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A record a set-up, the first one being what the others' `card_ns_times_first` is about."""
    runs: list[list[Run]] = [[] for _ in setups]
    for number in range(rounds):
        for setup, done in zip(setups, runs, strict=True):
            done.append(measure_once(setup, seconds))
        progress_line(f"round {number + 1} of {rounds}")
    found = [record(setup, done, runs[0]) for setup, done in zip(setups, runs, strict=True)]
    for one in found:
        progress_line(json.dumps(one))
    return found
