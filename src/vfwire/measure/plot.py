"""The comparison as a picture: throughput by frame size, round trips as percentiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfwire.errors import PermissionDenied, UnsupportedMachine, UsageError
from vfwire.measure.record import PERCENTILES, PathRecord

COLOURS = {"netfront": "#b5651d", "ixgbevf": "#1f6f8b", "ena": "#5b8c2a"}
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
_WIDTH = 0.27


def check_plot(target: Path) -> None:
    """Say before a long run what would spoil its end. Raises UnsupportedMachine without matplotlib,
    UsageError.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UnsupportedMachine(
            "--plot wants matplotlib, which is not installed", "pip install 'vfwire[plot]'"
        ) from error
    if target.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{target} is no name for a picture", "end it with .png, .svg or .pdf")
    if not target.resolve().parent.is_dir():
        raise UsageError(f"{target.parent} is no directory", "create it first")


def plot(records: Sequence[PathRecord], target: Path, caption: str) -> None:
    """Draw all records to `target` (.png, .svg or .pdf). caption: one line on the machine and the run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    timed = [record for record in records if record.rtt_us["p50"] is not None]
    figure, axes = pyplot.subplots(1, 2 if timed else 1, figsize=(12 if timed else 7, 5.2), squeeze=False)
    _throughput(axes[0][0], records)
    if timed:
        _round_trips(axes[0][1], timed)
    figure.suptitle("vfwire compare: the enhanced path beside the default path")
    figure.text(0.01, 0.01, caption, fontsize=8, color="#555555")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    try:
        figure.savefig(target, dpi=150)
    except OSError as error:
        raise PermissionDenied(f"{target} cannot be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)


def _throughput(axes: Any, records: Sequence[PathRecord]) -> None:
    sizes = sorted({record.frame_bytes for record in records})
    names = list(dict.fromkeys(record.driver for record in records))
    for at, name in enumerate(names):
        rows = [record for record in records if record.driver == name]
        places = [sizes.index(record.frame_bytes) + (at - (len(names) - 1) / 2) * _WIDTH for record in rows]
        bars = axes.bar(
            places,
            [record.packets_per_second / 1e6 for record in rows],
            _WIDTH * 0.94,
            color=COLOURS.get(name),
            label=name,
        )
        labels = [f"{record.packets_per_second / 1e6:.3g} M\n{_rate(record)}" for record in rows]
        axes.bar_label(bars, labels, padding=2, fontsize=8)
    axes.set_xticks(range(len(sizes)), [f"{size:,} B" for size in sizes])
    axes.set_xlabel("frame size, with FCS")
    axes.set_ylabel("packets received a second, in millions")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    axes.set_title("Throughput by frame size")
    axes.legend(loc="upper right", title="driver")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _round_trips(axes: Any, records: Sequence[PathRecord]) -> None:
    sizes = sorted({record.frame_bytes for record in records})
    for record in records:
        at = sizes.index(record.frame_bytes)
        axes.plot(
            list(PERCENTILES),
            [record.rtt_us[name] for name in PERCENTILES],
            color=COLOURS.get(record.driver),
            linestyle=_DASHES[at % len(_DASHES)],
            marker=_MARKERS[at % len(_MARKERS)],
            label=f"{record.driver}, {record.frame_bytes:,} B",
        )
    axes.set_yscale("log")
    axes.set_xlabel("percentile of round trips")
    axes.set_ylabel("round trip in µs (log scale)")
    axes.set_title("Latency, one frame under way")
    axes.legend(loc="upper left")
    axes.grid(which="both", alpha=0.25)


def _rate(record: PathRecord) -> str:
    gigabits = record.bits_per_second / 1e9
    return f"{gigabits:.3g} Gbit/s"
