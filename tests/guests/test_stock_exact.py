"""A jumbo card whose every register traps: the driver's own register test, 9,000-byte frames, and a trace of it all."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests.stock_kit import (
    Hosts,
    content,
    hosts,
    iperf,
    ping,
    reaches,
    received_bytes,
    serve,
    wait_link,
)
from vfwire.guests.guest import Guest
from vfwire.measure.capture import read_capture

pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Path]]:
    directory = tmp_path_factory.mktemp("c")
    files = (
        "--trace",
        str(directory / "trace.jsonl"),
        "--pcap",
        str(directory / "frames.pcapng"),
        "--pcap-vf",
        "0",
    )
    with hosts(directory / "card", 2, "--exact", "--mtu", "9000", *files) as made:
        serve(made.guests[1])
        yield made, directory


@pytest.fixture
def one(watched: tuple[Hosts, Path]) -> Guest:
    return watched[0].guests[0]


@pytest.fixture
def two(watched: tuple[Hosts, Path]) -> Guest:
    return watched[0].guests[1]


def test_its_own_tests_pass(one: Guest) -> None:
    """The offline one writes patterns into its registers and reads them back."""
    with content(one):
        for kind in ("online", "offline"):
            shown = one.check(f"ethtool -t eth0 {kind}", 60)
            assert "The test result is PASS" in shown and "Register test  (offline)\t 0" in shown
            wait_link(one)
    assert reaches(one, "10.0.0.2", count=5)


def test_frames_of_9000_bytes(one: Guest, two: Guest) -> None:
    with content(one, two):
        for guest in (one, two):
            guest.check("ip link set eth0 mtu 9000")
            wait_link(guest)
        assert reaches(one, "10.0.0.2", count=20, options="-s 8972 -M do")
        assert min(received_bytes(iperf(one, "10.0.0.2", 2))) > 1_000_000
        for guest in (one, two):
            guest.check("ip link set eth0 mtu 1500")
        assert reaches(one, "10.0.0.2", count=20)


def test_the_trace_shows_what_the_driver_did(watched: tuple[Hosts, Path], one: Guest) -> None:
    made, directory = watched
    ping(one, "10.0.0.2", 20)
    events = [json.loads(line) for line in (directory / "trace.jsonl").read_text().splitlines()[:-1]]
    mine = [event for event in events if event.get("function") == "card0/0"]
    assert [event["time"] for event in mine] == sorted(event["time"] for event in mine)
    asked = [
        event["message"] for event in mine if event["event"] == "mailbox" and event["direction"] == "VF to PF"
    ]
    assert asked[:3] == ["VF_RESET", "VF_API_NEGOTIATE", "VF_FEATURES_NEGOTIATE"]
    assert {"VF_GET_QUEUES", "VF_SET_LPE", "VF_UPDATE_XCAST_MODE"} <= set(asked)
    written = {event["register"] for event in mine if event["event"] == "write"}
    assert {"VFTDT[0]", "VFRDT[0]", "VFRXDCTL[0]", "VTEIMS", "VTIVAR_MISC", "COMMAND"} <= written
    doorbells = [event for event in mine if event["event"] == "write" and event["register"] == "VFTDT[0]"]
    assert len(doorbells) >= 20
    assert {event["vector"] for event in mine if event["event"] == "interrupt"} == {0, 1}
    assert made.counters(0)["bad_accesses"] == 0


@pytest.mark.filterwarnings(
    "ignore:Field type should not:DeprecationWarning"
)  # python-pcapng's own, of if_tsresol
def test_the_capture_holds_its_frames(watched: tuple[Hosts, Path], one: Guest) -> None:
    made, directory = watched
    ping(one, "10.0.0.2", 10, options="-p c0ffee")
    made.card.process.terminate()
    made.card.process.wait(60)
    frames = read_capture(directory / "frames.pcapng", 9100)
    marked = [frame for frame in frames if b"\xc0\xff\xee" * 10 in frame]
    assert len(marked) == 20  # each question and each answer
    assert any(len(frame) == 9014 for frame in frames)
