"""What guests' tools say, read: right, wrong, and from a guest that lies."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.errors import ProtocolError
from vfwire.guests.commands import Done
from vfwire.guests.pair import Network, in_table_order
from vfwire.measure import guest_phases
from vfwire.measure.guest_phases import Window, measure_tcp, parse_window
from vfwire.measure.guests import GuestRecord, guest_gains, name_better_default

# time, rx_packets, tx_packets, then /proc/stat: user nice system idle iowait irq softirq steal guest guest_nice
FIRST = "100.500000 1000 10 cpu 10 0 20 100 0 0 5 0 0 0"
LAST = "102.500000 61000 12 cpu 30 0 40 140 10 0 55 0 0 0"


def test_a_window_is_read() -> None:
    found = parse_window(f"{FIRST}\n{LAST}\n")
    assert found == Window(2.0, 60000, 2, 1 - 50 / 140)


@pytest.mark.parametrize(
    "said",
    [
        "",
        FIRST,
        f"{FIRST}\n{FIRST}",
        f"{LAST}\n{FIRST}",
        f"{FIRST}\n{LAST}\n{LAST}",
        f"{FIRST}\n102.5 x 1 cpu 1",
    ],
)
def test_what_is_no_window(said: str) -> None:
    with pytest.raises(ProtocolError):
        parse_window(said)


@given(st.text(alphabet="0123456789. \ncpu-x", max_size=200))
def test_any_answer_is_a_window_or_an_error(said: str) -> None:
    try:
        found = parse_window(said)
    except ProtocolError:
        return
    assert found.seconds > 0


def record(path: str, via: str, pps: float, p50: float) -> GuestRecord:
    return GuestRecord(
        path=path, driver="x", frame_bytes=64, direction="one-way", line_rate_bps=None, offered_pps=None,
        packets_per_second=pps, bits_per_second=pps * 512, sent=1, received=1, lost=0, lost_to={}, corrupted=None,
        reordered=None, rtt_us={"p50": p50}, cpu_ns_per_packet={"systems": 1e9 / pps, "layers": 0.0, "card": None},
        hops={}, cores={}, ring_size=1, emulated=True, via=via, interface="net0", tcp_bits_per_second={},
        guest_cpu={}, cores_used={},
    )  # fmt: skip


def test_the_enhanced_path_is_held_against_the_better_default() -> None:
    records = name_better_default(
        [
            record("default", "slow", 10, 50),
            record("default", "fast", 20, 40),
            record("enhanced", "VF", 60, 10),
        ]
    )
    assert [one.via for one in records if one.better_default] == ["fast"]
    (gain,) = guest_gains(records)
    assert gain["via"] == "VF" and gain["packets_per_second"] == 3 and gain["rtt_p50"] == 4
    assert gain["packets_per_cpu_second"] == pytest.approx(3)


def test_without_a_default_path_there_is_no_gain() -> None:
    assert guest_gains(name_better_default([record("enhanced", "VF", 60, 10)])) == []


def test_networks_are_shown_default_first_and_have_addresses() -> None:
    vf, tap = Network("enhanced", "VF", 0), Network("default", "tap", 2)
    assert in_table_order([vf, tap]) == [tap, vf]
    assert (tap.interface, tap.address(0), tap.address(1)) == ("net2", "10.82.2.1", "10.82.2.2")


class TalkingPair:
    """Two guests that say what they are told to, one answer a command."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), [""]
        self.guests, self.family = [self, self], self

    def run(self, command: str, seconds: float) -> Done:
        self.asked.append(command)
        return Done(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0], 1)

    def check(self, command: str = "") -> str:
        self.asked.append(command)
        return ""

    def wait_time(self, seconds: float) -> None:
        self.asked.append("waits")


BUSY = '{"error": "the server is busy running a test. try again later"}'


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_phases, "_TCP_PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_busy_server_is_asked_again() -> None:
    report = '{"end": {"sum_received": {"bits_per_second": 1.5e9}}}'
    pair = TalkingPair(BUSY, "Segmentation fault", "", report)
    found = measure_tcp(cast(Any, pair), Network("default", "x", 2), 0.4, reverse=True)
    assert found == 1.5e9
    asked = [command for command in pair.asked if "--client" in command]
    assert asked == ["iperf3 --client 10.82.2.2 --time 1 --json --reverse"] * 4


@pytest.mark.usefixtures("at_once")
def test_what_iperf3_says_in_the_end_is_told() -> None:
    with pytest.raises(ProtocolError, match="busy running a test"):
        measure_tcp(cast(Any, TalkingPair(BUSY)), Network("default", "x", 2), 1, reverse=False)
    with pytest.raises(ProtocolError, match="it ended with 1"):
        measure_tcp(cast(Any, TalkingPair("")), Network("default", "x", 2), 1, reverse=False)
