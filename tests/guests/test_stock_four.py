"""Four guests on one card, all to all; and one of them that turns against its function harms nobody else."""

from collections.abc import Iterator

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
    together,
)
from vfwire.guests.guest import Guest

pytestmark = [pytest.mark.guests, pytest.mark.timeout(900)]

FOUR = range(4)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("c"), 4, "--guests") as made:
        for guest in made.guests:
            serve(guest)
        yield made


def test_all_to_all(four: Hosts) -> None:
    """Every guest to every other, all at the same time."""
    with content(*four.guests):
        for guest in four.guests:
            for number in FOUR:
                reaches(guest, f"10.0.0.{number + 1}", count=1)
        pairs = [(guest, f"10.0.0.{other + 1}") for number, guest in enumerate(four.guests)
                 for other in FOUR if other != number]  # fmt: skip
        answers = together(*(lambda pair=pair: ping(pair[0], pair[1], 100, interval=0.05) for pair in pairs))
        assert len(answers) == 12 and all(answers), answers


def test_a_ring_of_tcp(four: Hosts) -> None:
    with content(*four.guests):
        reports = together(
            *(
                lambda number=number: iperf(four.guests[number], f"10.0.0.{(number + 1) % 4 + 1}", 3)
                for number in FOUR
            )
        )
    assert all(min(received_bytes(report)) > 100_000 for report in reports)


def turn_against(guest: Guest, seconds: float) -> int:
    """Without its driver, write random values to every register of BAR 0, again and again; returns how many."""
    script = f"""
        modprobe -r ixgbevf
        for device in /sys/bus/pci/devices/*; do
            [ "$(cat $device/device)" = 0x10ed ] && [ "$(cat $device/vendor)" = 0x8086 ] && break
        done
        echo 1 >$device/enable
        printf '\\006' | dd of=$device/config bs=1 seek=4 conv=notrunc 2>/run/dd
        read start rest <$device/resource
        written=0 end=$(( $(cut -d. -f1 /proc/uptime) + {int(seconds)} ))
        while [ $(cut -d. -f1 /proc/uptime) -lt $end ]; do
            for value in $(od -An -v -tu4 -w4 -N 1024 /dev/urandom); do
                at=$(( (written * 4 + value / 65536 % 2 * 4) % 16384 ))
                devmem $(( start + at )) 32 $value 2>>/run/devmem && written=$(( written + 1 ))
            done
        done
        echo $written"""
    return int(guest.check(script, seconds + 120).split()[-1])


def test_a_guest_that_writes_anything_anywhere_harms_nobody(four: Hosts, soaking: bool) -> None:
    """Its neighbours' traffic runs on, without a loss."""
    hostile, one, two, _ = four.guests
    seconds = 60 if soaking else 10
    with content(one, two):
        written, report, pings = together(
            lambda: turn_against(hostile, seconds),
            lambda: iperf(one, "10.0.0.3", seconds),
            lambda: ping(two, "10.0.0.2", 20 * seconds, interval=0.05),
        )
    assert written >= 20 * seconds
    assert four.counters(0)["traps"] > 0
    assert min(received_bytes(report)) > 100_000 * seconds
    assert pings
    hostile.check("modprobe ixgbevf; ip address replace 10.0.0.1/24 dev eth0; ip link set eth0 up; sleep 1")
    assert reaches(hostile, "10.0.0.2", count=10)
