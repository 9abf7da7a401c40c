"""A guest's own ENA driver when its device fails it: every reset that it knows, provoked, and the recovery from it."""

import time
from collections.abc import Iterator

import pytest

from tests.guests.stock_kit import (
    READY_SECONDS,
    Hosts,
    hosts,
    ping,
    reaches,
    serve,
    start,
    statistics,
    wait_link,
    wait_until,
)
from vfwire.guests.guest import Guest

pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]
RESET_SECONDS = 60.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("c"), 2, "--model", "ena", "--guests") as made:
        serve(made.guests[1])
        yield made


def resets(pair: Hosts) -> dict[str, int]:
    found: dict[str, int] = pair.counters(0)["resets"]
    return found


def hint(pair: Hosts, **values: int) -> None:
    """Tell the driver other times and thresholds than its own (ena_netdev.c, ena_update_hints)."""
    pair.ask("event", vf=0, event="NOTIFICATION", values=values)


def recovers(pair: Hosts, reason: str, times: int = 1) -> None:
    """The driver has reset the device for that reason, so many times by now, and everything works again."""
    guest = pair.guests[0]
    wait_until(f"a reset for {reason}", lambda: resets(pair).get(reason, 0) >= times, RESET_SECONDS)
    wait_link(guest)
    assert reaches(guest, "10.0.0.2", count=50)
    assert resets(pair).get("invalid transmit request ID", 0) == 0


def test_keep_alive_lost(pair: Hosts) -> None:
    pair.ask("fail", vf=0, part="keep-alive")
    recovers(pair, "keep-alive lost")
    assert statistics(pair.guests[0])["wd_expired"] == 1


def test_transmit_completions_missing(pair: Hosts) -> None:
    """The ENA driver's own check, which the kernel's would forestall: that one wants a queue that stands still for 5 s,
    the driver's more than 128 frames that are 5 s late, and byte queue limits and ping's socket let far fewer through.
    So both are widened, and hints have the driver look sooner and the kernel later.
    """
    guest = pair.guests[0]
    hint(
        pair,
        missing_tx_completion_timeout=1000,
        missed_tx_completion_count_threshold_to_reset=16,
        netdev_wd_timeout=60_000,
    )
    guest.check(
        "for queue in /sys/class/net/eth0/queues/tx-*; do echo 100000 > $queue/byte_queue_limits/limit_min; done"
    )
    assert reaches(guest, "10.0.0.2", count=10)
    pair.ask("fail", vf=0, part="traffic")
    guest.check("ping -n -q -i 0.02 -S 1000000 -c 100 10.0.0.2 >/dev/null 2>&1 &")
    recovers(pair, "transmit completion missing")
    assert "transmit timeout of the operating system" not in resets(pair)
    hint(
        pair,
        missing_tx_completion_timeout=5000,
        missed_tx_completion_count_threshold_to_reset=128,
        netdev_wd_timeout=5000,
    )


def test_admin_command_timed_out(pair: Hosts) -> None:
    pair.ask("fail", vf=0, part="admin")
    pair.guests[0].run("ethtool -S eth0; ip link set eth0 mtu 1400", 60)
    recovers(pair, "admin command timed out")
    pair.guests[0].check("ip link set eth0 mtu 1500")
    wait_link(pair.guests[0])


def test_hints_reach_the_driver(pair: Hosts) -> None:
    """It waits 6 s for a keep-alive by itself. Keep-alive comes every second, so that is at least 5 s from the failure
    on; hinted at 2 s, with its look every second, it is some 3 s.
    """
    hint(pair, driver_watchdog_timeout=2000)
    assert reaches(pair.guests[0], "10.0.0.2", count=50)
    begun = time.monotonic()
    pair.ask("fail", vf=0, part="keep-alive")
    wait_until("a reset", lambda: resets(pair)["keep-alive lost"] >= 2, RESET_SECONDS)
    assert time.monotonic() - begun < 5.0
    recovers(pair, "keep-alive lost", times=2)
    hint(pair, driver_watchdog_timeout=6000)


def test_a_guest_reboots(pair: Hosts) -> None:
    """Reset as by its button, while traffic runs: the driver of the next boot finds a device that works."""
    first, second = pair.guests
    second.check("ping -q -i 0.02 -W 1 10.0.0.1 >/dev/null 2>&1 &")
    before = pair.ask("show")["vfs"][0]["host"]
    assert before is not None
    first.monitor("system_reset")
    wait_until("the device without a driver", lambda: pair.ask("show")["vfs"][0]["host"] is None)
    wait_until("the next boot", lambda: pair.ask("show")["vfs"][0]["host"] == before, READY_SECONDS)
    wait_until("an answer", lambda: ping(second, "10.0.0.1", 2, interval=0.2).received > 0, READY_SECONDS)
    assert reaches(second, "10.0.0.1", count=50)
    second.check("killall ping")


def test_a_guest_is_killed_and_another_one_takes_its_place(pair: Hosts) -> None:
    """Killed while it answers, then one that boots on the same VF: it finds a fresh device."""
    first: Guest = pair.guests[0]
    pair.guests[1].check("ping -q -i 0.02 -W 1 10.0.0.1 >/dev/null 2>&1 &")
    first.kill()
    wait_until("the VF to be free", lambda: not pair.ask("show")["vfs"][0]["in_use"])
    assert pair.ask("show")["vfs"][0]["host"] is None
    with start(pair.card, 0) as second:
        second.wait_ready(READY_SECONDS)
        wait_link(second)
        assert reaches(second, "10.0.0.2", count=50)
