"""Drivers, guests and cards that come and go while a neighbour stays: again and again, and each time it works."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.guests.stock_kit import READY_SECONDS, Hosts, content, hosts, reaches, start, wait_link, wait_until
from vfwire.errors import ProtocolError, WaitTimeout
from vfwire.guests.guest import Guest

pytestmark = [pytest.mark.guests, pytest.mark.timeout(900)]

ADDRESS = "ip address replace 10.0.0.1/24 dev eth0; ip link set eth0 up"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("c"), 2, "--guests") as made:
        yield made


@pytest.fixture(autouse=True)
def neighbour_is_content(two: Guest) -> Iterator[None]:
    with content(two):
        yield


def fresh(guest: Guest) -> bool:
    """It answers, and has forgotten what was in its memory."""
    with contextlib.suppress(WaitTimeout, ProtocolError):
        return guest.run("test ! -e /run/before", 5).code == 0
    return False


def test_down_and_up(one: Guest, soaking: bool) -> None:
    with content(one):
        for _ in range(300 if soaking else 20):
            one.check("ip link set eth0 down; ip link set eth0 up")
            wait_link(one)
            assert reaches(one, "10.0.0.2", count=3)


def test_the_module_goes_and_comes(one: Guest, soaking: bool) -> None:
    with content(one):
        for _ in range(200 if soaking else 10):
            one.check(f"modprobe -r ixgbevf; modprobe ixgbevf; {ADDRESS}")
            wait_link(one)
            assert reaches(one, "10.0.0.2", count=3)
    assert "driver: ixgbevf" in one.check("ethtool -i eth0")


def test_the_guest_starts_anew(pair: Hosts, one: Guest, soaking: bool) -> None:
    """By reset, in the same QEMU: the function is taken over as the last kernel left it."""
    for _ in range(20 if soaking else 1):
        one.check("touch /run/before")
        one.monitor("system_reset")
        wait_until("a new start", lambda: fresh(one), READY_SECONDS)
        wait_link(one)
        assert reaches(one, "10.0.0.2", count=10)
    assert pair.counters(0)["fault"] is None


def test_the_guest_is_killed_and_another_takes_the_function(
    pair: Hosts, one: Guest, two: Guest, soaking: bool
) -> None:
    for _ in range(10 if soaking else 1):
        pair.guests[0].kill()
        pair.guests[0].close()
        wait_until("a free function", lambda: not pair.ask("show")["vfs"][0]["in_use"])
        pair.guests[0] = start(pair.card, 0)
        pair.guests[0].wait_ready(READY_SECONDS)
        wait_link(pair.guests[0])
        assert reaches(two, "10.0.0.1", count=10)
    pair.guests[0].close()
