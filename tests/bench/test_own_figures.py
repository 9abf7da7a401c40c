"""The bench's figures of the project's own: that they run, and are what they say they are."""

import json
import subprocess
import sys

import pytest

from bench.driver_alone import DRIVERS, measure
from bench.ena import ALLOWED_PPS, allowance, round_ns
from bench.zero_loss import line_rate_pps
from vfwire.paths.prepare import prepare


def test_line_rate_is_ethernets() -> None:
    assert line_rate_pps(64) == 14_880_952  # RFC 2544 and RFC 1242 quote these for 10 Gb/s Ethernet
    assert line_rate_pps(1518) == 812_743
    assert line_rate_pps(64, 100_000_000_000) == 148_809_523


@pytest.mark.parametrize("driver", list(DRIVERS))
def test_driver_alone_is_timed(driver: str) -> None:
    (run,) = measure(runs=1, batches=2_000, driver=driver)
    assert 0 < run["receive"] < 10_000
    assert run["both"] == run["receive"] + run["transmit"]


def test_an_idle_round_is_timed() -> None:
    prepare()  # nothing is compiled while a driver waits for its card
    assert 0 < round_ns(vfs=2, pairs=2, seconds=0.1) < 1e9


def test_an_allowance_is_beside_its_counter() -> None:
    prepare()
    (run,) = allowance(seconds=0.3, rounds=1)
    assert 0 < run["delivered_pps"] < 1.05 * ALLOWED_PPS
    assert run["counted"] == run["lost_to"].get("over the instance's allowance", 0)


def test_idle_card_is_looked_at() -> None:
    command = [sys.executable, "-m", "bench.idle", "--vfs", "2", "--seconds", "1", "--json"]
    found = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=150).stdout
    )
    assert found["vfs"] == 2
    assert 0 < found["private_mib"] < 300
    assert found["rtt_us"]["1"]["p50"] > 0


def test_an_access_that_traps_is_timed() -> None:
    command = [sys.executable, "-m", "bench.control_path", "--samples", "200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=150)
    plain, traced = json.loads(done.stdout)["records"]
    assert (plain["traced"], traced["traced"]) == (False, True)
    for record in (plain, traced):
        assert record["read_us"]["samples"] == record["write_us"]["samples"] == 200
        assert 0 < record["read_us"]["p50"] < 20_000
