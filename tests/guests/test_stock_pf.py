"""What the operator does to functions while stock drivers use them, with traffic on."""

import time
from collections.abc import Iterator

import pytest

from tests.guests.stock_kit import (
    Hosts,
    hosts,
    iperf,
    ping,
    reaches,
    received_bytes,
    serve,
    together,
    wait_link,
    wait_until,
)
from vfwire.guests.guest import Guest

pytestmark = [
    pytest.mark.guests,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("drivers_are_content"),
]

WIRE_OVERHEAD = 24  # bytes of a frame that no counter sees: FCS, preamble and gap


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("c"), 2) as made:
        for guest in made.guests:
            serve(guest)
        yield made


def test_a_port_vlan_is_invisible_to_its_guest(pair: Hosts, one: Guest, two: Guest) -> None:
    pair.set(0, vlan=7, qos=3)
    assert not reaches(one, "10.0.0.2", count=3, options="-W 1")
    pair.set(1, vlan=7)
    assert reaches(one, "10.0.0.2", count=50)
    assert min(received_bytes(iperf(one, "10.0.0.2", 1))) > 100_000
    assert one.check("ip -br link show type vlan") == two.check("ip -br link show type vlan") == ""
    pair.set(0, vlan=0, qos=0)
    pair.set(1, vlan=0)
    assert reaches(one, "10.0.0.2", count=5)


def test_the_link_goes_and_comes_under_traffic(pair: Hosts, one: Guest) -> None:
    seen = pair.counters(0)["tx_frames"]

    def blink() -> None:
        wait_until("traffic", lambda: pair.counters(0)["tx_frames"] > seen + 500)
        pair.set(0, state="disable")
        wait_link(one, up=False)
        pair.set(0, state="auto")
        wait_link(one)

    report, _ = together(lambda: iperf(one, "10.0.0.2", 12), blink)
    assert min(received_bytes(report)) > 100_000
    assert "NIC Link is Down" in one.check("dmesg")
    assert reaches(one, "10.0.0.2", count=20)


def test_a_new_mac_holds_from_the_drivers_next_reset(pair: Hosts, one: Guest) -> None:
    """As with Linux's PF, which says: reload the VF driver."""
    old, new = one.check("cat /sys/class/net/eth0/address").strip(), "02:00:00:00:07:01"
    for mac in (new, old):
        pair.set(0, mac=mac)
        one.check("ip link set eth0 down; ip link set eth0 up")
        wait_link(one)
        assert one.check("cat /sys/class/net/eth0/address").strip() == mac
        assert reaches(one, "10.0.0.2", count=20)
    assert one.run("ip link set eth0 address 02:00:00:00:07:02").code != 0


@pytest.mark.parametrize("mbps", [12, 20])
def test_a_rate_is_kept_within_five_percent(pair: Hosts, one: Guest, mbps: int) -> None:
    """Measured by what arrived at the other function while the sender always had more to send."""
    pair.set(0, max_tx_rate=mbps)

    def measure() -> float:
        wait_until("a full pipe", lambda: pair.counters(0)["throttled"] > throttled)
        before, begin = pair.counters(1), time.monotonic()
        time.sleep(4)  # how long is measured, not what is waited for
        after, spent = pair.counters(1), time.monotonic() - begin
        frames = after["rx_frames"] - before["rx_frames"]
        return (after["rx_bytes"] - before["rx_bytes"] + frames * WIRE_OVERHEAD) * 8 / spent / 1e6

    throttled = pair.counters(0)["throttled"]
    _, measured = together(lambda: iperf(one, "10.0.0.2", 8, f"-u -b {2 * mbps}M -l 1400"), measure)
    pair.set(0, max_tx_rate=0)
    assert measured == pytest.approx(mbps, rel=0.05)


def test_a_forged_mac_is_dropped_and_counted(pair: Hosts, one: Guest, two: Guest) -> None:
    """The kernel's packet generator with a source that is not the function's: nothing of it arrives."""
    to = two.check("cat /sys/class/net/eth0/address").strip()

    def forge(source: str) -> tuple[int, int]:
        before, other = pair.counters(0)["drops"].get("spoof check", 0), pair.counters(1)["rx_frames"]
        one.check(
            "modprobe pktgen; cd /proc/net/pktgen; echo rem_device_all >kpktgend_0\n"
            "echo add_device eth0 >kpktgend_0; cd /proc/net/pktgen\n"
            f"for word in 'count 500' 'pkt_size 60' 'dst_mac {to}' 'src_mac {source}' 'delay 0'; do\n"
            "echo $word >eth0; done; echo start >pgctrl; modprobe -r pktgen"
        )
        spoofed = pair.counters(0)["drops"].get("spoof check", 0) - before
        return spoofed, pair.counters(1)["rx_frames"] - other

    own = one.check("cat /sys/class/net/eth0/address").strip()
    assert forge("02:00:00:00:09:09") == (500, pytest.approx(0, abs=20))
    spoofed, arrived = forge(own)
    assert spoofed == 0 and arrived >= 450
    pair.set(0, spoofchk=False)
    spoofed, arrived = forge("02:00:00:00:09:09")
    pair.set(0, spoofchk=True)
    assert spoofed == 0 and arrived >= 450
    assert ping(one, "10.0.0.2", 20)
