"""Who is measured: this project's paths, and what a user would pick instead. A newcomer is one more row."""

from collections.abc import Callable, Mapping
from typing import Any

from bench.common import Contender, records_of
from bench.rivals import memif, testpmd, veth, vhost
from vfwire.errors import VfwireError

OURS = "vfwire enhanced"
SIZES = (64, 1518)
RTT_BUSY = "RTT p50, busy-polling, us"
RTT_BLOCKING = "RTT p50, blocking, us"


def rate_name(frame_bytes: int) -> str:
    return f"packets/s received, {frame_bytes} B"


class Compare:
    """`vfwire compare` with its line rates lifted: one run measures all paths, each is a contender of its own."""

    def __init__(self, program: list[str], seconds: float) -> None:
        self._program = program
        self._seconds = seconds
        self._records: list[dict[str, Any]] = []

    def enhanced(self) -> dict[str, float]:
        arguments = ["compare", "--json", "--line-rate", "off", "--default-cap", "off"]
        arguments += ["--seconds", str(self._seconds)]
        for size in SIZES:
            arguments += ["--size", str(size)]
        self._records = []  # what an earlier round left must not stand for this one if it fails
        self._records = records_of([*self._program, *arguments], timeout=60 + 20 * self._seconds)
        return self._figures("ixgbevf")

    def ena(self) -> dict[str, float]:
        """Of the run that `enhanced` made: the paths are always measured together."""
        return self._figures("ena")

    def default(self) -> dict[str, float]:
        """Of the run that `enhanced` made."""
        return self._figures("netfront")

    def _figures(self, driver: str) -> dict[str, float]:
        figures: dict[str, float] = {}
        for record in self._records:
            if record["driver"] == driver:
                figures[rate_name(record["frame_bytes"])] = record["packets_per_second"]
                if record["frame_bytes"] == SIZES[0] and record["rtt_us"]:
                    figures[RTT_BUSY] = record["rtt_us"]["p50"]
        if not figures:
            raise VfwireError(f"vfwire compare gave no record over {driver}")
        return figures


def veth_figures(seconds: float) -> dict[str, float]:
    """Rates at both sizes, round trips at the smaller."""
    figures: dict[str, float] = {}
    for size in SIZES:
        record = veth.measure(size, seconds, "both" if size == SIZES[0] else "rate")
        figures[rate_name(size)] = record["packets_per_second"]
        if record["rtt_us"]:
            figures[RTT_BUSY] = record["rtt_us"]["busy_polling"]["p50"]
            figures[RTT_BLOCKING] = record["rtt_us"]["blocking"]["p50"]
    return figures


def dpdk_figures(recipe: testpmd.Recipe, seconds: float) -> Callable[[], Mapping[str, float]]:
    def run() -> dict[str, float]:
        records = [testpmd.measure(recipe, size, seconds) for size in SIZES]
        return {rate_name(record["frame_bytes"]): record["packets_per_second"] for record in records}

    return run


def rivals(seconds: float) -> list[Contender]:
    """What a user would pick instead, each left out by name where it is not installed."""
    recipes = [*vhost.RECIPES.values(), *memif.RECIPES.values()]
    dpdk = [Contender(f"DPDK {recipe.name}", dpdk_figures(recipe, seconds)) for recipe in recipes]
    return [Contender("UDP over veth and bridge", lambda: veth_figures(seconds)), *dpdk]


def ours(program: list[str], seconds: float) -> list[Contender]:
    compare = Compare(program, seconds)
    return [
        Contender(OURS, compare.enhanced),
        Contender("vfwire enhanced, ENA", compare.ena),
        Contender("vfwire default", compare.default),
    ]
