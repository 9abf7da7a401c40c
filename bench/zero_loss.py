"""RFC 2544's throughput of the enhanced path, line rate on: the highest rate at which no frame is lost, by search.

    python -m bench.zero_loss [--seconds 2] [--ring-size 1024 --ring-size 4096] [--driver ena] [--json]

Two systems share one core, the card has the other. The highest rate tried is the line's own: 10 Gb/s, of ENAs 100.
"""

import json
from functools import partial

import click

from bench.common import one_line_errors, progress_line
from vfwire.layouts.ethernet import FCS_BYTES, WIRE_OVERHEAD_BYTES
from vfwire.measure.phases import StreamPlan, measure_throughput
from vfwire.measure.rfc2544 import Trial, ZeroLoss, search_zero_loss
from vfwire.paths.enhanced import EnhancedPath
from vfwire.paths.path import LINE_RATE, Path, PathOptions
from vfwire.paths.prepare import prepare
from vfwire.paths.process import Family

SIZES = (64, 1518)
LINE_RATES = {"ixgbevf": LINE_RATE, "ena": 100_000_000_000}


def line_rate_pps(frame_bytes: int, bps: int = LINE_RATE) -> int:
    """Frames a second of `frame_bytes` (with FCS) that fill the line; 10 Gb/s: 14,880,952 of 64, 812,743 of 1,518."""
    return bps // (8 * (frame_bytes - FCS_BYTES + WIRE_OVERHEAD_BYTES))


def trial(path: Path, frame_bytes: int, seconds: float, rate: int) -> Trial:
    """One trial at `rate` frames a second."""
    found = measure_throughput(path, StreamPlan(frame_bytes=frame_bytes, seconds=seconds, rate_pps=rate))
    result = Trial(rate, found.sent_pps, found.sent, found.lost)
    progress_line(f"{frame_bytes} B at {rate:,}/s: sent {result.sent_pps:,.0f}/s, lost {result.lost:,}")
    return result


def search(path: Path, frame_bytes: int, seconds: float) -> ZeroLoss:
    most = line_rate_pps(frame_bytes, path.options.line_rate_bps or LINE_RATE)
    return search_zero_loss(partial(trial, path, frame_bytes, seconds), most, resolution=0.02)


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="Of each trial.")
@click.option("--ring-size", "ring_sizes", type=int, multiple=True, default=(1024, 4096), show_default=True)
@click.option("--driver", type=click.Choice(tuple(LINE_RATES)), default="ixgbevf", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(seconds: float, ring_sizes: tuple[int, ...], driver: str, as_json: bool) -> None:
    """The zero-loss rate for 64-byte and 1,518-byte frames, for each ring size."""
    records = []
    with one_line_errors():
        prepare(progress_line)
        for ring_size in ring_sizes:
            with Family() as family:
                options = PathOptions(ring_size=ring_size, line_rate_bps=LINE_RATES[driver])
                path = EnhancedPath(family, options, driver)
                path.open()
                for size in SIZES:
                    found = search(path, size, seconds)
                    share = found.rate_pps / line_rate_pps(size, LINE_RATES[driver])
                    records.append(
                        {
                            "driver": driver,
                            "frame_bytes": size,
                            "ring_size": ring_size,
                            "zero_loss_pps": found.rate_pps,
                            "share_of_line_rate": round(share, 3),
                            "trials": len(found.trials),
                            "cores": path.cores,
                        }
                    )
                path.close()
    if as_json:
        click.echo(json.dumps(records))
        return
    for record in records:
        click.echo(
            f"{record['frame_bytes']:>5} B, rings of {record['ring_size']}: {record['zero_loss_pps']:,} packets/s "
            f"without loss, {record['share_of_line_rate']:.0%} of the line, {record['trials']} trials"
        )


if __name__ == "__main__":
    main()
