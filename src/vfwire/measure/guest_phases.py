"""What is measured between two guests on one network, by the guests' own tools: pktgen, iperf3, ping.

Everything is asked for in shell scripts that print a few numbers; rates are by the guests' own clock.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from vfwire.errors import ProtocolError, VfwireError
from vfwire.guests.guest import Guest
from vfwire.guests.pair import GuestPair, Network
from vfwire.measure.phases import Progress, account

FRAME_BYTES = 64  # with the FCS, which pktgen does not count
BURST = 32  # frames that pktgen hands to the driver at once; its pace is between bursts
PING_SECONDS = 0.005  # between two pings
COUNTED = ("copied", "notified", "traps")  # what a card counts that hops come from
WARM_UP_SECONDS = 1.0
_COMMAND_SECONDS = 30.0
_TCP_TRIES, _TCP_PAUSE_SECONDS = 10, 0.5  # its server may still be busy with the test before
_TIMES = re.compile(r"time=([0-9.]+) ms")

# Frames for nobody (RFC 2544's addresses), so that the receiving guest's stack has nothing to answer.
_PKTGEN = """set -e
modprobe pktgen
cd /proc/net/pktgen
echo rem_device_all >kpktgend_0
echo add_device {interface} >kpktgend_0
for word in "count 0" "{pace}" "pkt_size 60" "clone_skb 0" "burst {burst}" "dst_mac {mac}" \\
    "src_min 198.18.0.1" "src_max 198.18.0.1" "dst_min 198.19.0.1" "dst_max 198.19.0.1" "udp_dst_min 9" "udp_dst_max 9"
do echo "$word" >{interface}; done
(echo start >pgctrl) >/dev/null 2>&1 &
"""
_STOP = "echo stop >/proc/net/pktgen/pgctrl"
# The sink: what arrives is counted and dropped before the IP stack, whose work is the same on every network. iproute2's
# tc by its path, since busybox has one, too.
_SINK = """modprobe -a sch_ingress cls_matchall act_gact
/usr/sbin/tc qdisc replace dev {interface} clsact
/usr/sbin/tc filter replace dev {interface} ingress protocol ip pref 1 handle 1 matchall action drop"""
_NO_SINK = "/usr/sbin/tc qdisc del dev {interface} clsact"
_COUNTERS = """cd /sys/class/net/{interface}/statistics
show() {{ read -r all </proc/stat; echo $EPOCHREALTIME $(cat rx_packets tx_packets) $all; }}
show; sleep {seconds:g}; show"""


@dataclass(frozen=True, slots=True)
class Window:
    """What one guest saw in a window. cpu: its vCPUs' busy share, 0 to 1."""

    seconds: float
    received: int
    sent: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Stream:
    """A pktgen run from the first guest to the second. Rates over the window, counts over the whole run.

    cores: CPU that QEMU's processes and the card's used, in cores. counted: what the card counted over the whole run.
    """

    seconds: float
    pps: float
    sent: int
    received: int
    lost_to: dict[str, int]
    guest_cpu: dict[str, float]
    cores: dict[str, float]
    counted: dict[str, int] = field(default_factory=dict)


def script(text: str, network: Network, **values: Any) -> str:
    return text.format(interface=network.interface, **values)


def driver_of(guest: Guest, network: Network) -> str:
    """What the guest itself says drives its interface (`ethtool -i`)."""
    return _field(guest.check(f"ethtool -i {network.interface}"), r"driver: (\S+)")


def ring_size_of(guest: Guest, network: Network) -> int:
    """Receive descriptors, as the guest has them now (`ethtool -g`)."""
    said = guest.check(f"ethtool -g {network.interface}").partition("Current hardware settings")[2]
    return int(_field(said, r"RX:\s+(\d+)"))


def _field(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ProtocolError(f"a guest's tool said something else than expected: {text.strip()[:80]!r}")
    return found[1]


def measure_stream(
    pair: GuestPair, network: Network, seconds: float, progress: Progress, rate_pps: int | None = None
) -> Stream:
    """pktgen for the warm-up and a window of `seconds`; received and lost are accounted for.

    rate_pps: frames a second to offer, None for as fast as it goes.
    """
    pace = "delay 0" if rate_pps is None else f"ratep {max(1, rate_pps // BURST)}"
    sender, receiver = pair.guests
    mac = receiver.check(f"cat /sys/class/net/{network.interface}/address").strip()
    receiver.check(script(_SINK, network))
    try:
        before, first = _packets(pair, network), pair.count(network)
        sender.check(script(_PKTGEN, network, mac=mac, pace=pace, burst=BURST))
        try:
            _wait(pair, WARM_UP_SECONDS)
            window = _window(pair, network, seconds, progress)
        finally:
            sender.run(_STOP, _COMMAND_SECONDS)
        after = _settled(pair, network)
    finally:
        receiver.run(script(_NO_SINK, network), _COMMAND_SECONDS)
    sent, received = after[0] - before[0], after[1] - before[1]
    last = pair.count(network)
    causes = Counter({cause: count - first["drops"].get(cause, 0) for cause, count in last["drops"].items()})
    return Stream(
        **window,
        sent=sent,
        received=received,
        lost_to=account(max(0, sent - received), causes),
        counted={name: last[name] - first[name] for name in COUNTED},
    )


def _window(pair: GuestPair, network: Network, seconds: float, progress: Progress) -> dict[str, Any]:
    processes = [psutil.Process(guest.pid) for guest in pair.guests]

    def used() -> tuple[float, float, float]:
        emulators = sum(sum(process.cpu_times()[:2]) for process in processes)
        return time.perf_counter(), emulators, pair.card_cpu_ns(network) / 1e9

    first = used()
    with ThreadPoolExecutor(len(pair.guests)) as pool:
        watching = [pool.submit(watch, guest, network, seconds) for guest in pair.guests]
        _wait(pair, seconds, progress)
        sender, receiver = (future.result() for future in watching)
    last = used()
    wall = last[0] - first[0]
    return {
        "seconds": receiver.seconds,
        "pps": receiver.received / receiver.seconds,
        "guest_cpu": {"sender": sender.cpu, "receiver": receiver.cpu},
        "cores": {"guests": (last[1] - first[1]) / wall, "card": (last[2] - first[2]) / wall},
    }


def watch(guest: Guest, network: Network, seconds: float) -> Window:
    """Counters of one guest before and after so long, by its own clock."""
    said = guest.check(
        f"LC_ALL=C bash -c '{script(_COUNTERS, network, seconds=seconds)}'", seconds + _COMMAND_SECONDS
    )
    return parse_window(said)


def parse_window(said: str) -> Window:
    """Two lines: time, received, sent, then the line "cpu" of /proc/stat (proc(5)). Raises ProtocolError."""
    try:
        first, last = (line.split() for line in said.splitlines() if " cpu " in line)
        elapsed = float(last[0]) - float(first[0])
        ticks = [int(after) - int(before) for before, after in zip(first[4:], last[4:], strict=True)]
        received, sent = (int(last[place]) - int(first[place]) for place in (1, 2))
        idle, total = ticks[3] + ticks[4], sum(ticks[:8])
    except (ValueError, IndexError) as error:
        raise ProtocolError(f"a guest's counters cannot be read: {said.strip()[:80]!r}") from error
    if elapsed <= 0:
        raise ProtocolError("a guest's clock stands still")
    return Window(elapsed, received, sent, 1 - idle / total if total > 0 else 0.0)


def _packets(pair: GuestPair, network: Network) -> tuple[int, int]:
    """(sent by the first, received by the second) so far."""
    folder = f"/sys/class/net/{network.interface}/statistics"
    sender, receiver = pair.guests
    return int(sender.check(f"cat {folder}/tx_packets")), int(receiver.check(f"cat {folder}/rx_packets"))


def _settled(pair: GuestPair, network: Network) -> tuple[int, int]:
    """The same once nothing arrives any more: two looks that agree, within the time of one command."""
    deadline = time.monotonic() + _COMMAND_SECONDS
    known = (-1, -1)
    while (now := _packets(pair, network)) != known:
        if time.monotonic() > deadline:
            raise VfwireError("frames still arrive long after the stream's end")
        known = now
        _wait(pair, 0.3)
    return known


def _wait(pair: GuestPair, seconds: float, progress: Progress | None = None) -> None:
    """Let the guests work for that long. Raises PeerGone as soon as the card or one of them ends."""
    start = time.monotonic()
    while (gone := time.monotonic() - start) < seconds:
        pair.family.wait_time(min(0.25, seconds - gone))
        pair.check()
        if progress is not None:
            progress("", min(1.0, gone / seconds))


def measure_tcp(pair: GuestPair, network: Network, seconds: float, *, reverse: bool) -> float:
    """iperf3's TCP throughput at the receiver in bits a second, from the first to the second, or back."""
    whole = max(1, round(seconds))  # iperf3 takes whole seconds
    command = f"iperf3 --client {network.address(1)} --time {whole} --json{' --reverse' if reverse else ''}"
    error = ""
    for _ in range(_TCP_TRIES):
        said = pair.guests[0].run(command, whole + _COMMAND_SECONDS)
        try:
            report = json.loads(said.output)
            if "error" not in report:
                return float(report["end"]["sum_received"]["bits_per_second"])
            error = str(report["error"])
        except (ValueError, KeyError, TypeError):  # it can end by a signal where it should say "busy"
            error = said.output.strip()[-80:] or f"it ended with {said.code}"
        _wait(pair, _TCP_PAUSE_SECONDS)
        serve_tcp(pair)
    raise ProtocolError(f"iperf3 did not measure: {error}")


def serve_tcp(pair: GuestPair) -> None:
    """iperf3's server in the second guest, unless it runs."""
    pair.guests[1].check("pidof iperf3 >/dev/null || iperf3 --server --daemon")


def measure_pings(pair: GuestPair, network: Network, seconds: float) -> NDArray[np.int64]:
    """Round trips of ICMP echo from the first guest, one every PING_SECONDS, in ns."""
    count = max(20, round(seconds / PING_SECONDS))
    target = network.address(1)
    pair.guests[0].run(f"ping -c 2 -W 2 {target}", _COMMAND_SECONDS)  # ARP, and the caches, before it counts
    command = f"ping -i {PING_SECONDS} -c {count} -W 2 {target}"
    said = pair.guests[0].run(command, 10 * seconds + _COMMAND_SECONDS)
    return np.array([round(float(text) * 1e6) for text in _TIMES.findall(said.output)], np.int64)


Tell = Callable[[str], Progress]
