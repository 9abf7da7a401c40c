"""`vfwire compare --guests`, for real and short: the record, the table's claims, and a clean end when interrupted."""

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from tests.guests.guest_kit import VFWIRE, guest_image
from vfwire.measure.guests import GuestRecord
from vfwire.measure.record import PERCENTILES

pytestmark = [pytest.mark.guests, pytest.mark.timeout(300)]

KEYS = set(GuestRecord.__dataclass_fields__)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    guest_image()  # built before the clock runs
    picture = tmp_path_factory.mktemp("plot") / "guests.png"
    command = [*VFWIRE, "compare", "--guests", "--seconds", "1", "--json", "--plot", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture


def test_a_record_for_each_network(result: Any) -> None:
    said, _ = result
    assert said["schema"] == 1
    paths = [(record["path"], record["driver"], record["interface"]) for record in said["paths"]]
    assert paths[-2:] == [("enhanced", "ixgbevf", "net0"), ("enhanced", "ena", "net1")]
    assert ("default", "virtio_net", "net2") in paths
    if os.geteuid() == 0:
        assert ("default", "virtio_net", "net3") in paths and said["run"]["left_out"] == {}
    assert all(set(record) == KEYS for record in said["paths"])


def test_every_column_was_measured(result: Any) -> None:
    said, _ = result
    for record in said["paths"]:
        assert record["guests"] is True and record["frame_bytes"] == 64
        assert record["packets_per_second"] > 1000
        assert record["received"] > 1000 and record["sent"] >= record["received"] > 0
        assert sum(record["lost_to"].values()) == record["lost"]
        assert record["rtt_us"]["samples"] >= 100
        assert 0 < record["rtt_us"]["p50"] <= record["rtt_us"]["p99"] <= record["rtt_us"]["max"]
        assert set(PERCENTILES) <= set(record["rtt_us"])
        assert min(record["tcp_bits_per_second"].values()) > 1e6
        assert 0 < record["guest_cpu"]["receiver"] <= 1 and record["cores_used"]["guests"] > 0
        assert record["emulated"] == ("tcg" in said["run"]["accelerators"])


def test_the_better_default_is_named_and_beaten_or_not_honestly(result: Any) -> None:
    said, _ = result
    (best,) = (record for record in said["paths"] if record["better_default"])
    rates = [record["packets_per_second"] for record in said["paths"] if record["path"] == "default"]
    assert best["packets_per_second"] == max(rates)
    for gain, enhanced in zip(said["gains"], said["paths"][-2:], strict=True):
        assert gain["via"] == enhanced["via"]
        assert gain["packets_per_second"] == pytest.approx(enhanced["packets_per_second"] / max(rates))


def test_hops_of_the_card_come_from_its_counters(result: Any) -> None:
    said, _ = result
    intel, ena = (record["hops"] for record in said["paths"][-2:])
    assert intel["layers"] == ena["layers"] == 0
    assert 0 < intel["traps_per_packet"] < 1 and ena["traps_per_packet"] < 0.01
    assert 0.5 < intel["copies"] < 2.5 and 0.5 < ena["copies"] < 2.5
    assert said["paths"][0]["hops"]["copies"] is None


def test_the_picture_is_drawn(result: Any) -> None:
    _, picture = result
    assert picture.read_bytes().startswith(b"\x89PNG")


def interfaces() -> list[str]:
    """Those that the host sees: a comparison's lie in a network namespace of its own."""
    with IPRoute() as ip:
        return [link.get_attr("IFLA_IFNAME") for link in ip.get_links()]


def processes(directory: Path) -> list[str]:
    """Those whose environment has TMPDIR there: what a comparison has started, guests with it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={directory}".encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_its_end(tmp_path: Path, how: signal.Signals) -> None:
    """Interrupted or killed, it leaves nothing behind."""
    before = interfaces()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*VFWIRE, "compare", "--guests", "--seconds", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "booting" in line:
                break
        else:
            pytest.fail("it ended before it booted a guest")
        assert interfaces() == before and len(processes(tmp_path)) > 2
        process.send_signal(how)
        rest = process.stderr.read()  # to its end: also those who have inherited it have gone
        assert process.wait(60) != 0
    assert "Traceback" not in rest
    assert list(tmp_path.glob("vfwire-run-*")) == []
    assert interfaces() == before and processes(tmp_path) == []


def test_options_that_say_what_to_send_are_refused() -> None:
    command = [*VFWIRE, "compare", "--guests", "--size", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "--size does not go with --guests" in done.stderr
