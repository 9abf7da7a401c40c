"""Several guests: four ENAs on a card, one of which turns against it; an 82599 and an ENA on two cards, joined."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests.guest_kit import card
from tests.guests.stock_kit import (
    READY_SECONDS,
    Hosts,
    content,
    hosts,
    iperf,
    ping,
    reaches,
    received_bytes,
    serve,
    start,
    together,
    wait_link,
)
from vfwire.guests.guest import Guest

pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Root may touch what its driver has (iomem=relaxed)."""
    options = ("--model", "ena", "--guests")
    with hosts(tmp_path_factory.mktemp("c"), 4, *options, append="iomem=relaxed") as made:
        for guest in made.guests:
            serve(guest)
        yield made


def test_four_guests_on_one_card_all_to_all(four: Hosts) -> None:
    with content(*four.guests):
        for number, guest in enumerate(four.guests):
            others = [f"10.0.0.{other + 1}" for other in range(4) if other != number]
            assert all(reaches(guest, other, count=20) for other in others)
        reports = together(
            lambda: iperf(four.guests[0], "10.0.0.3", 2), lambda: iperf(four.guests[1], "10.0.0.4", 2)
        )
        assert all(received_bytes(report)[0] > 100_000 for report in reports)


def turn_against(guest: Guest, seconds: float) -> int:
    """Random values all over BAR 0, and into the low-latency entries to which it then rings the doorbell: three times
    beside the driver, which is loaded anew, and once without it. Returns how many.
    """
    script = f"""
        for device in /sys/bus/pci/devices/*; do
            [ "$(cat $device/vendor)" = 0x1d0f ] && break
        done
        {{ read registers rest; read rest; read queues rest; }} <$device/resource
        noise() {{
            first=$written end=$(( $(cut -d. -f1 /proc/uptime) + {max(1, seconds // 4):.0f} ))
            while [ $(cut -d. -f1 /proc/uptime) -lt $end ]; do
                for value in $(od -An -v -tu4 -w4 -N 256 /dev/urandom); do
                    next=$(( 64 + written - first ))
                    case $(( value % 4 )) in
                        0) at=$(( registers + value / 16 % 4096 * 4 )) ;;
                        1) at=$(( registers + 4096 )) value=$next ;;
                        *) at=$(( queues + next % 1024 * 128 + value / 16 % 8 * 4 )) ;;
                    esac
                    devmem $at 32 $value 2>>/run/devmem && written=$(( written + 1 ))
                done
            done
        }}
        written=0
        for round in 1 2 3; do
            until ip link set eth0 up 2>/dev/null; do sleep 0.1; done
            noise
            modprobe -r ena
            modprobe ena
        done
        modprobe -r ena
        echo 1 >$device/enable
        printf '\\006' | dd of=$device/config bs=1 seek=4 conv=notrunc 2>/run/dd
        noise
        echo $written"""
    return int(guest.check(script, seconds + 120).split()[-1])


def test_a_guest_that_writes_anything_anywhere_harms_nobody(four: Hosts, soaking: bool) -> None:
    """Its neighbours' traffic runs on, without a loss; its driver finds a device that works."""
    hostile, one, two, _ = four.guests
    seconds = 60 if soaking else 8
    before = four.counters(0)["traps"]
    with content(one, two):
        written, report, pings = together(
            lambda: turn_against(hostile, seconds),
            lambda: iperf(one, "10.0.0.4", seconds),
            lambda: ping(two, "10.0.0.2", 20 * seconds, interval=0.05),
        )
    counted = four.counters(0)
    assert written >= 20 * seconds and counted["traps"] > before + written // 20
    assert counted["drops"]["bad descriptor"] > 10 and counted["events"]["FATAL_ERROR"] > 0
    assert min(received_bytes(report)) > 100_000 * seconds
    assert pings
    hostile.check("modprobe ena; ip address replace 10.0.0.1/24 dev eth0; ip link set eth0 up")
    wait_link(hostile)
    assert reaches(hostile, "10.0.0.2", count=10)


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Hosts]:
    """A guest on an 82599 (10.0.0.1) and one on an ENA (10.0.0.2), each on a card of its own, joined."""
    cable = str(tmp_path / "cable")
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(card(tmp_path / "i", "--vfs", "1", "--name", "intel", "--link", cable))
        two = stack.enter_context(
            card(tmp_path / "e", "--vfs", "2", "--name", "ena", "--model", "ena", "--link", cable)
        )
        made = Hosts(two, [stack.enter_context(start(one, 0)), stack.enter_context(start(two, 1))])
        for guest in made.guests:
            guest.wait_ready(READY_SECONDS)
            wait_link(guest)
        yield made


def test_an_82599_and_an_ena_reach_each_other_over_a_link(mixed: Hosts) -> None:
    intel, amazon = mixed.guests
    with content(intel, amazon):
        assert "driver: ixgbevf\n" in intel.check("ethtool -i eth0")
        assert "driver: ena\n" in amazon.check("ethtool -i eth0")
        assert reaches(intel, "10.0.0.2", count=50) and reaches(amazon, "fd00::1", count=50)
        for number, guest in enumerate(mixed.guests, 1):
            guest.check(
                "modprobe 8021q; ip link add link eth0 name v5 type vlan id 5\n"
                f"ip addr add 10.5.0.{number}/24 dev v5; ip link set v5 up"
            )
        assert reaches(intel, "10.5.0.2", count=50) and reaches(amazon, "10.5.0.1", count=50)
        serve(amazon)
        assert min(received_bytes(iperf(intel, "10.0.0.2", 3, "--bidir"))) > 100_000
