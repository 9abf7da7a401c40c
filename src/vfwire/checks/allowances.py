"""The ENA's allowance counters: packets that EC2 queued or dropped because an instance was past one of its limits.

Names from Amazon's `kernel/linux/ena/ena_ethtool.c`; meanings from the EC2 User Guide, "Monitor network performance for
ENA settings". Each counter is its interface's own since the last reset of the device, while most limits are the
instance's: several interfaces are looked at one by one, and never summed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Allowance(NamedTuple):
    """limit: which, and which way. meaning: what the number counts. remedy: what to do when it grows.
    gauge: the number is what is left now, not a count of packets.
    """

    limit: str
    meaning: str
    remedy: str
    gauge: bool = False


_DROPPED = "packets queued or dropped"
ALLOWANCES = {
    "bw_in_allowance_exceeded": Allowance(
        "bandwidth, inbound",
        f"{_DROPPED} because the instance received more than its aggregate bandwidth",
        "take a larger type, spread the load over instances, or have the senders smooth their bursts",
    ),
    "bw_out_allowance_exceeded": Allowance(
        "bandwidth, outbound",
        f"{_DROPPED} because the instance sent more than its aggregate bandwidth",
        "take a larger type, pace what is sent (tc qdisc fq or SO_MAX_PACING_RATE), or spread the load over instances",
    ),
    "pps_allowance_exceeded": Allowance(
        "packets a second, both ways together",
        f"{_DROPPED} because the instance moved more packets a second than it may",
        "send fewer and larger packets (MTU 9001 inside a VPC, batching), or take a larger type",
    ),
    "conntrack_allowance_exceeded": Allowance(
        "tracked connections",
        "packets dropped because no further connection could be tracked: new ones fail",
        "close idle connections, shorten the idle timeouts, make the flows untracked by security group rules that "
        "allow all traffic both ways, or take a larger type",
    ),
    "linklocal_allowance_exceeded": Allowance(
        "packets a second to local proxy services (1,024 for an interface)",
        "packets dropped on their way to the Amazon DNS server, the instance metadata or the time service",
        "cache DNS answers on the instance (systemd-resolved, dnsmasq), and ask the metadata service less often",
    ),
    "conntrack_allowance_available": Allowance(
        "tracked connections that are left",
        "connections that can still be tracked before the limit of the instance type is reached",
        "act before it is 0: see conntrack_allowance_exceeded",
        gauge=True,
    ),
}
NOT_TOLD = "not told: they take the ENA driver 2.2.10 or later, and a device that counts them"


@dataclass(frozen=True)
class Reading:
    """value: of the counter now. per_second: its rate since the reading before; None without one, for a gauge, and
    after a reset of the device in between.
    """

    name: str
    value: int
    per_second: float | None

    @property
    def allowance(self) -> Allowance:
        return ALLOWANCES[self.name]

    @property
    def wants_action(self) -> bool:
        return self.value == 0 if self.allowance.gauge else self.value > 0

    def as_json(self) -> dict[str, Any]:
        allowance = self.allowance
        told = {"limit": allowance.limit, "meaning": allowance.meaning, "remedy": allowance.remedy}
        return asdict(self) | told | {"gauge": allowance.gauge}


def read_allowances(
    counters: Mapping[str, int], before: Mapping[str, int] | None = None, seconds: float = 0.0
) -> list[Reading]:
    """The allowances among an interface's counters. before: the same counters `seconds` ago."""
    found = []
    for name, allowance in ALLOWANCES.items():
        if name not in counters:
            continue
        rate = None
        if before is not None and seconds > 0 and not allowance.gauge:
            grown = counters[name] - before.get(name, counters[name] + 1)
            rate = grown / seconds if grown >= 0 else None
        found.append(Reading(name, counters[name], rate))
    return found
