"""Two guests of two vCPUs whose own ixgbevf drives our VFs: what that driver says of them, and all kinds of traffic."""

import hashlib
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

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

SEED = random.Random(82599).randbytes(1 << 20)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    seed = tmp_path_factory.mktemp("seed") / "seed"
    seed.write_bytes(SEED)
    made_of = {"vcpus": 2, "files": {"/opt/seed": seed}}
    with hosts(tmp_path_factory.mktemp("c"), 2, query_rss=True, **made_of) as made:
        for guest in made.guests:
            serve(guest)
        yield made


def test_it_binds_and_knows_its_mac_and_its_link(pair: Hosts, one: Guest) -> None:
    shown = one.check("ethtool -i eth0")
    assert "driver: ixgbevf\n" in shown and "supports-register-dump: yes" in shown
    assert one.check("cat /sys/class/net/eth0/address").strip() == pair.card.described["vfs"][0]["mac"]
    settings = one.check("ethtool eth0")
    assert "Speed: 10000Mb/s" in settings and "Link detected: yes" in settings
    assert "NIC Link is Up 10 Gbps" in one.check("dmesg")


def test_registers_that_it_dumps_are_those_that_it_wrote(one: Guest) -> None:
    shown = one.check("ethtool -d eth0")
    dumped = {name: int(value, 16) for name, value in re.findall(r": (\S+)\s+\(.*\)\s+0x(\w+)", shown)}
    assert dumped["VFLINKS"] == 0x70000000
    assert dumped["VFEIMS"] == dumped["VFEIAC"] == dumped["VFEIAM"] == 0b111
    assert dumped["VFRDLEN(0)"] == 512 * 16 and dumped["VFTDLEN(1)"] == 1024 * 16


def test_rings_offloads_and_moderation_are_told(one: Guest) -> None:
    assert re.search(r"Current hardware settings:\nRX:\s+512\n", one.check("ethtool -g eth0"))
    features = one.check("ethtool -k eth0")
    for feature in ("rx-checksumming", "tx-checksumming", "tcp-segmentation-offload", "rx-vlan-offload"):
        assert f"{feature}: on" in features
    assert "rx-usecs:\t1\n" in one.check("ethtool -c eth0")


def test_the_rings_can_be_made_longer_while_it_is_up(one: Guest) -> None:
    one.check("ethtool -G eth0 rx 1024 tx 256")
    wait_link(one)
    assert reaches(one, "10.0.0.2")
    one.check("ethtool -G eth0 rx 512 tx 1024")
    wait_link(one)


def test_its_rss_table_and_key_are_the_cards(one: Guest) -> None:
    shown = one.check("ethtool -x eth0")
    assert "with 2 RX ring(s)" in shown
    entries = [int(entry) for row in re.findall(r"^ +\d+:(.*)$", shown, re.M) for entry in row.split()]
    assert entries == [0, 1] * 64
    assert len(re.findall(r"\b[0-9a-f]{2}\b", shown.split("RSS hash key:\n")[1].splitlines()[0])) == 40


def test_no_ping_is_lost(one: Guest, soaking: bool) -> None:
    count = 20_000 if soaking else 1000
    assert ping(one, "10.0.0.2", count, interval=0)
    assert ping(one, "fd00::2", count, interval=0)
    assert ping(one, "10.0.0.2", 50, options="-s 8000")  # in fragments


def test_counters_agree_with_what_the_card_counted(pair: Hosts, one: Guest) -> None:
    before, counted = statistics(one), pair.counters(0)
    ping(one, "10.0.0.2", 200, interval=0)
    after, recounted = statistics(one), pair.counters(0)
    for ours, theirs in (("tx_frames", "tx_packets"), ("rx_frames", "rx_packets")):
        assert recounted[ours] - counted[ours] >= after[theirs] - before[theirs] >= 200
    assert after["tx_timeout_count"] == after["rx_csum_offload_errors"] == 0


@pytest.mark.parametrize("to", ["10.0.0.2", "fd00::2"])
def test_tcp_runs_both_ways_at_once(pair: Hosts, one: Guest, to: str, soaking: bool) -> None:
    """Segmented and summed by the card: far fewer packets are handed to it than leave it."""
    before, counted = statistics(one), pair.counters(0)
    arrived = received_bytes(iperf(one, to, 30 if soaking else 3, "--bidir"))
    after, recounted = statistics(one), pair.counters(0)
    assert len(arrived) == 2 and min(arrived) > 1_000_000
    assert recounted["tx_frames"] - counted["tx_frames"] >= arrived[0] // 1460
    assert after["rx_csum_offload_errors"] == before["rx_csum_offload_errors"]


def test_udp_arrives_in_order_up_to_what_the_receiver_can_take(one: Guest, two: Guest) -> None:
    """An emulated receiver may stand still for a second: its socket holds what comes meanwhile."""
    for side in (one, two):
        side.check("sysctl -q net.core.rmem_max=4194304 net.core.wmem_max=4194304")
    report = iperf(one, "10.0.0.2", 3, "-u -b 8M -l 1400 -w 2M")["end"]["sum"]
    assert report["packets"] > 1500 and report["lost_percent"] < 2


def test_checksums_are_the_cards_work(one: Guest, two: Guest) -> None:
    """With the offloads off the drivers compute them; both ways of it understand each other."""
    for side in (one, two):
        side.check("ethtool -K eth0 tx off rx off")
        wait_link(side)
        try:
            assert min(received_bytes(iperf(one, "10.0.0.2", 1))) > 100_000
        finally:
            side.check("ethtool -K eth0 tx on rx on tso on gso on")
            wait_link(side)


def test_megabytes_arrive_unharmed(one: Guest, two: Guest, soaking: bool) -> None:
    """200 MB in numbered blocks, each byte of them in a checksum that the receiver makes and this process knows."""
    blocks = 2000 if soaking else 200
    expected = hashlib.md5()
    for block in range(blocks):
        expected.update(b"%d\n" % block + SEED)
    listen = "rm -f /run/open; mkfifo /run/open; exec 4<>/run/open; nc -l -p 4000 <&4 | md5sum"
    send = f"""
        i=0; while [ $i -lt {blocks} ]; do echo $i; cat /opt/seed; i=$((i + 1)); done | nc 10.0.0.2 4000"""
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(two.check, listen, 900)
        wait_until("a listener", lambda: ":4000" in two.check("ss -ltn"))
        one.check(send, 900)
        assert received.result().split()[0] == expected.hexdigest()


@pytest.mark.parametrize("options", ["-I eth0 239.1.2.3", "-b 10.0.0.255", "-I eth0 ff02::1%eth0"])
def test_groups_and_everybody(one: Guest, two: Guest, options: str) -> None:
    two.check(
        "ip address replace 239.1.2.3/32 dev eth0 autojoin; sysctl -q net.ipv4.icmp_echo_ignore_broadcasts=0"
    )
    before = statistics(two)["multicast"]
    pings = ping(one, options, 20)
    assert pings.received >= pings.sent
    if "10.0.0.255" not in options:
        assert statistics(two)["multicast"] - before >= 20


def test_only_a_trusted_function_hears_all_groups(pair: Hosts, one: Guest, two: Guest) -> None:
    """Frames to a group that nobody has joined reach the guest that listens to all, once the PF trusts it."""
    two.check("ip link set eth0 allmulticast on")
    heard = []
    for trust in (False, True, False):
        pair.set(1, trust=trust)
        wait_link(two)
        wait_until("trust", lambda: reaches(one, "10.0.0.2", count=5))
        before = pair.counters(1)["rx_multicast"]
        one.run("ping -n -q -W 1 -i 0.01 -c 20 -I eth0 239.9.9.9", 30)
        heard.append(pair.counters(1)["rx_multicast"] - before >= 20)
    two.check("ip link set eth0 allmulticast off")
    assert heard == [False, True, False]


def test_vlans_of_the_guests_own(one: Guest, two: Guest) -> None:
    for number, guest in enumerate((one, two), 1):
        guest.check(
            "modprobe 8021q; ip link add link eth0 name eth0.100 type vlan id 100\n"
            f"ip address add 10.1.0.{number}/24 dev eth0.100; ip link set eth0.100 up"
        )
    assert reaches(one, "10.1.0.2", count=100)
    assert min(received_bytes(iperf(one, "10.1.0.2", 1))) > 100_000
    two.check("ip link delete eth0.100")
    assert not reaches(one, "10.1.0.2", count=3, options="-W 1")
    one.check("ip link delete eth0.100")


def test_an_mtu_beyond_the_cards_is_refused(one: Guest) -> None:
    """And, as Linux's PF has it, reception stops until the driver asks for a size that fits."""
    assert one.run("ip link set eth0 mtu 9000").code != 0
    assert one.check("cat /sys/class/net/eth0/mtu") == "1500\n"
    assert not reaches(one, "10.0.0.2", count=3, options="-W 1")
    one.check("ip link set eth0 mtu 1499; ip link set eth0 mtu 1500")
    assert reaches(one, "10.0.0.2", count=5)


def test_the_mtu_changes_while_traffic_runs(one: Guest, two: Guest) -> None:
    def change() -> None:
        for mtu in (1400, 900, 1500):
            for guest in (one, two):
                guest.check(f"ip link set eth0 mtu {mtu}")

    report, _ = together(lambda: iperf(one, "10.0.0.2", 4), change)
    assert min(received_bytes(report)) > 100_000
    wait_link(one)
    wait_link(two)
    assert reaches(one, "10.0.0.2", count=20, options="-s 1400 -M do")


def test_both_queues_carry_traffic(one: Guest, two: Guest) -> None:
    """Many flows, spread by the card's hash: each queue has its part of both directions."""
    before = [statistics(guest) for guest in (one, two)]
    iperf(one, "10.0.0.2", 3, "-P 8")
    for guest, earlier in zip((one, two), before, strict=True):
        now = statistics(guest)
        for queue in (0, 1):
            for way in ("rx", "tx"):
                name = f"{way}_queue_{queue}_packets"
                assert now[name] - earlier[name] > 50, name


def test_no_more_interrupts_come_than_the_guest_asked_for(one: Guest, two: Guest) -> None:
    """With 1,000 µs between two of a vector there are no more than 1,000 a second, however many packets come.

    That they fall cannot be seen here: an emulated guest under load polls, and takes fewer than that by itself.
    """
    two.check("ethtool -C eth0 rx-usecs 1000")
    before, start = interrupts(two), statistics(two)["rx_packets"]
    begin = float(two.check("cut -d ' ' -f 1 /proc/uptime"))
    iperf(one, "10.0.0.2", 3, "-u -b 12M -l 300 -P 2")
    spent = float(two.check("cut -d ' ' -f 1 /proc/uptime")) - begin
    after = interrupts(two)
    vectors = [name for name in after if "TxRx" in name]
    assert vectors and all(after[name] - before[name] <= 1000 * spent * 1.05 for name in vectors)
    assert statistics(two)["rx_packets"] > start
    two.check("ethtool -C eth0 rx-usecs 1")
