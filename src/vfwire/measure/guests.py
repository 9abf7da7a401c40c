"""The comparison between two guests: every network in turn, into records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vfwire.guests.pair import GuestPair, Network, in_table_order
from vfwire.layouts.ethernet import FCS_BYTES
from vfwire.measure import guest_phases as phases
from vfwire.measure.compare import ONE_WAY
from vfwire.measure.phases import Progress
from vfwire.measure.record import PathRecord, gains, percentiles_us

EMULATED = "tcg"
_FEW_LOST = 0.01
_HEADROOM = 1.25
_PACED_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRecord(PathRecord):
    """A path between two guests. driver: what the guest says. cpu_ns_per_packet.systems: QEMU's processes, whole.

    via: what joins them. tcp_bits_per_second: `forward`, `reverse`, by iperf3. guest_cpu: busy share of the vCPUs of
    `sender` and `receiver`, cores: CPU used by `guests` (QEMU) and `card`, both under pktgen. better_default: of the
    default ones the one with more packets a second.
    """

    guests: bool = True
    emulated: bool
    via: str
    interface: str
    tcp_bits_per_second: dict[str, float]
    guest_cpu: dict[str, float]
    cores_used: dict[str, float]
    better_default: bool = False


def compare_guests(pair: GuestPair, seconds: float, tell: Callable[[str], Progress]) -> list[GuestRecord]:
    """Measure each network of an open pair. `tell` is given each step's title."""
    phases.serve_tcp(pair)
    records = [_measure(pair, network, seconds, tell) for network in in_table_order(pair.networks)]
    return name_better_default(records)


def _measure(
    pair: GuestPair, network: Network, seconds: float, tell: Callable[[str], Progress]
) -> GuestRecord:
    title = f"{network.path} ({network.via})"
    tell(f"{title}: round trips")
    samples = phases.measure_pings(pair, network, seconds)
    stream, offered = _best_stream(
        pair, network, seconds, lambda what: tell(f"{title}: packets a second{what}")
    )
    tell(f"{title}: TCP")
    tcp = {
        name: phases.measure_tcp(pair, network, seconds, reverse=reverse)
        for name, reverse in (("forward", False), ("reverse", True))
    }
    enhanced = network.path == "enhanced"
    pps = stream.pps
    return GuestRecord(
        path=network.path,
        driver=phases.driver_of(pair.guests[0], network),
        frame_bytes=phases.FRAME_BYTES,
        direction=ONE_WAY,
        line_rate_bps=pair.options.line_rate_bps[network.model] if enhanced else None,
        offered_pps=offered,
        packets_per_second=pps,
        bits_per_second=pps * phases.FRAME_BYTES * 8,
        sent=stream.sent,
        received=stream.received,
        lost=max(0, stream.sent - stream.received),
        lost_to=stream.lost_to,
        corrupted=None,
        reordered=None,
        rtt_us=percentiles_us(samples),
        cpu_ns_per_packet={
            "systems": stream.cores["guests"] / pps * 1e9 if pps else None,
            "layers": 0.0,  # what lies between runs inside of QEMU's processes, and is counted there
            "card": stream.cores["card"] / pps * 1e9 if pps and enhanced else None,
        },
        hops=_hops(stream) if enhanced else dict.fromkeys(_HOPS),
        cores={},
        ring_size=phases.ring_size_of(pair.guests[1], network),
        emulated=EMULATED in pair.accelerators,
        via=network.via,
        interface=network.interface,
        tcp_bits_per_second=tcp,
        guest_cpu=stream.guest_cpu,
        cores_used=stream.cores,
    )


def _best_stream(
    pair: GuestPair, network: Network, seconds: float, tell: Callable[[str], Progress]
) -> tuple[phases.Stream, int | None]:
    """The stream of which most arrived, and its offered rate: as fast as it goes (None), or a little more than was
    received then, since a sender that overruns its receiver takes its core away; again while that helps.
    """
    best, offered = phases.measure_stream(pair, network, seconds, tell("")), None
    for _ in range(_PACED_TRIES):
        if best.sent - best.received <= _FEW_LOST * best.sent:
            break
        rate = round(best.pps * _HEADROOM)
        paced = phases.measure_stream(pair, network, seconds, tell(f", {rate:,} offered"), rate)
        if paced.pps <= best.pps:
            break
        best, offered = paced, rate
    return best, offered


_HOPS = ("layers", "copies", "wakeups_per_packet", "traps_per_packet")


def _hops(stream: phases.Stream) -> dict[str, float | None]:
    """What a packet went through on the card; the emulator does not tell it of its own network."""
    if not stream.received:
        return dict.fromkeys(_HOPS)
    each = {name: count / stream.received for name, count in stream.counted.items()}
    copies = each["copied"] / (phases.FRAME_BYTES - FCS_BYTES)
    return dict(zip(_HOPS, (0.0, copies, each["notified"], each["traps"]), strict=True))


def name_better_default(records: Sequence[GuestRecord]) -> list[GuestRecord]:
    """Mark, of the default paths, the one with more packets a second."""
    rates = {record.via: record.packets_per_second for record in records if record.path == "default"}
    best = max(rates, key=lambda via: rates[via], default=None)
    return [replace(record, better_default=record.via == best) for record in records]


def guest_gains(records: Sequence[GuestRecord]) -> list[dict[str, Any]]:
    """For each enhanced path what it gained over the better default one (see record.gains)."""
    best = [record for record in records if record.better_default]
    found: list[dict[str, Any]] = []
    for record in records:
        if record.path == "enhanced":
            found += [{"via": record.via, **gain} for gain in gains([*best, record])]
    return found
