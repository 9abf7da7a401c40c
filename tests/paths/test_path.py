"""Paths as processes: frames cross them and are accounted for; whoever is killed is named; nothing stays."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

import pytest

from vfwire.datapath import application as words
from vfwire.errors import PeerGone
from vfwire.measure.phases import UNACCOUNTED, StreamPlan, measure_round_trips, measure_throughput
from vfwire.paths.applications import Packed
from vfwire.paths.default import DefaultPath
from vfwire.paths.enhanced import EnhancedPath
from vfwire.paths.path import Path, PathOptions
from vfwire.paths.prepare import prepare
from vfwire.paths.process import Family, wait_exit

Kind = Callable[[Family, PathOptions], Path]
KINDS = [DefaultPath, EnhancedPath]
FRAMES = [
    bytes([2, 0, 0, 0, 1, number % 3, 2, 0, 0, 0, 1, (number + 1) % 3]) + os.urandom(48 + 13 * number % 1400)
    for number in range(100)
]


def over_enas(family: Family, options: PathOptions) -> Path:
    return EnhancedPath(family, options, "ena")


@contextmanager
def opened(kind: Kind, **options: object) -> Iterator[Path]:
    prepare()
    with Family() as family:
        path = kind(family, PathOptions(**options))  # type: ignore[arg-type]
        path.open()
        try:
            yield path
        finally:
            path.close()


@pytest.fixture(params=[(kind, same) for kind in KINDS for same in (False, True)])
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    kind, same_host = request.param
    with opened(kind, same_host=same_host, line_rate_bps=None, default_cap_bps=None) as found:
        yield found


def test_every_frame_is_accounted_for(path: Path) -> None:
    path.learn()
    for plan in (
        StreamPlan(seconds=0.1, rate_pps=50_000, every_byte=True),
        StreamPlan(seconds=0.1, frame_bytes=1518, both_ways=True, flows=4),
    ):
        found = measure_throughput(path, plan)
        assert found.received > 0 and found.corrupted == found.reordered == 0
        assert found.sent == found.received + found.lost
        assert UNACCOUNTED not in found.lost_to and sum(found.lost_to.values()) == found.lost
        assert found.counters.copied >= found.received_bytes
    layers = {"enhanced": 0, "default": 1 if path.options.same_host else 2}[path.name]
    assert found.counters.layer_frames / found.received == pytest.approx(layers, rel=0.5)
    samples = measure_round_trips(path, 64, 0.1)
    assert len(samples) > 0 and samples.min() > 0


@pytest.mark.parametrize("kind", [*KINDS, over_enas])
@pytest.mark.parametrize("same_host", [False, True])
def test_a_replay_arrives_unchanged(kind: Kind, same_host: bool) -> None:
    with opened(kind, same_host=same_host, replay=Packed.of(FRAMES)) as path:
        found = measure_throughput(path, StreamPlan(frame_bytes=1518, replay=True))
        assert (found.sent, found.received) == (len(FRAMES), len(FRAMES))
        assert found.received_bytes == sum(map(len, FRAMES))
        assert (found.corrupted, found.reordered, found.lost) == (0, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["card", "layer 1", "layer 2", "system 1", "system 2"])
@pytest.mark.parametrize("signal_number", [signal.SIGKILL])
def test_whoever_is_killed_under_traffic_is_named(kind: type[Path], which: str, signal_number: int) -> None:
    with opened(kind) as path:
        victims = [child for child in path.children if child.name.endswith(which)]
        if not victims:
            assert kind is EnhancedPath and which.startswith("layer")
            return
        directory = path.family.directory.path
        pidfds = [os.pidfd_open(child.pid) for child in path.children]
        one, other = path.systems
        path.start_stream(other, {"check": True})
        path.start_stream(one, {"send": True, "rate_pps": 10_000})
        path.family.wait_until(lambda: other.board.read(words.RECEIVED) > 100, 10, "traffic")
        os.kill(victims[0].pid, signal_number)
        with pytest.raises(PeerGone, match=f"{which} ended by signal 9"):
            path.family.wait_time(10)
    ended = [wait_exit(pidfd, 0) for pidfd in pidfds]
    for pidfd in pidfds:
        os.close(pidfd)
    assert all(ended) and not FilePath(directory).exists()
