"""The ENA's rings in the loop, round by round: where frames go, completions, phases, low-latency queues."""

import struct
from typing import Any

import pytest
from ena_kit import COMPLETE, FIRST, LAST, EnaGuest, ena_bench
from loop_kit import frame, tagged

from vfwire.datapath.ena_queues import close_all, close_rx, close_tx
from vfwire.datapath.state import QUEUES

BROADCAST = b"\xff" * 6


def text(number: int, size: int = 60) -> bytes:
    return (f"payload {number:4d} ".encode() * (size // 13 + 1))[:size]


@pytest.mark.parametrize("llq", [0, 128, 256])
def test_frames_arrive_by_the_general_and_the_fast_path_through_many_laps(llq: int) -> None:
    bench, (one, two) = ena_bench(2, llq=llq, size=16)
    sent = [frame(two.mac, one.mac, text(number, 46 + number % 20)) for number in range(100)]
    got = []
    for start in range(0, 100, 10):
        for number in range(start, start + 10):
            one.send(sent[number], request=number * 7 % 16)
        bench.rounds()
        assert one.completions() == [number * 7 % 16 for number in range(start, start + 10)]
        got += [received.frame for received in two.receive()]
    assert got == sent and one.drops() == two.drops() == {}
    assert bench.state.tx[0].to == 1  # all but the first by the fast path
    assert (one.record.tx_frames, two.record.rx_frames, two.record.copied) == (100, 100, sum(map(len, sent)))


@pytest.mark.parametrize("llq", [0, 128])
@pytest.mark.parametrize("size", [60, 96, 97, 300, 1514])
def test_long_frames_keep_their_bytes_on_both_paths(size: int, llq: int) -> None:
    bench, (one, two) = ena_bench(2, llq=llq)
    sent = [
        frame(two.mac, one.mac, bytes((number * 3 + place) & 0xFF for place in range(size - 14)))
        for number in range(3)
    ]
    for number, data in enumerate(sent):
        one.send(data, request=number)
    bench.rounds()
    assert [received.frame for received in two.receive()] == sent
    assert one.completions() == [0, 1, 2]


@pytest.mark.parametrize("llq", [0, 128])
def test_a_frame_of_many_buffers(llq: int) -> None:
    bench, (one, two) = ena_bench(2, llq=llq)
    data = frame(two.mac, one.mac, text(1, 1400))
    one.send(data, request=9, pieces=(100, 1, 200, 64, 128, 5, 6, 7, 8, 9, 10))
    one.send(frame(two.mac, one.mac, text(2)), request=10)
    bench.rounds()
    assert [received.frame for received in two.receive()] == [data, frame(two.mac, one.mac, text(2))]
    assert one.completions() == [9, 10]


def test_a_frame_fills_as_many_buffers_as_it_takes() -> None:
    bench, (one, two) = ena_bench(2, buffer=512)
    data = frame(two.mac, one.mac, text(1, 1486))
    one.send(data)
    one.send(frame(two.mac, one.mac, text(2)))
    bench.rounds()
    first, second = two.receive()
    assert (first.frame, first.pieces) == (data, (512, 512, 476)) and second.pieces == (74,)


def test_what_finds_no_buffer_is_dropped_and_counted_and_still_completed() -> None:
    bench, (one, two) = ena_bench(2, size=16)
    for round_number in range(3):
        for number in range(10):
            one.send(frame(two.mac, one.mac, text(number)), request=number)
        bench.rounds()
        assert one.completions() == list(range(10)), round_number
    assert two.drops() == {"no receive descriptor": 15}
    assert len(two.receive(again=False)) == 15


def test_a_completion_only_where_it_was_asked_for() -> None:
    bench, (one, two) = ena_bench(2)
    for number in range(4):
        data = frame(two.mac, one.mac, text(number))
        control = FIRST | LAST | (COMPLETE if number & 1 else 0)
        one.entry(one.data(one.buffer(data), len(data), control=control, request=number))
    one.ring()
    bench.rounds()
    assert one.completions() == [1, 3] and len(two.receive()) == 4


def test_broadcast_and_mixed_models_on_two_cards() -> None:
    bench, (ena, ixgbe, far_ixgbe, far_ena) = ena_bench(2, 2, ena=(0, 3))
    everybody = (ena, ixgbe, far_ixgbe, far_ena)
    for sender in everybody:
        for target in everybody:
            if sender is not target:
                for number in range(3):
                    sender.send(frame(target.mac, sender.mac, text(number)))
        sender.send(frame(BROADCAST, sender.mac, text(99)))
        bench.rounds()
        for target in everybody:
            got = [received.frame for received in target.receive()]
            wanted = [frame(target.mac, sender.mac, text(n)) for n in range(3)] + [
                frame(BROADCAST, sender.mac, text(99))
            ]
            assert got == ([] if target is sender else wanted)
    assert [guest.drops() for guest in everybody] == [{}] * 4


def test_a_tag_stays_in_line_and_is_put_back_when_another_model_took_it_out() -> None:
    bench, (ena, ixgbe) = ena_bench(2, ena=(0,))
    for pool in range(2):
        bench.state.vlan_pools[0, 5] |= 1 << pool
    ena.send(tagged(ixgbe.mac, ena.mac, 5))
    bench.rounds()
    (got,) = ixgbe.receive()
    assert (got.vlan, got.frame) == (5, frame(ixgbe.mac, ena.mac))
    ixgbe.send(tagged(ena.mac, ixgbe.mac, 5))
    bench.rounds()
    (back,) = ena.receive()
    assert back.frame == tagged(ena.mac, ixgbe.mac, 5)


def flow_frame(two: EnaGuest, one: EnaGuest, flow: int) -> bytes:
    """UDP over IPv4 from an address of its own."""
    header = struct.pack(
        ">BBHHHBBHII", 0x45, 0, 46, 0, 0, 64, 17, 0, 0x0A000001, 0x0A000002 + flow * flow * 7919
    )
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", 0xFFFF - total) + header[12:]
    return frame(two.mac, one.mac, header + struct.pack(">HHHH", 1000 + flow, 7, 26, 0) + bytes(18), 0x0800)


def test_several_queues_spread_by_table_on_both_paths() -> None:
    bench, (one, two) = ena_bench(2, queues=4)
    two.record.rss = 0xFF
    bench.state.reta[1] = [(entry * 5 + 1) % 4 for entry in range(128)]
    seen: dict[int, tuple[int, int]] = {}
    for _ in range(2):  # first time by the general path or the fast one, then by the fast one
        for flow in range(40):
            one.send(flow_frame(two, one, flow))
            bench.rounds()
            one.completions()
            found = [(queue, got) for queue in range(4) for got in two.receive(queue)]
            ((queue, got),) = found
            assert (got.l3, got.l4, got.l3_bad, got.l4_checked) == (8, 13, False, False)
            assert queue == bench.state.reta[1, got.hash & 127]
            assert seen.setdefault(flow, (queue, got.hash)) == (queue, got.hash)
    assert len({queue for queue, _ in seen.values()}) == 4
    assert sum(bench.state.rx[QUEUES + queue].frames for queue in range(4)) == 80


def queues_of(bench: Any, one: EnaGuest, two: EnaGuest, flows: range) -> dict[int, int]:
    """The receive queue of each flow: one frame of each, one at a time."""
    found = {}
    for flow in flows:
        one.send(flow_frame(two, one, flow))
        bench.rounds()
        one.completions()
        (found[flow],) = [queue for queue in range(4) for _ in two.receive(queue)]
    return found


@pytest.mark.parametrize("closed", [False, True])
def test_one_burst_goes_to_several_queues(closed: bool) -> None:
    """Flows take turns: each frame to its own queue, in the flow's order; those of a closed one are counted drops."""
    bench, (one, two) = ena_bench(2, queues=4)
    two.record.rss = 0xFF
    bench.state.reta[1] = [entry % 4 for entry in range(128)]
    queue_of = queues_of(bench, one, two, range(12))
    assert len(set(queue_of.values())) == 4
    before = [int(bench.state.rx[QUEUES + queue].frames) for queue in range(4)]
    if closed:
        close_rx(bench.state, 1, 2)
    for turn in range(5):
        for flow in range(12):
            one.send(flow_frame(two, one, flow), request=turn * 12 + flow, ring=False)
    one.ring()
    bench.rounds()
    assert one.completions() == list(range(60))
    lost = 0
    for queue in range(4):
        flows = [flow for flow in range(12) if queue_of[flow] == queue]
        if closed and queue == 2:
            lost = 5 * len(flows)
            continue
        assert [got.frame for got in two.receive(queue)] == [flow_frame(two, one, flow) for flow in flows] * 5
        assert int(bench.state.rx[QUEUES + queue].frames) == before[queue] + 5 * len(flows)
    assert two.drops() == ({"receiver not enabled": lost} if lost else {})
    assert bool(lost) == closed


def test_a_full_queue_costs_its_own_frames_only() -> None:
    bench, (one, two) = ena_bench(2, queues=4)
    two.record.rss = 0xFF
    bench.state.reta[1] = [entry % 4 for entry in range(128)]
    queue_of = queues_of(bench, one, two, range(12))
    full = queue_of[0]
    for _ in range(63):  # a whole ring, and nobody offers those buffers again
        one.send(flow_frame(two, one, 0), ring=False)
    one.ring()
    bench.rounds()
    one.completions()
    assert len(two.receive(full, again=False)) == 63
    other = next(flow for flow in range(12) if queue_of[flow] != full)
    for _ in range(10):
        one.send(flow_frame(two, one, 0), ring=False)
        one.send(flow_frame(two, one, other), ring=False)
    one.ring()
    bench.rounds()
    assert len(two.receive(queue_of[other])) == 10 and two.receive(full) == []
    assert two.drops() == {"no receive descriptor": 10}


def test_a_fault_in_one_queue_accounts_for_what_another_was_to_get() -> None:
    """The function stops in the middle of a burst: frames copied and not yet shown are drops, none is received."""
    bench, (one, two) = ena_bench(2, queues=4)
    two.record.rss = 0xFF
    bench.state.reta[1] = [entry % 4 for entry in range(128)]
    queue_of = queues_of(bench, one, two, range(12))
    good = queue_of[0]
    bad_flow = next(flow for flow in range(12) if queue_of[flow] != good)
    bad = queue_of[bad_flow]
    received = int(two.record.rx_frames)
    bench.state.rx[QUEUES + bad].tail = bench.state.rx[
        QUEUES + bad
    ].head  # all that it had offered is used up
    two.words[1, bad, 0] = (int(bench.state.rx[QUEUES + bad].head) + 2 * two.size) & 0xFFFF
    for flow in (0, 0, bad_flow):
        one.send(flow_frame(two, one, flow), ring=False)
    one.ring()
    bench.rounds()
    one.completions()
    assert two.record.dma == 0 and two.receive(good) == []
    assert int(two.record.rx_frames) == received
    assert two.drops()["receiver not enabled"] == 3


@pytest.mark.parametrize("what", ["phase", "first", "last with meta", "meta again"])
def test_a_descriptor_that_is_none_is_stepped_over_and_counted(what: str) -> None:
    bench, (one, two) = ena_bench(2)
    good = frame(two.mac, one.mac, text(0))
    at = one.buffer(good)
    if what == "phase":
        wrong = int.from_bytes(one.data(at, len(good), control=FIRST | LAST), "little") ^ 1 << 24
        one.entry(wrong.to_bytes(16, "little"))
    elif what == "first":
        one.entry(one.data(at, len(good), control=LAST))
    elif what == "last with meta":
        one.entry((int.from_bytes(one.meta(), "little") | LAST).to_bytes(16, "little"))
    else:
        one.entry(one.meta())
        one.entry((int.from_bytes(one.meta(), "little") ^ FIRST).to_bytes(16, "little"))
    one.send(good, request=3)
    bench.rounds()
    assert [got.frame for got in two.receive()] == [good] and one.completions() == [3]
    dropped = one.drops()
    assert set(dropped) == {"bad descriptor"}


def test_a_doorbell_far_ahead_stops_the_function_and_no_other() -> None:
    bench, (one, two, three) = ena_bench(3)
    one.words[0, 0, 0] = 65  # of a ring of 64
    bench.rounds()
    assert one.record.dma == 0 and one.drops() == {"bad descriptor": 1}
    two.send(frame(three.mac, two.mac, text(1)))
    two.send(frame(one.mac, two.mac, text(1)))
    bench.rounds()
    assert len(three.receive()) == 1 and one.drops() == {"bad descriptor": 1, "receiver not enabled": 1}


@pytest.mark.parametrize("side", ["receive buffer", "transmit buffer"])
def test_an_address_outside_of_the_maps(side: str) -> None:
    bench, (one, two) = ena_bench(2, size=16)
    if side == "receive buffer":
        two.receive()
        for number in range(15):  # use up what was offered
            one.send(frame(two.mac, one.mac, text(number)), request=number)
        bench.rounds()
        one.completions()
        two.offer(3, address=two.iova + 0x200000 - 8)
        two.rx_done[0] = 15
        one.send(frame(two.mac, one.mac, text(0)))
        bench.rounds()
        assert two.record.dma == 0 and two.drops()["bad DMA address"] == 1
    else:
        data = frame(two.mac, one.mac, text(0))
        one.entry(one.data(one.iova + 0x200000 - 8, len(data), control=FIRST | LAST | COMPLETE, request=4))
        one.send(data, request=5)
        bench.rounds()
        assert one.drops() == {"bad DMA address": 1} and one.completions() == [4, 5]
        assert [got.frame for got in two.receive()] == [data]


def test_a_closed_queue_takes_nothing() -> None:
    bench, (one, two) = ena_bench(2)
    assert isinstance(two, EnaGuest)
    close_rx(bench.state, 1, 0)
    one.send(frame(two.mac, one.mac, text(0)))
    bench.rounds()
    assert two.drops() == {"receiver not enabled": 1}
    close_tx(bench.state, 0, 0)
    one.send(frame(two.mac, one.mac, text(0)))
    assert bench.round() == 0
    close_all(bench.state, 1)
    assert two.record.rx_queues == two.record.tx_queues == 0
