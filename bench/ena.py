"""The ENA's own questions: placements beside each other, what queues and neighbours cost, what an allowance lets by.

    python -m bench.ena [--seconds 1] [--rounds 5] [--part placement|line|queues|neighbours|idle|allowance] [--json]

placement: transmit rings in host memory and in the device's (low-latency queues of 128 bytes), line rate lifted and at
100 Gb/s: packets a second and round trips, medians. line: 1,518 B at line rates of 5 to 100 Gb/s. queues: the same 64
flows over 1 to 8 queue pairs, lifted, 64 B. neighbours: traffic between two VFs of a card, and up to 30 more whose
drivers are idle. idle: one round of the card's loop with nothing to move, for 1 to 32 VFs that have a driver each, and
for 1 to 8 queue pairs on one. allowance: 2 M packets/s for a VF that is allowed 1 M. Systems share one core, the card
has the other.

`line_share` is what arrives of a line rate. Nobody can send faster than the line, so what a sender does not put into
its ring in time is lost to it: its core may be away for as long as its ring lasts (126 us at 100 Gb/s, 1,024 frames of
1,518 B; 2.5 ms at 5 Gb/s). So beside it stands `taken`: the share of the same window in which the systems' core, and
the card's, ran something else than they.
"""

import json
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from bench.common import one_line_errors, progress_line
from bench.ena_runs import Setup, in_turn
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import Pool
from vfwire.measure.phases import StreamPlan, measure_throughput
from vfwire.paths.enhanced import EnhancedPath
from vfwire.paths.path import PathOptions
from vfwire.paths.prepare import prepare
from vfwire.paths.process import Family

LINE_RATE = 100_000_000_000
LINE_RATES = (5_000_000_000, 25_000_000_000, 50_000_000_000, LINE_RATE)
SIZES = (64, 1518)
QUEUES = (1, 2, 4, 8)
NEIGHBOURS = (2, 4, 8, 16, 32)  # VFs on the card, two of which have the traffic
ALLOWED_PPS = 1_000_000
COUNTER = "pps_allowance_exceeded"
NEVER_NS = 1 << 60


def placement(seconds: float, rounds: int) -> list[dict[str, Any]]:
    setups = [
        Setup(PathOptions(line_rate_bps=rate, llq=llq), size)
        for size in SIZES
        for rate in (None, LINE_RATE)
        for llq in (0, 128)
    ]
    return in_turn(setups, seconds, rounds)


def line(seconds: float, rounds: int) -> list[dict[str, Any]]:
    setups = [Setup(PathOptions(line_rate_bps=rate), SIZES[1]) for rate in LINE_RATES]
    return in_turn(setups, seconds, rounds)


def queues(seconds: float, rounds: int) -> list[dict[str, Any]]:
    setups = [Setup(PathOptions(line_rate_bps=None, queues=pairs), SIZES[0], flows=64) for pairs in QUEUES]
    return in_turn(setups, seconds, rounds)


def round_ns(vfs: int, pairs: int, seconds: float) -> float:
    """ns of one round of the loop with nothing to move: `vfs` functions, each with a driver of `pairs` queue pairs."""
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(vfs)], spin_ns=NEVER_NS, quiet_rounds=NEVER_NS)
        stack.callback(engine.close)
        card = Card(engine, 0, "card", vfs, line_rate_bps=None, model="ena")
        stack.callback(card.close)
        engine.start()
        for number, function in enumerate(card.functions):
            server = Server(function, directory / str(number))
            server.start()
            stack.callback(server.stop)
            pool = stack.enter_context(Pool(1024))
            handle = VfioUserFunction(directory / str(number))
            stack.enter_context(Ena.open(handle, pool, queues=pairs, ring_size=64))
        control = engine.state.control[0]
        before, start = int(control.rounds), time.perf_counter_ns()
        time.sleep(seconds)
        return (time.perf_counter_ns() - start) / (int(control.rounds) - before)


def neighbours(seconds: float, rounds: int) -> list[dict[str, Any]]:
    options = PathOptions(same_host=True, line_rate_bps=None)
    setups = [Setup(options, SIZES[0], idle_vfs=count - 2) for count in NEIGHBOURS]
    return in_turn(setups, seconds, rounds)


def idle(seconds: float, rounds: int) -> list[dict[str, Any]]:
    found = []
    for vfs, pairs in [*((count, 1) for count in (1, *NEIGHBOURS)), *((1, count) for count in QUEUES[1:])]:
        spent = statistics.median(round_ns(vfs, pairs, seconds / 4) for _ in range(rounds))
        found.append({"vfs": vfs, "queues": pairs, "idle_round_ns": round(spent, 1)})
        progress_line(json.dumps(found[-1]))
    return found


def allowance(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """The receiver may have half of what it is sent: what arrives, and whether its guest's counter has all the rest."""
    found = []
    with Family() as family:
        path = EnhancedPath(family, PathOptions(line_rate_bps=None), "ena")
        path.open()
        family.call(path.card, "allow", card=1, allowance=f"0:pps={ALLOWED_PPS}")
        receiver = path.systems[1].child
        for _ in range(rounds):
            before = family.call(receiver, "stats")[COUNTER]
            run = measure_throughput(path, StreamPlan(seconds=seconds, rate_pps=2 * ALLOWED_PPS))
            counted = family.call(receiver, "stats")[COUNTER] - before
            found.append(
                {
                    "allowed_pps": ALLOWED_PPS,
                    "offered_pps": round(run.sent_pps),
                    "delivered_pps": round(run.delivered_pps),
                    "counted": counted,
                    "lost": run.lost,
                    "lost_to": dict(run.lost_to),
                }
            )
            progress_line(json.dumps(found[-1]))
        path.close()
    return found


PARTS = {
    "placement": placement,
    "line": line,
    "queues": queues,
    "neighbours": neighbours,
    "idle": idle,
    "allowance": allowance,
}


@click.command()
@click.option("--seconds", default=1.0, show_default=True, help="Of each window.")
@click.option("--rounds", default=5, show_default=True, help="Medians over as many.")
@click.option("--part", "parts", type=click.Choice(tuple(PARTS)), multiple=True, help="[default: all]")
@click.option("--json", "as_json", is_flag=True)
def main(seconds: float, rounds: int, parts: tuple[str, ...], as_json: bool) -> None:
    """The ENA's placements, queues, neighbours and allowances."""
    with one_line_errors():
        prepare(progress_line)
        found = {part: PARTS[part](seconds, rounds) for part in parts or tuple(PARTS)}
    if as_json:
        click.echo(json.dumps(found))
        return
    for part, records in found.items():
        click.echo(part)
        for record in records:
            click.echo("  " + ", ".join(f"{key} {value}" for key, value in record.items() if key != "cores"))


if __name__ == "__main__":
    main()
