"""Connection tracking, by a clock that the test winds: what is tracked, for how long, and that no row is lost."""

import struct
from typing import Any

import pytest
from ena_kit import ena_bench
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import LoopBench, frame

from vfwire.datapath.allowance import set_allowance
from vfwire.datapath.conntrack import CLOSED_NS, IDLE_NS, SWEEP_SHIFT, forget_some, track
from vfwire.datapath.instance import CONNECTIONS, CONNTRACK_MOST
from vfwire.datapath.state import new_state
from vfwire.layouts.ethernet import TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN
from vfwire.memory.compiled import compiled

A, B = 0x0A000001, 0xC0A80002  # the second with its upper bit set
SWEEP_NS = CONNECTIONS << SWEEP_SHIFT


def packet(
    to: Any, source: Any, port: int = 3, *, back: bool = False, flags: int = 0, six: bool = False
) -> bytes:
    """Of the connection from A:port to B:9, or back; with flags of TCP, else of UDP."""
    ends = [(A, port), (B, 9)]
    (near, near_port), (far, far_port) = reversed(ends) if back else ends
    l4 = struct.pack(">HHHH", near_port, far_port, 26, 0) + bytes(18)
    if flags:
        l4 = struct.pack(">HHIIBBHHH", near_port, far_port, 1, 1, 0x50, flags, 99, 0, 0) + bytes(6)
    protocol = 6 if flags else 17
    if six:
        header = struct.pack(">IHBBQQQQ", 6 << 28, 26, protocol, 64, 0xFD << 56, near, 0xFD << 56, far)
        return frame(to.mac, source.mac, header + l4, 0x86DD)
    header = struct.pack(">BBHHHBBHII", 0x45, 0, 46, 0, 0, 64, protocol, 0, near, far)
    return frame(to.mac, source.mac, header + l4, 0x0800)


def limited(most: int, **options: Any) -> tuple[LoopBench, Any, Any, Any]:
    bench, (one, two) = ena_bench(2, **options)
    set_allowance(bench.state, 0, [0], {"conntrack_most": most})
    bench.round()
    return bench, one, two, bench.state.instances[0]


def passed(bench: LoopBench, one: Any, two: Any, *packets: bytes) -> int:
    """How many of them arrive."""
    for data in packets:
        one.send(data)
    bench.rounds()
    one.completions()
    return len(two.receive())


def wait(bench: LoopBench, nanoseconds: int) -> None:
    """That long, and a whole sweep of the table."""
    bench.round(nanoseconds)
    for _ in range(CONNECTIONS // 64 + 1):
        bench.round(SWEEP_NS // (CONNECTIONS // 64))


def test_connections_beyond_the_allowance_are_dropped_and_counted() -> None:
    bench, one, two, instance = limited(10, size=256)
    assert passed(bench, one, two, *(packet(two, one, port) for port in range(15))) == 10
    assert (instance.conntrack_exceeded, instance.conntrack_count) == (5, 10)
    # Those that are tracked go on, and what comes in counts as well.
    assert passed(bench, one, two, *(packet(two, one, port) for port in (3, 9, 14))) == 2
    assert passed(bench, two, one, packet(one, two, 14)) == 0
    assert instance.conntrack_exceeded == 7


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("flags", [0, TCP_ACK])
def test_the_way_back_belongs_to_the_same_connection(flags: int, six: bool) -> None:
    bench, one, two, instance = limited(1)
    assert passed(bench, one, two, packet(two, one, flags=flags, six=six)) == 1
    assert passed(bench, two, one, packet(one, two, flags=flags, six=six, back=True)) == 1
    assert (instance.conntrack_exceeded, instance.conntrack_count) == (0, 1)
    others = [packet(two, one, 4, flags=flags, six=six), packet(two, one, flags=flags ^ TCP_ACK, six=six)]
    assert passed(bench, one, two, *others, packet(two, one, flags=flags, six=not six)) == 0
    assert instance.conntrack_exceeded == 3


def test_idle_connections_make_room_for_others() -> None:
    bench, one, two, instance = limited(10, size=256)
    for start in (0, 100, 200):
        assert passed(bench, one, two, *(packet(two, one, start + port) for port in range(11))) == 10
        assert instance.conntrack_count == 10
        wait(bench, IDLE_NS)
        assert instance.conntrack_count == 0


def test_a_connection_that_is_used_is_not_forgotten() -> None:
    bench, one, two, instance = limited(1)
    for _ in range(3):
        assert passed(bench, one, two, packet(two, one)) == 1
        wait(bench, IDLE_NS - 2 * SWEEP_NS)
    assert instance.conntrack_count == 1
    assert passed(bench, one, two, packet(two, one, 4)) == 0


@pytest.mark.parametrize("end", [TCP_FIN | TCP_ACK, TCP_RST])
def test_a_closed_connection_is_forgotten_soon(end: int) -> None:
    bench, one, two, instance = limited(1)
    wanted = [packet(two, one, flags=flags) for flags in (TCP_SYN, end, TCP_ACK)]
    assert passed(bench, one, two, *wanted) == 3
    assert instance.conntrack_count == 1
    wait(bench, CLOSED_NS)
    assert instance.conntrack_count == 0


def test_a_connection_that_opens_again_stays() -> None:
    bench, one, two, instance = limited(1)
    assert (
        passed(bench, one, two, *(packet(two, one, flags=flags) for flags in (TCP_SYN, TCP_RST, TCP_SYN)))
        == 3
    )
    wait(bench, CLOSED_NS)
    assert instance.conntrack_count == 1


@compiled
def fill(state, first, count):  # type: ignore[no-untyped-def]
    """How many of `count` new keys are tracked."""
    tracked = 0
    for number in range(first, first + count):
        key = (number * 0x2545F4914F6CDD1D) & ((1 << 62) - 1) | 1
        tracked += track(state, 0, key, 0)
    return tracked


@compiled
def sweep(state):  # type: ignore[no-untyped-def]
    forget_some(state, 0)


@compiled
def track_one(state, key, flags):  # type: ignore[no-untyped-def]
    return track(state, 0, key, flags)


def test_all_of_the_largest_allowance_finds_room_again_and_again() -> None:
    state = new_state([1])
    instance = state.instances[0]
    instance.conntrack_most, instance.now = CONNTRACK_MOST, SWEEP_NS
    for turn in range(3):
        assert fill(state, turn * 10_000, CONNTRACK_MOST + 5) == CONNTRACK_MOST
        instance.now += IDLE_NS + SWEEP_NS
        for _ in range(CONNECTIONS // 64):
            sweep(state)
        assert instance.conntrack_count == 0
    assert not state.connections[0][::2].any()


PLACE = 100
OPERATIONS = st.one_of(
    st.tuples(st.integers(0, 15), st.sampled_from([0, TCP_SYN, TCP_ACK, TCP_FIN, TCP_RST])),
    st.tuples(st.just(-1), st.sampled_from([1, 100, 400])),  # sweeps
)


@given(st.lists(OPERATIONS, max_size=60), st.integers(1, 20))
def test_it_knows_what_a_list_would_know(operations: list[tuple[int, int]], most: int) -> None:
    """Keys that all begin at the same row or the next, so that they lie in each other's way."""
    state = new_state([1])
    instance = state.instances[0]
    instance.conntrack_most = most
    instance.now = 2 * SWEEP_NS - (PLACE - 10 << SWEEP_SHIFT)  # each whole sweep ends ten rows below
    known: dict[int, int] = {}
    for number, value in operations:
        if number < 0:
            instance.now += value * SWEEP_NS
            instance.swept = (int(instance.now) >> SWEEP_SHIFT) - 64
            sweep(state)
            known = {key: end for key, end in known.items() if end >= instance.now}
        else:
            key = (1 + number * 2 * CONNECTIONS) + 2 * (number & 1) + PLACE
            tracked = track_one(state, key, value)
            assert tracked == (key in known or len(known) < most)
            closed = known.get(key, instance.now + IDLE_NS) <= instance.now + CLOSED_NS
            if tracked and not (closed and value != TCP_SYN):
                known[key] = instance.now + (CLOSED_NS if value & (TCP_FIN | TCP_RST) else IDLE_NS)
        assert instance.conntrack_count == len(known)
