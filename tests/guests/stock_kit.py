"""Guests whose stock driver drives VFs of one card, and the questions that tests ask them."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.guests.guest_kit import RunningCard, card, guest_image, machine
from vfwire.devices.management import ManagementClient
from vfwire.devices.run_directory import MANAGEMENT
from vfwire.guests.guest import Guest

READY_SECONDS = 150.0
COMMAND_SECONDS = 60.0
# What a network driver that is not content leaves in its kernel's log.
TROUBLE = re.compile(
    r"Unit Hang|timed out|WARNING|BUG:|Oops|Call Trace|Reset adapter|reset task|refused|[Ff]ailed to"
)
_LOSS = re.compile(r"(\d+) packets transmitted, (\d+) received")


@dataclass
class Hosts:
    """Guests, VF by VF of one card: guest n has 10.0.0.(n + 1) and fd00::(n + 1)."""

    card: RunningCard
    guests: list[Guest]

    def ask(self, do: str, **arguments: Any) -> Any:
        """A request to the card, as `vfwire vf` sends it."""
        with ManagementClient(self.card.directory / MANAGEMENT, COMMAND_SECONDS) as client:
            return client.ask(do, **arguments)

    def set(self, vf: int, **changes: Any) -> None:
        self.ask("set", vf=vf, changes=changes)

    def counters(self, vf: int) -> dict[str, Any]:
        counted: dict[str, Any] = self.ask("counters")["vfs"][str(vf)]
        return counted


def addresses(number: int) -> tuple[str, ...]:
    return (f"eth0:10.0.0.{number + 1}/24,fd00::{number + 1}/64",)


def start(made: RunningCard, vf: int, **rest: Any) -> Guest:
    """A guest on one VF, with `rest` as `Machine` takes it; it is still booting."""
    image = guest_image("iputils-ping")
    name = f"guest{vf}"
    return Guest(
        machine(name, image=image, functions=made.sockets[vf : vf + 1], addresses=addresses(vf), **rest)
    )


@contextlib.contextmanager
def hosts(
    directory: Path, count: int, *options: str, query_rss: bool = False, **guests: Any
) -> Iterator[Hosts]:
    """A card with so many VFs, and a guest on each, all up and with a link. guests: as `start` takes it."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(card(directory, "--vfs", str(count), *options))
        found = Hosts(made, [])
        for vf in range(count):
            if query_rss:
                found.set(vf, query_rss=True)
            found.guests.append(stack.enter_context(start(made, vf, **guests)))
        for guest in found.guests:
            guest.wait_ready(READY_SECONDS)
            wait_link(guest)
        yield found


def wait_until(what: str, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"


def wait_link(guest: Guest, up: bool = True, seconds: float = 60.0) -> None:
    """Until the interface has a carrier, or has none."""
    wanted = int(up)
    script = f'while [ "$(cat /sys/class/net/eth0/carrier 2>/dev/null)" != {wanted} ]; do sleep 0.1; done'
    guest.check(script, seconds)


class Pings(NamedTuple):
    """True when every one was answered; a failed assertion shows the figures and what ping said."""

    sent: int
    received: int
    said: str

    def __bool__(self) -> bool:
        return self.sent == self.received > 0


# ping waits for the last answer no longer than two round trips, once it has had one. A guest that waits for its core
# longer than that has not lost it: so what its kernel has counted is looked at, for a while if something is missing.
_PATIENT = """replies() {{
    awk '$1 == "Icmp:" && !at {{ for (i = 1; i <= NF; i++) if ($i == "InEchoReps") at = i; next }}
        $1 == "Icmp:" {{ all += $at }} $1 == "Icmp6InEchoReplies" {{ all += $2 }} END {{ print all + 0 }}' \\
        /proc/net/snmp $(ls /proc/net/snmp6 2>/dev/null)
}}
before=$(replies); {ping}; tries=0
while [ $(($(replies) - before)) -lt {count} ] && [ $tries -lt 20 ]; do sleep 0.1; tries=$((tries + 1)); done
echo replies counted: $(($(replies) - before))"""
_REPLIES = re.compile(r"replies counted: (\d+)")


def ping(guest: Guest, to: str, count: int = 50, *, interval: float = 0.01, options: str = "") -> Pings:
    """interval 0: as fast as answers come."""
    pace = "-f" if interval == 0 else f"-i {interval}"
    command = _PATIENT.format(ping=f"ping -n -q -W 2 {pace} -c {count} {options} {to}", count=count)
    done = guest.run(command, COMMAND_SECONDS + count * interval)
    found, late = _LOSS.search(done.output), _REPLIES.search(done.output)
    assert found and late, done.output
    sent, received = int(found[1]), int(found[2])
    return Pings(sent, sent if int(late[1]) == sent else received, done.output)  # more: another ping's, too


def reaches(guest: Guest, to: str, **options: Any) -> Pings:
    """Every ping is answered. The first, which may have to wait for an address, does not count."""
    ping(guest, to, 2, interval=0.2, options=options.get("options", ""))
    return ping(guest, to, **options)


def iperf(guest: Guest, to: str, seconds: float, options: str = "") -> dict[str, Any]:
    """iperf3's report. A server runs on the other guest (`serve`).

    Asked again while the server is not done with the test before: iperf3 3.18 says so, or ends by a segmentation fault.
    """
    reports: list[dict[str, Any]] = []

    def answered() -> bool:
        done = guest.run(f"iperf3 -J -c {to} -t {seconds} {options}", seconds + COMMAND_SECONDS)
        if not done.output.startswith("{"):
            return False
        reports.append(json.loads(done.output))
        return "busy" not in reports[-1].get("error", "")

    wait_until(f"a report of iperf3 to {to}", answered)
    assert "error" not in reports[-1], reports[-1]["error"]
    return reports[-1]


def serve(guest: Guest) -> None:
    """iperf3's server in the background, for as many clients as come, one after the other."""
    guest.check("pidof iperf3 >/dev/null || iperf3 -s -D --idle-timeout 4")


def received_bytes(report: dict[str, Any]) -> list[int]:
    """Bytes that arrived, for each direction that the report has."""
    end = report["end"]
    return [int(end[name]["bytes"]) for name in ("sum_received", "sum_received_bidir_reverse") if name in end]


def together(*calls: Callable[[], Any]) -> list[Any]:
    """All of them at once; their results in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def interrupts(guest: Guest) -> dict[str, int]:
    """Interrupts of each of eth0's vectors so far, by the name that the driver gave it."""
    found = {}
    for line in guest.check("cat /proc/interrupts").splitlines():
        words = line.split()
        if words and words[-1].startswith("eth0"):
            found[words[-1]] = sum(int(word) for word in words[1:] if word.isdecimal())
    return found


def statistics(guest: Guest) -> dict[str, int]:
    """`ethtool -S eth0`."""
    pairs = (line.split(":") for line in guest.check("ethtool -S eth0").splitlines()[1:])
    return {name.strip(): int(value) for name, value in pairs}


@contextlib.contextmanager
def content(*guests: Guest) -> Iterator[None]:
    """Nothing that these guests' kernels log meanwhile is a driver's complaint."""
    before = [len(guest.check("dmesg").splitlines()) for guest in guests]
    yield
    for guest, seen in zip(guests, before, strict=True):
        new = guest.check("dmesg").splitlines()[seen:]
        assert not [line for line in new if TROUBLE.search(line)]
