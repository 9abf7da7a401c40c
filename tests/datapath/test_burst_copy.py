"""Bursts on the fast path: short and long frames arrive unchanged and in order, and nothing is written beside them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from loop_kit import RX_BUFFERS, LoopBench, frame

from vfwire.datapath.plain_frame import STREAM_FROM, STREAM_LENGTH
from vfwire.datapath.state import STAGED

RING = 2 * STAGED
UNTOUCHED = 0xEE
LENGTHS = st.lists(
    st.one_of(st.integers(17, 130), st.integers(STREAM_LENGTH - 2, STREAM_LENGTH + 130), st.just(1514)),
    min_size=STREAM_FROM,
    max_size=RING - 1,
)


def burst_of(lengths: list[int], to: bytes, source: bytes) -> list[bytes]:
    return [
        frame(to, source, bytes((number + at * 7) & 0xFF for at in range(length - 14)))
        for number, length in enumerate(lengths)
    ]


@settings(max_examples=30)
@given(LENGTHS)
def test_every_byte_arrives_and_no_other_is_written(lengths: list[int]) -> None:
    bench = LoopBench(2)
    one, two = bench.start(size=RING)
    two.memory[RX_BUFFERS : RX_BUFFERS + RING * 2048] = UNTOUCHED
    sent = burst_of(lengths, two.mac, one.mac)
    for data in sent:
        one.send(data)
    assert bench.round() == len(sent)
    buffers = two.memory[RX_BUFFERS : RX_BUFFERS + RING * 2048].reshape(RING, 2048).copy()
    assert [got.frame for got in two.receive()] == sent
    assert all((buffers[place, len(data) :] == UNTOUCHED).all() for place, data in enumerate(sent))


def test_a_burst_longer_than_the_room_is_cut_there_and_goes_on_when_there_is_more() -> None:
    bench = LoopBench(2)
    one, two = bench.start(size=RING)
    sent = burst_of([60] * (RING - 1), two.mac, one.mac)
    for count in (STAGED + 8, STAGED - 8):  # more than the descriptors that are left the second time
        for data in sent[:count]:
            one.send(data)
        bench.rounds()
    assert two.drops() == {"no receive descriptor": 1}
    assert [got.frame for got in two.receive()] == sent[: STAGED + 8] + sent[: STAGED - 9]
    for data in sent:
        one.send(data)
    bench.rounds()
    assert [got.frame for got in two.receive()] == sent


def test_what_was_staged_is_shown_when_the_burst_ends_early() -> None:
    bench = LoopBench(3)
    one, two, three = bench.start(size=RING)
    sent = burst_of([60] * 40, two.mac, one.mac)
    sent[35] = frame(three.mac, one.mac)
    for data in sent:
        one.send(data)
    bench.rounds()
    assert [got.frame for got in two.receive()] == sent[:35] + sent[36:]
    assert [got.frame for got in three.receive()] == [sent[35]]
