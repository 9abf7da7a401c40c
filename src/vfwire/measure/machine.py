"""What machine a figure was taken on: no two-core result without the cache line round trip beside it, and no round trip
of systems that share a core without what it costs to hand that core over.
"""

import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np

from vfwire.datapath.cache_line import ping, pong
from vfwire.memory.shared import PAGE, SharedMemory

_SAMPLES = 64
_ROUND_TRIPS = 200  # a sample of 200 at 50 ns is 10 us: short enough to fall between two time slices
_HANDOVERS = 50


def usable_cores() -> list[int]:
    """The cores that this process may run on, in order."""
    return sorted(os.sched_getaffinity(0))


def describe_machine() -> dict[str, Any]:
    """What stands beside every result: `cpu`, `cores`, `kernel`, `python`, `numba`, `numpy`, `memory_bytes`,
    `hypervisor` (False on bare metal), `cache_line_round_trip_ns` (None where this process has one core),
    `cache_line_cores` (the two that it was taken on) and `core_handover_ns` (one core, given to another and back).

    Takes up to 100 ms, and about a second more when the loop compiles for the first time.
    """
    cores = usable_cores()
    model, virtual = _cpu()
    pair = cores[:2]
    return {
        "cpu": model,
        "cores": len(cores),
        "hypervisor": virtual,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * PAGE,
        "cache_line_round_trip_ns": cache_line_round_trip_ns(pair),
        "cache_line_cores": pair,
        "core_handover_ns": core_handover_ns(),
    }


def cache_line_round_trip_ns(cores: Sequence[int] | None = None, limit_ms: int = 40) -> float | None:
    """The median time in which a cache line goes to another core and comes back, in nanoseconds.

    cores: the two to use, by default the first two of this process. Ends after `limit_ms` at the latest, with what
    it has; None where there are not two cores, or when no sample was finished in time (the cores were busy).
    """
    pair = list(usable_cores() if cores is None else cores)[:2]
    if len(pair) < 2 or pair[0] == pair[1]:
        return None
    return _round_trip_ns(pair, _ROUND_TRIPS, limit_ms, give_way=False)


def core_handover_ns(core: int | None = None, limit_ms: int = 40) -> float | None:
    """The median time in which a core goes to another thread and comes back (sched_yield, twice), in nanoseconds.

    core: by default the first of this process. None where it was too busy. Between processes it takes a little longer.
    """
    chosen = usable_cores()[0] if core is None else core
    return _round_trip_ns([chosen, chosen], _HANDOVERS, limit_ms, give_way=True)


def _round_trip_ns(pair: Sequence[int], rounds: int, limit_ms: int, give_way: bool) -> float | None:
    """The median over samples of `rounds` round trips of a word between two threads, each on its core of `pair`."""
    samples = np.zeros(_SAMPLES, np.int64)
    with SharedMemory.create("vfwire-cache-line", PAGE) as memory:
        word = memory.address
        ping(word, samples, 0, 0, 0, give_way)  # compiles, outside of the time that is bounded
        pong(word, 0, give_way)  # which left STOP in the word: this returns at once
        memory.array[:8] = 0
        deadline = time.monotonic_ns() + limit_ms * 1_000_000
        filled: list[int] = []
        threads = [
            threading.Thread(target=_pinned, args=(pair[1], lambda: pong(word, deadline, give_way))),
            threading.Thread(
                target=_pinned,
                args=(
                    pair[0],
                    lambda: filled.append(ping(word, samples, _SAMPLES, rounds, deadline, give_way)),
                ),
            ),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    count = filled[0] if filled else 0
    return round(float(np.median(samples[:count])) / rounds, 1) if count else None


def _pinned(core: int, work: Callable[[], object]) -> None:
    """Run `work` with this thread on one core."""
    try:
        os.sched_setaffinity(threading.get_native_id(), {core})
    except OSError:
        return
    work()


def _cpu() -> tuple[str, bool]:
    """The processor's name, and whether a hypervisor is under us."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    model = fields.get("model name") or fields.get("CPU part") or platform.machine()
    return model, "hypervisor" in fields.get("flags", "").split()
