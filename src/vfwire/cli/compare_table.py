"""The table of `vfwire compare`: for each frame size one column a path, then what the enhanced paths gained."""

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from vfwire.measure.record import PERCENTILES, PathRecord, cpu_ns

_GAINS = {
    "packets_per_second": "packets a second",
    "rtt_p50": "shorter round trip, p50",
    "packets_per_cpu_second": "packets a second of CPU",
}
NONE = "–"
_WIDEST = 1000


def show(
    machine: dict[str, Any],
    records: Sequence[PathRecord],
    gains: Sequence[dict[str, Any]],
    run: dict[str, Any],
) -> None:
    """Print everything to stdout."""
    console = Console(highlight=False)
    for size in dict.fromkeys(record.frame_bytes for record in records):
        print_whole(console, _table(size, [record for record in records if record.frame_bytes == size], run))
    show_gains(console, gains)
    round_trip = machine["cache_line_round_trip_ns"]
    line = f", a cache line to another core and back {round_trip:g} ns" if round_trip else ""
    if handover := machine["core_handover_ns"]:
        line += f", a core to another thread and back {handover / 1000:.1f} us"
    cap = run["default_cap_bps"]
    console.print(f"default path: {'not capped' if cap is None else 'capped at ' + scaled(cap, 'bit/s')}")
    console.print(f"checked: {run['check']}")
    console.print(f"on {machine['cpu']}, {machine['cores']} cores{line}")


def print_whole(console: Console, table: Table) -> None:
    """No column is cut off: a file has no edge, and on a terminal that is too narrow lines run over it."""
    room = Measurement.get(console, console.options.update(max_width=_WIDEST), table)
    between = 2 * len(table.columns) + 2  # which Rich leaves out where a column has a least width
    console.width = max(console.width, between + (room.minimum if console.is_terminal else room.maximum))
    console.print(table)


def show_gains(
    console: Console, gains: Sequence[dict[str, Any]], title: str = "enhanced over default"
) -> None:
    """What was gained, a column for each frame size. Prints nothing where nothing is known."""
    known = [gain for gain in gains if any(gain[key] is not None for key in _GAINS)]
    if not known:
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for gain in known:
        table.add_column(gain.get("via") or f"{gain['frame_bytes']:,} B\n{gain['driver']}", justify="right")
    for key, title in _GAINS.items():
        table.add_row(title, *(f"× {_ratio(gain[key])}" for gain in known))
    print_whole(console, table)


def _table(size: int, records: Sequence[PathRecord], run: dict[str, Any]) -> Table:
    replay = run["replay"]
    title = f"{replay['frames']:,} frames of {replay['file']}" if replay else f"{size:,}-byte frames"
    where = "one host" if run["same_host"] else "two hosts"
    ways = records[0].direction
    table = Table(title=f"{title}, {ways}, {where}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for record in records:
        table.add_column(f"{record.path} path", justify="right", min_width=18)
    for name, value in _ROWS:
        cells = [value(record) for record in records]
        if any(cell != NONE for cell in cells):
            table.add_row(name, *cells)
    return table


def _three_digits(value: float) -> float:
    """So that 999.7 is told as 1,000 (of `.3g`: 1e+03)."""
    return float(f"{value:.3g}")


def scaled(value: float, unit: str) -> str:
    """Three digits and a prefix: 12.3 M."""
    value = _three_digits(value)
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def _limit(record: PathRecord) -> str:
    rate = "line rate lifted" if record.line_rate_bps is None else scaled(record.line_rate_bps, "bit/s")
    return (
        rate if record.offered_pps is None else f"{rate}\n{scaled(record.offered_pps, '')} a second offered"
    )


def _loss(record: PathRecord) -> str:
    if not record.lost:
        return f"0 of {record.sent:,}"
    causes = "\n".join(f"{cause} {count:,}" for cause, count in record.lost_to.items())
    return f"{record.lost / record.sent:.2%} of {record.sent:,}\n{causes}"


def _harm(record: PathRecord) -> str:
    if record.corrupted is None or record.reordered is None:
        return NONE
    return f"{record.corrupted:,} / {record.reordered:,}"


def _percentile(name: str) -> Callable[[PathRecord], str]:
    def value(record: PathRecord) -> str:
        found = record.rtt_us[name]
        return NONE if found is None else f"{found:,.1f} µs"

    return value


def percentiles() -> list[tuple[str, Callable[[PathRecord], str]]]:
    """The rows of a table that tell of round trips."""
    return [(f"round trip {name}", _percentile(name)) for name in PERCENTILES]


def number(value: float | None, unit: str = "") -> str:
    """Three digits, NONE for none."""
    if value is None:
        return NONE
    text = f"{value:.3g}" if _three_digits(value) < 1000 else f"{value:,.0f}"
    return f"{text} {unit}".rstrip()


def _ratio(value: float | int | None) -> str:
    return number(value)


def _cores(record: PathRecord) -> str:
    """Who shares a core with whom: "0: system 1, system 2"."""
    by_core: dict[int, list[str]] = {}
    for name, core in record.cores.items():
        by_core.setdefault(core, []).append(name)
    return "\n".join(f"{core}: {', '.join(names)}" for core, names in sorted(by_core.items()))


_ROWS: list[tuple[str, Callable[[PathRecord], str]]] = [
    ("driver", lambda record: record.driver),
    ("packets a second", lambda record: scaled(record.packets_per_second, "")),
    ("bits a second", lambda record: scaled(record.bits_per_second, "bit/s")),
    ("lost", _loss),
    ("corrupted / reordered", _harm),
    *percentiles(),
    ("CPU a packet", lambda record: number(cpu_ns(record), "ns")),
    ("  of that the layers", lambda record: number(record.cpu_ns_per_packet["layers"], "ns")),
    ("  apart: the card", lambda record: number(record.cpu_ns_per_packet["card"], "ns")),
    ("layers crossed", lambda record: number(record.hops["layers"])),
    ("copies", lambda record: number(record.hops["copies"])),
    ("wake-ups a packet", lambda record: number(record.hops["wakeups_per_packet"])),
    ("traps a packet", lambda record: number(record.hops["traps_per_packet"])),
    ("limits", _limit),
    ("ring size", lambda record: f"{record.ring_size:,}"),
    ("cores", _cores),
]
