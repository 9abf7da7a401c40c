"""Two guests, two vCPUs each, whose own ENA driver drives our VFs: what it says, what it can set, all traffic."""

import base64
import re
from collections.abc import Iterator

import pytest

from tests.guests.bpf_object import DROP, bpf_object, send_back, verdict
from tests.guests.stock_kit import (
    Hosts,
    hosts,
    interrupts,
    iperf,
    ping,
    reaches,
    received_bytes,
    serve,
    statistics,
    wait_link,
    wait_until,
)
from vfwire.guests.guest import Guest
from vfwire.layouts.ena_admin import METRIC_NAMES

pytestmark = [
    pytest.mark.guests,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("drivers_are_content"),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("c"), 2, "--model", "ena", vcpus=2) as made:
        for guest in made.guests:
            serve(guest)
        yield made


def complaints(guest: Guest) -> list[str]:
    """What the ENA's driver has logged since the guest is up, but for who it is."""
    known = re.compile(r"device version|controller version|Adapter \(ENA\) found|[Ll]ink|Elastic")
    lines = [line for line in guest.check("dmesg").splitlines() if re.search(r"\bena\b", line)]
    return [line for line in lines if not known.search(line)]


# --- What it says ---------------------------------------------------------------------------------------------


def test_it_binds_without_a_complaint_and_the_card_knows_who_it_is(pair: Hosts, one: Guest) -> None:
    assert "driver: ena\n" in one.check("ethtool -i eth0")
    assert one.check("cat /sys/class/net/eth0/address").strip() == pair.card.described["vfs"][0]["mac"]
    assert complaints(one) == []
    host = pair.ask("show")["vfs"][0]["host"]
    assert (host["os"], host["release"], host["cpus"]) == ("Linux", one.check("uname -r").strip(), 2)
    assert f"driven by Linux {host['release']}" in pair.card.vf("show", pair.card.described["card"])


def test_link_channels_rings_moderation_and_offloads(one: Guest) -> None:
    settings = one.check("ethtool eth0")
    assert "Speed: 100000Mb/s" in settings and "Link detected: yes" in settings
    assert one.check("ethtool -l eth0").count("Combined:\t2\n") == 2
    assert re.search(r"maximums:\nRX:\s+8192\n(.*\n)*TX:\s+1024\n", one.check("ethtool -g eth0"))
    assert "rx-usecs:\t" in one.check("ethtool -c eth0")
    features = one.check("ethtool -k eth0")
    for feature in (
        "rx-checksumming",
        "tx-checksum-ipv4",
        "tx-checksum-ipv6",
        "tx-tcp-segmentation",
        "receive-hashing",
    ):
        assert f"{feature}: on" in features


def test_statistics_have_their_documented_names(one: Guest) -> None:
    """ENA_Linux_Best_Practices.rst, and AWS's "metrics for the ENA driver"."""
    shown = statistics(one)
    assert set(METRIC_NAMES.values()) - {"conntrack_allowance_available"} <= set(shown)
    for name in (
        "queue_0_tx_cnt",
        "queue_1_rx_bytes",
        "tx_timeout",
        "wd_expired",
        "ena_admin_q_completed_cmd",
    ):
        assert name in shown
    assert shown["tx_timeout"] == shown["wd_expired"] == shown["queue_0_rx_bad_req_id"] == 0


# --- Traffic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "options"), [("10.0.0.2", ""), ("fd00::2", ""), ("10.0.0.2", "-s 1400")])
def test_every_ping_comes_back(one: Guest, address: str, options: str) -> None:
    assert reaches(one, address, count=200, interval=0, options=options)


@pytest.mark.parametrize("to", ["10.0.0.2", "fd00::2"])
def test_tcp_both_ways(pair: Hosts, one: Guest, two: Guest, to: str) -> None:
    """Segmented and summed by the card: far fewer packets are handed to it than leave it, and no sum is wrong."""
    before, counted = statistics(one), pair.counters(0)
    arrived = received_bytes(iperf(one, to, 3, "--bidir -P 2"))
    after, recounted = statistics(one), pair.counters(0)
    assert len(arrived) == 2 and min(arrived) > 1_000_000
    left = recounted["tx_frames"] - counted["tx_frames"]
    handed = sum(after[f"queue_{queue}_tx_cnt"] - before[f"queue_{queue}_tx_cnt"] for queue in (0, 1))
    assert left >= arrived[0] // 1460 and 2 * handed < left
    assert {statistics(guest)[f"queue_{queue}_rx_csum_bad"] for guest in (one, two) for queue in (0, 1)} == {
        0
    }


def test_udp(pair: Hosts, one: Guest) -> None:
    before = [pair.counters(vf)["rx_frames"] for vf in (0, 1)]
    report = iperf(one, "10.0.0.2", 1, "-u -b 5M -l 1400")
    assert (
        report["end"]["sum"]["lost_percent"] < 20
    )  # emulated guests on a busy machine lose some by themselves
    assert all(pair.counters(vf)["rx_frames"] > seen for vf, seen in enumerate(before))


def test_data_arrives_as_it_was_sent(one: Guest, two: Guest) -> None:
    one.check("mkdir -p /tmp/www; head -c 20000000 /dev/urandom > /tmp/www/data; httpd -p 9000 -h /tmp/www")
    wanted = one.check("sha256sum < /tmp/www/data")
    assert two.check("wget -q -O - http://10.0.0.1:9000/data | sha256sum", 90) == wanted
    one.check("killall httpd; rm -r /tmp/www")  # a full /tmp makes iperf3 end by a segmentation fault


def test_both_queues_and_both_vectors_work(pair: Hosts, one: Guest, two: Guest) -> None:
    before = interrupts(two)
    iperf(one, "10.0.0.2", 2, "-P 8")
    after = interrupts(two)
    grown = [after[name] - before[name] for name in sorted(after) if "Tx-Rx" in name]
    assert len(grown) == 2 and min(grown) > 0
    shown = statistics(two)
    assert shown["queue_0_rx_cnt"] > 0 and shown["queue_1_rx_cnt"] > 0


def test_a_vlan_of_the_guests_own(one: Guest, two: Guest) -> None:
    for number, guest in enumerate((one, two), 1):
        guest.check(
            f"ip link add link eth0 name v5 type vlan id 5; ip addr add 10.5.0.{number}/24 dev v5; ip link set v5 up"
        )
    assert reaches(one, "10.5.0.2", count=50)
    for guest in (one, two):
        guest.check("ip link del v5")


def test_jumbo_frames(one: Guest, two: Guest) -> None:
    for guest in (one, two):
        guest.check("ip link set eth0 mtu 9001")
        wait_link(guest)
    assert reaches(one, "10.0.0.2", count=50, options="-s 8973 -M do")
    assert received_bytes(iperf(one, "10.0.0.2", 2))[0] > 1_000_000
    assert one.run("ip link set eth0 mtu 9217").code != 0
    for guest in (one, two):
        guest.check("ip link set eth0 mtu 1500")
        wait_link(guest)


# --- What can be set ------------------------------------------------------------------------------------------


def test_channels_rings_and_moderation(one: Guest) -> None:
    one.check("ethtool -L eth0 combined 1")
    wait_link(one)
    assert reaches(one, "10.0.0.2", count=50)
    one.check("ethtool -L eth0 combined 2")
    one.check("ethtool -G eth0 rx 2048 tx 256")
    one.check("ethtool -C eth0 adaptive-rx off rx-usecs 40 tx-usecs 80")
    wait_link(one)
    shown = one.check("ethtool -c eth0")
    assert "rx-usecs:\t40\n" in shown and "tx-usecs:\t80\n" in shown
    assert reaches(one, "10.0.0.2", count=50)


def test_hash_key_and_table(pair: Hosts, one: Guest, two: Guest) -> None:
    key = ":".join(f"{number:02x}" for number in range(40))
    two.check(f"ethtool -X eth0 equal 1 hkey {key}")
    shown = two.check("ethtool -x eth0")
    assert key in shown and "0:      0     0     0     0" in shown
    before = statistics(two)
    iperf(one, "10.0.0.2", 1, "-P 8")
    after = statistics(two)
    assert after["queue_0_rx_cnt"] > before["queue_0_rx_cnt"]
    assert after["queue_1_rx_cnt"] == before["queue_1_rx_cnt"]
    two.check("ethtool -X eth0 default")
    wait_link(two)
    iperf(one, "10.0.0.2", 1, "-P 8")
    assert statistics(two)["queue_1_rx_cnt"] > after["queue_1_rx_cnt"]


def test_large_headers_in_low_latency_queues(pair: Hosts, one: Guest) -> None:
    assert pair.ask("show")["vfs"][0]["low_latency_queues"]
    one.check("ethtool -G eth0 tx-push-buf-len 224")
    wait_link(one)
    assert "TX push buff len:\t224" in one.check("ethtool -g eth0")
    assert reaches(one, "10.0.0.2", count=50)
    assert received_bytes(iperf(one, "10.0.0.2", 1))[0] > 100_000
    one.check("ethtool -G eth0 tx-push-buf-len 96")
    wait_link(one)


def load_xdp(guest: Guest, code: bytes) -> None:
    text = base64.b64encode(bpf_object(code)).decode()
    guest.check(f"echo {text} | base64 -d > /tmp/x.o; ip link set dev eth0 xdpdrv obj /tmp/x.o sec xdp")


def test_xdp_drops_and_redirects_in_the_driver(pair: Hosts, one: Guest, two: Guest) -> None:
    """Half of the channels, as the driver asks. What is redirected leaves by the other half, back to who sent it."""
    two.check("ethtool -L eth0 combined 1")
    wait_link(two)
    index = int(two.check("cat /sys/class/net/eth0/ifindex"))
    one.check(
        f"ip neigh replace 10.0.0.2 lladdr {pair.card.described['vfs'][1]['mac']} dev eth0 nud permanent"
    )
    load_xdp(two, verdict(DROP))
    wait_link(two)
    before = statistics(two)
    assert ping(one, "10.0.0.2", 20).received == 0
    assert statistics(two)["queue_0_rx_xdp_drop"] >= before["queue_0_rx_xdp_drop"] + 20
    two.check("ip link set dev eth0 xdpdrv off")
    load_xdp(two, send_back(index))
    wait_link(two)
    before, sent, received = statistics(two), pair.counters(1), statistics(one)
    assert ping(one, "10.0.0.2", 20).received == 0  # they come back as they were sent: questions, not answers
    wait_until(
        "redirected frames",
        lambda: statistics(two)["queue_0_rx_xdp_redirect"] >= before["queue_0_rx_xdp_redirect"] + 20,
    )
    wait_until("them at the card", lambda: pair.counters(1)["tx_frames"] >= sent["tx_frames"] + 20)
    wait_until("them at the sender", lambda: received_by(statistics(one)) >= received_by(received) + 20)
    two.check("ip link set dev eth0 xdpdrv off; ethtool -L eth0 combined 2")
    wait_link(two)
    one.check("ip neigh del 10.0.0.2 dev eth0")
    assert reaches(one, "10.0.0.2", count=20)


def received_by(shown: dict[str, int]) -> int:
    return shown["queue_0_rx_cnt"] + shown["queue_1_rx_cnt"]


# --- Again and again ------------------------------------------------------------------------------------------


def down_and_up(guest: Guest, times: int) -> None:
    for _ in range(times):
        guest.check("ip link set eth0 down; ip link set eth0 up")
        wait_link(guest)


def reload_module(guest: Guest, number: int, times: int) -> None:
    for _ in range(times):
        guest.check("rmmod ena; modprobe ena")
        guest.check("until ip link set eth0 up 2>/dev/null; do sleep 0.1; done", 30)
        guest.check(f"ip addr add 10.0.0.{number}/24 dev eth0; ip addr add fd00::{number}/64 dev eth0 nodad")
        wait_link(guest)


def test_down_and_up_and_the_module_out_and_in(one: Guest) -> None:
    down_and_up(one, 5)
    assert reaches(one, "10.0.0.2", count=20)
    reload_module(one, 1, 2)
    assert reaches(one, "10.0.0.2", count=20)


@pytest.mark.soak
def test_down_and_up_many_times(one: Guest) -> None:
    down_and_up(one, 20)
    reload_module(one, 1, 10)
    assert reaches(one, "10.0.0.2", count=200)


@pytest.mark.soak
def test_tcp_both_ways_for_long(one: Guest) -> None:
    assert min(received_bytes(iperf(one, "10.0.0.2", 30, "--bidir"))) > 10_000_000


def test_link_down_and_up_by_the_card(pair: Hosts, one: Guest) -> None:
    pair.set(0, state="disable")
    wait_link(one, up=False)
    pair.set(0, state="auto")
    wait_link(one)
    assert reaches(one, "10.0.0.2", count=20)
