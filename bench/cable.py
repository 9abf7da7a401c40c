"""What a link between two card processes costs: the second copy, measured beside the link within one process.

    python -m bench.cable [--seconds 2] [--rounds 5] [--json]

The same two systems, drivers and line rate (lifted); the two paths take turns. Two systems share one core; the card
process has the other, or the two card processes share it.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import click

from bench.common import one_line_errors, progress_line
from vfwire.devices.link import Cable
from vfwire.measure.phases import StreamPlan, measure_round_trips, measure_throughput
from vfwire.measure.record import percentiles_us
from vfwire.paths.counters import Counters
from vfwire.paths.enhanced import EnhancedPath
from vfwire.paths.path import Path as WirePath
from vfwire.paths.path import PathOptions
from vfwire.paths.pinning import CARD
from vfwire.paths.prepare import prepare
from vfwire.paths.process import Child, Family
from vfwire.paths.roles import CardRole

SIZES = (64, 1518)
_PLUG_SECONDS = 5.0


class CabledCard(CardRole):
    """A card in a process of its own, with one VF, at one end of a cable."""

    _cable: Cable | None = None

    def do_plug(self, path: str) -> None:
        self._cable = Cable(self._cards[0], Path(path))

    def do_plugged(self) -> bool:
        return self._cable is not None and self._cable.plugged

    def close(self) -> None:
        if self._cable is not None:
            self._cable.close()
        super().close()


class CabledPath(WirePath):
    """System 1 - VF - card 1 - cable - card 2 - VF - System 2, each card a process."""

    name = "two card processes"
    layer_count = 0
    peer: Child

    def _fork_card(self) -> Child:
        directory, core = self.family.directory.path, self.cores[CARD]

        def fork(name: str) -> Child:
            return self.family.fork(name, lambda: CabledCard(directory, core, 1, 1, host=False, shared=True))

        self.peer = fork("cabled card 2")
        return fork("cabled card 1")

    @property
    def children(self) -> list[Child]:
        return [self.peer, *super().children]

    def _plugged(self) -> bool:
        return all(self.family.call(card, "plugged") for card in (self.card, self.peer))

    def _open(self) -> None:
        """Both cards up, the cable in both."""
        sockets = []
        for number, card in enumerate((self.card, self.peer)):
            answer = self.family.call(
                card, "open", line_rate_bps=self.options.line_rate_bps, name=f"cabled{number}"
            )
            sockets.append(answer[0]["0"])
            self.family.call(card, "plug", path=str(self.family.directory.path / "cable"))
        self.family.wait_until(self._plugged, _PLUG_SECONDS, "the cable")
        self._open_systems("ixgbevf", (sockets[0], sockets[1]))


def one_round(path: WirePath, seconds: float) -> list[dict[str, Any]]:
    """A record for each size: packets a second, copies a byte, round trip p50 in microseconds."""
    records = []
    for size in SIZES:
        found = measure_throughput(path, StreamPlan(frame_bytes=size, seconds=seconds))
        counted: Counters = found.counters
        trips = measure_round_trips(path, size, seconds / 2)
        records.append(
            {
                "path": path.name,
                "frame_bytes": size,
                "packets_per_second": found.delivered_pps,
                "copies": counted.copied / found.received_bytes if found.received_bytes else None,
                "rtt_p50_us": percentiles_us(trips)["p50"],
            }
        )
        progress_line(f"{path.name}, {size} B: {found.delivered_pps:,.0f}/s")
    return records


@click.command()
@click.option("--seconds", default=2.0, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(seconds: float, rounds: int, as_json: bool) -> None:
    """The link between two card processes, beside the link within one; medians over the rounds."""
    records: list[dict[str, Any]] = []
    with one_line_errors():
        prepare(progress_line)
        with Family() as family:
            options = PathOptions(line_rate_bps=None)
            paths: list[WirePath] = [EnhancedPath(family, options), CabledPath(family, options)]
            for path in paths:
                path.open()
            for _ in range(rounds):
                for path in paths:
                    records += one_round(path, seconds)
            for path in paths:
                path.close()
    if as_json:
        click.echo(json.dumps(records))
        return
    for path in paths:
        for size in SIZES:
            mine = [r for r in records if r["path"] == path.name and r["frame_bytes"] == size]
            rate, copies, trip = (
                statistics.median(r[key] for r in mine)
                for key in ("packets_per_second", "copies", "rtt_p50_us")
            )
            click.echo(
                f"{path.name:>20}, {size:>5} B: {rate:>12,.0f}/s, {copies:.2f} copies, RTT p50 {trip:.1f} µs"
            )


if __name__ == "__main__":
    main()
