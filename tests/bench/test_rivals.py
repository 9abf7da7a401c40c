import stat
import time
from pathlib import Path

import pytest
from pyroute2 import netns

from bench import contenders
from bench.rivals import memif, namespaces, testpmd, veth, vhost
from vfwire.errors import PeerGone, UnsupportedMachine, VfwireError, WaitTimeout

# As testpmd 22.11 prints it, twice: a first look, then one a second later.
STATISTICS = """
  ######################## NIC statistics for port 0  ########################
  RX-packets: 21504      RX-missed: 0          RX-bytes:  1290240
  RX-errors: 0

  Throughput (since last show)
  Rx-pps:            {rate}          Rx-bps:   7153092896
  ############################################################################
"""


def test_rate_is_that_of_the_second_look() -> None:
    screen = STATISTICS.format(rate=0) + "testpmd> " + STATISTICS.format(rate=14902450)
    assert testpmd.received_rate(screen) == 14902450.0
    with pytest.raises(WaitTimeout, match="no port statistics"):
        testpmd.received_rate(STATISTICS.format(rate=0))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path at which a test puts its own `dpdk-testpmd`."""
    monkeypatch.setattr(testpmd, "PROGRAM", str(tmp_path / "dpdk-testpmd"))
    monkeypatch.setattr(testpmd, "core_pair", lambda: (0, 0))
    monkeypatch.setattr(testpmd, "SETTLE_S", 0.0)
    return tmp_path / "dpdk-testpmd"


def write_program(path: Path, text: str) -> None:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.usefixtures("stand_in")
def test_what_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(UnsupportedMachine, match="not installed; apt-get install dpdk-dev "):
        testpmd.measure(memif.RECIPES["copy"], 64, 1)


def test_a_testpmd_that_ends_is_reported_by_its_last_line(stand_in: Path) -> None:
    write_program(stand_in, "echo EAL: starting; echo EAL: no memory\n")
    with pytest.raises(PeerGone, match="EAL: no memory"):
        testpmd.measure(vhost.RECIPES["split"], 64, 1)


def test_a_testpmd_that_never_answers_is_ended(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(stand_in, "echo thinking; read line\n")
    monkeypatch.setattr(testpmd, "START_LIMIT_S", 0.3)
    begin = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"no socket in 0\.3 s; last: thinking"):
        testpmd.measure(vhost.RECIPES["split"], 64, 1)
    assert time.monotonic() - begin < 10


def test_a_whole_conversation(stand_in: Path) -> None:
    """Two stand-ins: the server makes its socket, both prompt, and the second look gives the rate."""
    write_program(
        stand_in,
        'touch "$RUNTIME_DIRECTORY/port.sock"\n'
        "rate=0\n"
        "while printf 'testpmd> '; read line; do case $line in\n"
        "start) echo rxonly packet forwarding ;;\n"
        'show*) printf "Rx-pps:      %s  Rx-bps: 1\\n" $rate; rate=77 ;;\n'
        "esac; done\n",
    )
    record = testpmd.measure(vhost.RECIPES["split"], 64, 0.05)
    assert record["packets_per_second"] == 77.0
    assert record["frame_bytes"] == 64 and record["rtt_us"] is None


def test_memif_devices_differ_by_role_and_copy() -> None:
    path = Path("/x/port.sock")
    copy, zero = memif.RECIPES["copy"], memif.RECIPES["zero-copy"]
    assert "role=server" in copy.server(path) and "role=client" in copy.client(path)
    assert "zero-copy=yes" in zero.client(path) and "zero-copy" not in copy.client(path)
    assert "--single-file-segments" in zero.eal  # memif shares the sender's buffers by one descriptor


def test_veth_carries_frames_and_leaves_nothing() -> None:
    before = set(netns.listnetns())
    record = veth.measure(64, 0.1)
    assert record["packets_per_second"] > 1000
    for polling in ("blocking", "busy_polling"):
        assert 0 < record["rtt_us"][polling]["p50"] <= record["rtt_us"][polling]["max"]
    assert set(netns.listnetns()) == before


def test_namespaces_of_a_killed_run_go_with_the_next() -> None:
    dead = 4_194_304  # above the kernel's highest process id
    leftover = f"{namespaces.PREFIX}-{dead}-a"
    netns.create(leftover)
    with namespaces.bridged_pair():
        assert leftover not in netns.listnetns()


def test_compare_gives_all_paths_from_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def records(arguments: list[str], timeout: float) -> list[dict[str, object]]:
        calls.append(arguments)
        return [
            {"driver": driver, "frame_bytes": size, "packets_per_second": rate, "rtt_us": {"p50": 1.5}}
            for driver, rate in (("netfront", 1e6), ("ixgbevf", 2e7), ("ena", 3e7))
            for size in contenders.SIZES
        ]

    monkeypatch.setattr(contenders, "records_of", records)
    enhanced, ena, default = contenders.ours(["vfwire"], 0.5)
    with pytest.raises(VfwireError, match="no record over netfront"):
        default.run()
    assert enhanced.run() == {
        contenders.rate_name(64): 2e7,
        contenders.rate_name(1518): 2e7,
        contenders.RTT_BUSY: 1.5,
    }
    assert (ena.run()[contenders.rate_name(64)], default.run()[contenders.rate_name(64)]) == (3e7, 1e6)
    assert len(calls) == 1
    assert calls[0][:4] == ["vfwire", "compare", "--json", "--line-rate"]


def test_a_failed_compare_leaves_no_figures_of_the_round_before(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"driver": "netfront", "frame_bytes": 64, "packets_per_second": 1e6, "rtt_us": None}
    monkeypatch.setattr(contenders, "records_of", lambda *_, **__: [{**record, "driver": "ixgbevf"}, record])
    enhanced, _, default = contenders.ours(["vfwire"], 0.5)
    enhanced.run()
    assert default.run() == {contenders.rate_name(64): 1e6}

    def fails(*_: object, **__: object) -> list[dict[str, object]]:
        raise PeerGone("the card went away")

    monkeypatch.setattr(contenders, "records_of", fails)
    with pytest.raises(PeerGone):
        enhanced.run()
    with pytest.raises(VfwireError, match="no record over netfront"):
        default.run()
