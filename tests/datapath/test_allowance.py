"""Allowances, by a clock that the test winds: rates to two percent, counters that add up, shared instances."""

import struct
from typing import Any

import pytest
from ena_kit import ena_bench
from loop_kit import LoopBench, frame

from vfwire.datapath.allowance import set_allowance
from vfwire.datapath.ena_queues import close_tx

WIRE_BITS = (60 + 24) * 8


def udp(
    to: bytes, source: bytes, addresses: tuple[int, int] = (0x0A000001, 0x0A000002), port: int = 7
) -> bytes:
    header = struct.pack(">BBHHHBBHII", 0x45, 0, 46, 0, 0, 64, 17, 0, *addresses)
    return frame(to, source, header + struct.pack(">HHHH", port, 9, 26, 0) + bytes(18), 0x0800)


def run(bench: LoopBench, senders: list[Any], to: Any, micros: int, each: int) -> int:
    """Offer `each` frames a sender every 10 us, as far as rings take them; returns how many arrived."""
    arrived = 0
    for _ in range(micros // 10):
        for sender in senders:
            ring = bench.state.tx[sender.number * 32]
            waiting = int(sender.tx_tail[0] - ring.head) & 0xFFFF
            for _ in range(min(each, sender.size - 1 - waiting)):
                sender.send(frame(to.mac, sender.mac), ring=False)
            sender.ring()
        bench.round(10_000)
        arrived += len(to.receive())
        for sender in senders:
            sender.completions()
    return arrived


@pytest.mark.parametrize("limited", ["sender", "receiver"])
def test_a_million_packets_a_second_of_two_offered(limited: str) -> None:
    bench, (one, two) = ena_bench(2, size=256)
    meter = 0 if limited == "sender" else 1
    set_allowance(bench.state, meter, [meter], {"pps": 1_000_000})
    instance = bench.state.instances[meter]
    run(bench, [one], two, 2_000, 20)
    exceeded, sent, queued = int(instance.pps_exceeded), int(one.record.tx_frames), int(instance.queued)
    dropped = int(instance.dropped)
    arrived = run(bench, [one], two, 10_000, 20)
    assert arrived == pytest.approx(10_000, rel=0.02)
    exceeded, sent = int(instance.pps_exceeded) - exceeded, int(one.record.tx_frames) - sent
    queued, dropped = int(instance.queued) - queued, int(instance.dropped) - dropped
    assert exceeded == queued + dropped
    if limited == "sender":
        assert dropped == 0 and queued == pytest.approx(
            arrived, rel=0.05
        )  # the ring is full: each has waited
    else:
        assert queued == 0 and sent == arrived + dropped == 20_000
        assert two.drops()["over the instance's allowance"] == int(instance.dropped)


@pytest.mark.parametrize("direction", ["out", "in"])
def test_bandwidth_after_its_burst(direction: str) -> None:
    bench, (one, two) = ena_bench(2, size=256)
    meter = 0 if direction == "out" else 1
    limits = {f"bw_{direction}_bps": 500 * WIRE_BITS * 1000, "burst_bits": 2_000 * WIRE_BITS}
    set_allowance(bench.state, meter, [meter], limits)
    bench.state.instances[meter].now = bench.now
    bench.state.instances[meter][f"{direction}_credit"] = (
        2_000 * WIRE_BITS * 10**9
    )  # as if it had been idle for long
    arrived = run(bench, [one], two, 1_000, 20)
    assert arrived == pytest.approx(2_000, abs=30)  # the bucket lets all of them pass
    run(bench, [one], two, 3_000, 20)
    arrived = run(bench, [one], two, 4_000, 20)
    assert arrived == pytest.approx(2_000, rel=0.02)
    instance = bench.state.instances[meter]
    assert instance[f"bw_{direction}_exceeded"] == instance.queued + instance.dropped > 0


def test_two_functions_share_an_instance_both_ways() -> None:
    bench, (one, two, free) = ena_bench(3, size=256)
    set_allowance(bench.state, 0, [0, 1], {"pps": 400_000})
    run(bench, [one, two], free, 2_000, 5)
    arrived = run(bench, [one, two], free, 5_000, 5)
    assert arrived == pytest.approx(2_000, rel=0.02)
    arrived = run(
        bench, [one, free], two, 5_000, 5
    )  # out of one and in to two: the same packets, the same credit
    received = int(bench.state.instances[0].dropped)
    assert arrived < 2_000 * 1.02 and received > 0


def test_an_82599_is_metered_likewise() -> None:
    bench, (one, two) = ena_bench(2, ena=())
    set_allowance(bench.state, 0, [1], {"pps": 100_000})
    for _ in range(300):
        for _ in range(5):
            one.send(frame(two.mac, one.mac))
        bench.round(10_000)
        two.receive()
    instance = bench.state.instances[0]
    assert two.record.rx_frames == pytest.approx(300 + 100, abs=20)
    assert instance.pps_exceeded == instance.dropped == 1500 - two.record.rx_frames


def test_link_local_packets_have_a_limit_of_their_own() -> None:
    bench, (one, two) = ena_bench(2, size=256)
    set_allowance(bench.state, 0, [0], {}, linklocal_pps=10)
    bench.round(1_000_000)
    for _ in range(20):
        one.send(udp(two.mac, one.mac, addresses=(0x0A000001, 0xA9FEA9FE)))
        one.send(udp(two.mac, one.mac))
    bench.rounds()
    assert one.record.linklocal_exceeded == 20 - (len(two.receive()) - 20) > 0


def test_without_an_allowance_the_fast_path_is_back() -> None:
    bench, (one, two) = ena_bench(2)
    set_allowance(bench.state, 0, [0], {"pps": 1_000_000})
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    assert bench.state.tx[0].to == -1
    set_allowance(bench.state, 0, [0], {})
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    assert bench.state.tx[0].to == 1 and len(two.receive()) == 2


def test_a_queue_that_is_created_anew_has_nothing_that_waited() -> None:
    bench, (one, two) = ena_bench(2)
    set_allowance(bench.state, 0, [0], {"pps": 1000})
    for _ in range(10):
        one.send(frame(two.mac, one.mac))
    bench.rounds()
    waiting = int(bench.state.tx[0].held)
    assert waiting == 10 - len(two.receive()) > 0
    close_tx(bench.state, 0, 0)
    one.start()
    assert (bench.state.tx[0].held, bench.state.tx[0].held_by) == (0, 0)
