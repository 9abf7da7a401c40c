"""Measure several things in turn, round by round, so that each meets the same weather; then take medians.

A contender's run returns figures by name ("pps 64 B", "rtt p50 us"): the same names are compared with each other.
Ratios are taken inside each round first, since a shared machine can halve its speed between two rounds.
"""

import contextlib
import ctypes
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from vfwire.errors import UnsupportedMachine, VfwireError, WaitTimeout
from vfwire.measure.machine import cache_line_round_trip_ns as cache_line_round_trip_ns
from vfwire.measure.machine import core_handover_ns, usable_cores
from vfwire.measure.machine import describe_machine as describe_machine

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Contender:
    """Something to measure. `run` takes bounded time; UnsupportedMachine from it means "not installed": left out."""

    name: str
    run: Callable[[], Figures]


@dataclass
class Results:
    """`rounds[contender][figure]`: one value a round, in order; None where that round failed."""

    rounds: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    cache_line_ns: list[float | None] = field(default_factory=list)
    handover_ns: list[float | None] = field(default_factory=list)

    def figures(self) -> list[str]:
        return list(dict.fromkeys(name for values in self.rounds.values() for name in values))

    def median(self, contender: str, figure: str) -> float | None:
        values = [value for value in self.rounds.get(contender, {}).get(figure, []) if value is not None]
        return statistics.median(values) if values else None

    def ratio(self, contender: str, baseline: str, figure: str) -> float | None:
        """The median over rounds of contender / baseline, from rounds in which both have the figure."""
        ours = self.rounds.get(contender, {}).get(figure, [])
        theirs = self.rounds.get(baseline, {}).get(figure, [])
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a is not None and b]
        return statistics.median(a / b for a, b in pairs) if pairs else None


def interleave(
    contenders: Sequence[Contender], rounds: int, progress: Callable[[str], None] = lambda _text: None
) -> Results:
    """Run every contender once a round, `rounds` times. A contender that is not installed is named and left out; one
    that fails in a round is named, and the round goes on."""
    results = Results()
    for number in range(rounds):
        results.cache_line_ns.append(cache_line_round_trip_ns())
        results.handover_ns.append(core_handover_ns())
        for contender in contenders:
            if contender.name in results.absent:
                continue
            begin = time.monotonic()
            try:
                figures = dict(contender.run())
            except UnsupportedMachine as error:
                results.absent[contender.name] = str(error)
                progress(f"{contender.name}: left out: {error}")
                continue
            except VfwireError as error:
                results.failed.append(f"round {number + 1}, {contender.name}: {error}")
                progress(results.failed[-1])
                figures = {}
            progress(f"round {number + 1}/{rounds} {contender.name}: {time.monotonic() - begin:.1f} s")
            _note(results, contender.name, number, figures)
    return results


def _note(results: Results, contender: str, number: int, figures: Figures) -> None:
    """Keep every list as long as the rounds so far, with None where a figure is missing."""
    held = results.rounds.setdefault(contender, {})
    for name in figures:
        held.setdefault(name, [])
    for name, values in held.items():
        values.extend([None] * (number - len(values)))
        values.append(figures.get(name))


def run_json(arguments: Sequence[str], timeout: float) -> dict[str, Any]:
    """Run a command that prints one JSON object and give it.

    Raises UnsupportedMachine when it says so by its exit code, WaitTimeout past `timeout` seconds, VfwireError with
    its last line otherwise.
    """
    with subprocess.Popen(
        list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            stop_process(process)
            raise WaitTimeout(f"{' '.join(arguments)} was not done after {timeout:g} s") from None
    if process.returncode:
        line = (err.strip().splitlines() or ["no message"])[-1]
        kind = UnsupportedMachine if process.returncode == UnsupportedMachine.exit_code else VfwireError
        raise kind(line)
    answer: dict[str, Any] = json.loads(out)
    return answer


def records_of(arguments: Sequence[str], timeout: float) -> list[dict[str, Any]]:
    """The list under "records" (or "paths") of what `run_json` gives."""
    answer = run_json(arguments, timeout)
    records: list[dict[str, Any]] = answer["records"] if "records" in answer else answer["paths"]
    return records


def stop_process(process: subprocess.Popen[Any], patience: float = 3.0) -> None:
    """End one process by its id: asked first, killed after `patience` seconds. Returns when it is gone."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def core_pair() -> tuple[int, int]:
    """The two cores that a pair of processes is pinned to. Raises UnsupportedMachine where there is one only."""
    cores = usable_cores()
    if len(cores) < 2:
        raise UnsupportedMachine("this process may use one core only", "give it two, for example by taskset")
    return cores[0], cores[1]


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program as `vfwire` does: one line on stderr, the error's own exit code."""
    try:
        yield
    except VfwireError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def percentiles_us(samples_ns: Any) -> dict[str, float]:
    """p50, p90, p99, p99.9 and max in microseconds, and how many samples, of an array of nanoseconds."""
    import numpy as np

    if len(samples_ns) == 0:
        raise WaitTimeout("no round trip came back")
    named = {f"p{rank:g}": float(np.percentile(samples_ns, rank)) for rank in (50, 90, 99, 99.9)}
    figures = {name: round(value / 1e3, 2) for name, value in named.items()}
    return {**figures, "max": round(float(np.max(samples_ns)) / 1e3, 2), "samples": len(samples_ns)}


def report(results: Results, baseline: str) -> dict[str, Any]:
    """All of it as one JSON-able object: medians, rounds, and ratios to `baseline`."""
    return {
        "machine": describe_machine(),
        "cache_line_round_trip_ns": results.cache_line_ns,
        "core_handover_ns": results.handover_ns,
        "baseline": baseline,
        "absent": results.absent,
        "failed": results.failed,
        "contenders": {
            name: {
                figure: {
                    "median": results.median(name, figure),
                    "rounds": values,
                    "baseline_is": results.ratio(baseline, name, figure),
                }
                for figure, values in figures.items()
            }
            for name, figures in results.rounds.items()
        },
    }


def show(results: Results, baseline: str, console: Console | None = None) -> None:
    """Print a table for each figure: median, spread, and how many times theirs the baseline's value is."""
    console = console or Console()
    for figure in results.figures():
        table = Table(title=figure, title_justify="left")
        table.add_column("contender")
        for heading in ("median", "lowest", "highest", f"{baseline} is"):
            table.add_column(heading, justify="right")
        for name in results.rounds:
            values = [value for value in results.rounds[name].get(figure, []) if value is not None]
            if not values:
                continue
            ratio = results.ratio(baseline, name, figure)
            times = "" if ratio is None or name == baseline else f"{ratio:.2f} x"
            row = (statistics.median(values), min(values), max(values))
            table.add_row(name, *(_short(value) for value in row), times)
        console.print(table)
    by_round = {
        "cache line to the other core and back": results.cache_line_ns,
        "a core to another thread and back": results.handover_ns,
    }
    for what, taken in by_round.items():
        line = ", ".join(f"{value:,.0f}" for value in taken if value is not None)
        console.print(f"{what}, by round: {line or 'unknown'} ns")
    for name, cause in results.absent.items():
        console.print(f"{name} was left out: {cause}")
    for line in results.failed:
        console.print(f"failed: {line}")


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def progress_line(text: str) -> None:
    """Progress goes to stderr, so that stdout is the result alone."""
    print(text, file=sys.stderr, flush=True)


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this repository with this Python."""
    return [sys.executable, "-m", module, *arguments]


def die_with_parent() -> None:
    """Called in a child: the kernel kills it when its parent ends in whatever way (prctl(2) PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
