"""Several guests: four ENAs on one card, and an 82599 and an ENA on two cards that a cable joins."""

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
    reaches,
    received_bytes,
    serve,
    start,
    together,
    wait_link,
)

pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]


def test_four_guests_on_one_card_all_to_all(tmp_path: Path) -> None:
    with hosts(tmp_path, 4, "--model", "ena") as made, content(*made.guests):
        for number, guest in enumerate(made.guests):
            others = [f"10.0.0.{other + 1}" for other in range(4) if other != number]
            assert all(reaches(guest, other, count=20) for other in others)
        for server in made.guests[2:]:
            serve(server)
        reports = together(
            lambda: iperf(made.guests[0], "10.0.0.3", 2), lambda: iperf(made.guests[1], "10.0.0.4", 2)
        )
        assert all(received_bytes(report)[0] > 100_000 for report in reports)


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
