"""Whatever an ENA's guest writes into its rings, doorbells and low-latency memory: the loop ends, keeps to the guest's
own maps (guard pages around them), completes no more than was submitted, and the neighbours' frames arrive.
"""

import pytest
from ena_kit import COMPLETE, FIRST, LAST, META, TX_DONE, ena_bench
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import frame

from vfwire.datapath.ena_queues import close_all

WORD = st.integers(0, 2**32 - 1)
FLAGS = st.sampled_from(
    [0, FIRST, LAST, FIRST | LAST, FIRST | LAST | COMPLETE, META | FIRST, META | LAST, COMPLETE]
)
NEAR_END = st.sampled_from([0, 1, 0x1FFFF0, 0x1FFFFF, 0x200000, 0x0FFFFFFF])


@st.composite
def descriptors(draw: st.DrawFn) -> bytes:
    """Noise, or a descriptor that is nearly right: with the phase, an address near the end of the guest's memory."""
    words = [draw(WORD) for _ in range(4)]
    if draw(st.booleans()):
        words[0] = draw(FLAGS) | draw(st.sampled_from([0, 1, 13, 14, 60, 1514, 9000, 65535])) | 1 << 24
        words[2] = 0x1000_0000 + draw(NEAR_END)
        words[3] = draw(st.sampled_from([0, 60 << 24, 96 << 24, 255 << 24]))
        words[1] = draw(
            st.sampled_from([0, 0x80, 0x2000, 0x4000, 0x4088 | 12 << 8, 0x408B | 13 << 8, 0x20000])
        )
    return b"".join(word.to_bytes(4, "little") for word in words)


@given(
    st.lists(descriptors(), min_size=1, max_size=30),
    st.integers(0, 0xFFFF),
    st.sampled_from([0, 128, 256]),
    st.booleans(),
)
def test_noise_in_a_transmit_ring(entries: list[bytes], doorbell: int, llq: int, honest: bool) -> None:
    bench, (bad, two, three) = ena_bench(3, llq=llq, size=32)
    for entry in entries:
        bad.entry((entry * (llq // 16)) if llq else entry)
    bad.words[0, 0, 0] = bad.tx_tail[0] if honest else doorbell
    for _ in range(200):
        bench.round()
        three.send(frame(two.mac, three.mac))
        if bad.record.dma == 0:
            break
        if (int(bad.words[0, 0, 0]) - int(bench.state.tx[0].head)) & 0xFFFF == 0:
            break
    bench.rounds()
    head = int(bench.state.tx[0].head)
    assert int(bench.state.tx[0].completed) <= head
    assert any(got.frame == frame(two.mac, three.mac) for got in two.receive())
    assert (two.record.fault, three.record.fault) == (-1, -1)
    assert bad.memory[TX_DONE + 32 * 8 : TX_DONE + 4096].sum() == 0  # nothing beyond its completion ring


@given(st.lists(descriptors(), min_size=1, max_size=20), st.integers(0, 0xFFFF), st.integers(14, 1500))
def test_noise_in_a_receive_ring(entries: list[bytes], doorbell: int, size: int) -> None:
    bench, (one, bad, three) = ena_bench(3, size=32)
    close_all(bench.state, 1)
    bad.rx_tail[0] = 0
    bad.start(size=32)
    for place, entry in enumerate(entries):
        bad.put(0x10000 + place * 16, entry)
    bad.words[1, 0, 0] = doorbell
    for _ in range(40):
        one.send(frame(bad.mac, one.mac, bytes(size - 14)))
        bench.round()
        one.completions()
    one.send(frame(three.mac, one.mac))
    bench.rounds()
    assert len(three.receive()) == 1
    assert int(bench.state.rx[32].completed) <= int(bench.state.rx[32].head) <= doorbell
    assert (one.record.fault, three.record.fault) == (-1, -1)


@pytest.mark.parametrize(("size", "count"), [(16, 15), (32, 31), (128, 63), (128, 127)])
def test_a_chain_without_end_stops_its_function(size: int, count: int) -> None:
    """Where no end can come: the ring is full, or there are more buffers than any frame has."""
    bench, (bad, two) = ena_bench(2, size=size)
    for place in range(count):
        bad.entry(bad.data(bad.iova, 64, control=FIRST if place == 0 else 0))
    bad.ring()
    bench.rounds()
    assert bad.record.dma == 0 and bad.drops() == {"descriptor chain without end": 1}
    assert two.receive() == [] and two.record.fault == -1


@pytest.mark.parametrize(("size", "count"), [(16, 14), (128, 62)])
def test_half_a_frame_waits_for_its_end(size: int, count: int) -> None:
    bench, (one, two) = ena_bench(2, size=size)
    one.put(0x20000, frame(two.mac, one.mac, bytes(50)))
    for place in range(count):
        first = FIRST | COMPLETE if place == 0 else 0
        one.entry(one.data(one.iova + 0x20000, 64 if place == 0 else 1, control=first, request=3))
    one.ring()
    for _ in range(3):
        assert bench.round() == 0
    assert one.completions() == [] and one.drops() == {}
    one.entry(one.data(one.iova, 1, control=LAST))
    one.ring()
    bench.rounds()
    assert one.completions() == [3] and [len(got.frame) for got in two.receive()] == [64 + count]
