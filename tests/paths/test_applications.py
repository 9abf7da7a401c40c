"""The compiled applications (datapath/traffic.py, round_trip.py, probe.py) on real drivers and a real card."""

import random
import time
from collections.abc import Iterator

import numpy as np
import pytest
from card_kit import Running, drivers

from vfwire.datapath import application as words
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import burst
from vfwire.errors import UsageError
from vfwire.paths.applications import Packed, StreamOptions, echo, forward, ping, stream
from vfwire.paths.board import Board
from vfwire.paths.flow import Station, station, templates

Pair = tuple[Ixgbevf, Ixgbevf]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with drivers(2, trust=True) as (one, other):
        yield one, other


def ends(pair: Pair) -> tuple[Station, Station]:
    return station(pair[0].mac, 1), station(pair[1].mac, 2)


def sink(pair: Pair, packed: Packed | None = None, **options: object) -> Running:
    near, far = ends(pair)
    plan = StreamOptions(check=True, **options)  # type: ignore[arg-type]
    running = Running(lambda board: stream(pair[1], board, plan, far, near, packed=packed))
    running.wait(words.PHASE, words.RUNNING)
    return running


def send_all(pair: Pair, frames: list[bytes]) -> None:
    """Send frames by hand from the first driver, in order, all of them."""
    nic = pair[0]
    one = burst(1)
    for frame in frames:
        pool = nic.pool
        while pool.words[0].free == 0:
            nic.transmit(one, 0)
        pool.words[0].free -= 1
        address = int(pool.stack[pool.words[0].free])
        pool.view(address, len(frame))[:] = np.frombuffer(frame, np.uint8)
        one[0].address, one[0].length, one[0].flags = address, len(frame), 0
        while nic.transmit(one, 1) == 0:
            time.sleep(0)


def probe(pair: Pair, sequence: int, length: int = 60, flows: int = 1) -> bytes:
    head = bytearray(templates(*ends(pair), length, flows)[sequence % flows].tobytes())
    head[48:56] = sequence.to_bytes(8, "little")
    return bytes(head).ljust(length, b"\0")[:length]


@pytest.mark.parametrize("length", [60, 61, 67, 64, 1514])
@pytest.mark.parametrize("every_byte", [False, True])
def test_all_that_is_sent_arrives(pair: Pair, length: int, every_byte: bool) -> None:
    near, far = ends(pair)
    plan = StreamOptions(
        send=True, frame_bytes=length, every_byte=every_byte, count=200, flows=4, rate_pps=200_000
    )
    with sink(pair, frame_bytes=length, every_byte=every_byte, flows=4) as receiver:
        with Running(lambda board: stream(pair[0], board, plan, near, far)) as sender:
            sender.wait(words.PHASE, words.ENDED)
            assert (sender.read(words.SENT), sender.read(words.OFFERED)) == (200, 200)
            receiver.wait(words.RECEIVED, 200)
        assert receiver.read(words.RECEIVED_BYTES) == 200 * length
        for word in (words.MISSING, words.REORDERED, words.DUPLICATED, words.CORRUPTED, words.FOREIGN):
            assert receiver.read(word) == 0


def judged(pair: Pair, frames: list[bytes], total: int, **options: object) -> dict[str, int]:
    """What a sink makes of frames sent by hand: counts by name, once `total` frames have been counted."""
    names = {
        name.lower(): getattr(words, name)
        for name in ("RECEIVED", "MISSING", "REORDERED", "DUPLICATED", "CORRUPTED", "FOREIGN")
    }
    counted = ("received", "duplicated", "corrupted", "foreign")
    with sink(pair, **options) as receiver:  # type: ignore[arg-type]
        send_all(pair, frames)
        deadline = time.monotonic() + 10
        while sum(receiver.read(names[name]) for name in counted) < total:
            assert time.monotonic() < deadline
            time.sleep(0)
        return {name: receiver.read(word) for name, word in names.items()}


@pytest.mark.parametrize(
    ("order", "missing", "reordered", "duplicated"),
    [
        ([0, 1, 2, 3], 0, 0, 0),
        ([0, 1, 3], 1, 0, 0),
        ([0, 2, 1, 3], 0, 1, 0),
        ([0, 5, 3, 1, 4], 1, 3, 0),
        ([0, 1, 1, 2], 0, 0, 1),
        ([0, 3, 1, 1, 2], 0, 2, 1),
        ([7, 0], 6, 1, 0),
    ],
)
def test_sequence_numbers(
    pair: Pair, order: list[int], missing: int, reordered: int, duplicated: int
) -> None:
    found = judged(pair, [probe(pair, number) for number in order], len(order))
    assert found == {
        "received": len(order) - duplicated,
        "missing": missing,
        "reordered": reordered,
        "duplicated": duplicated,
        "corrupted": 0,
        "foreign": 0,
    }


def test_any_order_of_many_numbers_in_flows(pair: Pair) -> None:
    chosen = random.Random(1)
    numbers = list(range(120))
    chosen.shuffle(numbers)
    kept = numbers[:100]
    found = judged(pair, [probe(pair, number, flows=4) for number in kept], 100, flows=4)
    highest = [max(number for number in kept if number % 4 == flow) for flow in range(4)]
    below = sum((top - flow) // 4 + 1 for flow, top in enumerate(highest))
    assert (found["received"], found["missing"], found["duplicated"]) == (100, below - 100, 0)


@pytest.mark.parametrize("at", [6, 14, 15, 24, 30, 33, 34, 40, 44, 47])
def test_a_wrong_header_byte_is_corruption(pair: Pair, at: int) -> None:
    frame = bytearray(probe(pair, 0))
    frame[at] ^= 0x10
    found = judged(pair, [bytes(frame), probe(pair, 0)], 2)
    assert (found["received"], found["corrupted"]) == (1, 1)


@pytest.mark.parametrize("length", [61, 1514])
def test_a_wrong_length_is_corruption(pair: Pair, length: int) -> None:
    found = judged(pair, [probe(pair, 0, length), probe(pair, 0)], 2)
    assert (found["received"], found["corrupted"]) == (1, 1)


def test_broadcasts_are_foreign(pair: Pair) -> None:
    frame = b"\xff" * 6 + probe(pair, 0)[6:]
    found = judged(pair, [frame, probe(pair, 0)], 2)
    assert (found["received"], found["foreign"], found["corrupted"]) == (1, 1, 0)


@pytest.mark.parametrize("at", [56, 63, 64, 700, 1505, 1513])
def test_every_byte_means_every_byte(pair: Pair, at: int) -> None:
    """A full stream is caught on its way, one byte of one frame is changed, and it is sent on by hand."""
    near, far = ends(pair)
    plan = StreamOptions(send=True, frame_bytes=1514, every_byte=True, count=3)
    frames, caught = burst(8), []
    with Running(lambda board: stream(pair[0], board, plan, near, far)) as sender:
        sender.wait(words.PHASE, words.ENDED)
        deadline = time.monotonic() + 10
        while len(caught) < 3:
            assert time.monotonic() < deadline
            for number in range(pair[1].receive(frames)):
                address, length = int(frames[number].address), int(frames[number].length)
                caught.append(pair[1].pool.view(address, length).tobytes())
    changed = bytearray(caught[1])
    changed[at] ^= 1
    found = judged(pair, [caught[0], bytes(changed), caught[2]], 3, frame_bytes=1514, every_byte=True)
    assert (found["received"], found["corrupted"], found["missing"]) == (2, 1, 1)


def test_a_pace_is_kept_and_stopped(pair: Pair) -> None:
    near, far = ends(pair)
    plan = StreamOptions(send=True, rate_pps=50_000)
    with sink(pair), Running(lambda board: stream(pair[0], board, plan, near, far)) as sender:
        start = time.monotonic()
        sender.wait(words.SENT, 5_000)
        took = time.monotonic() - start
        sender.stop(1)
        sent = sender.read(words.SENT)
        assert sent <= 50_000 * (time.monotonic() - start) + 2 * words.BURST + 1024
        assert took > 0.05
        assert sender.read(words.PHASE) == words.ENDED


def test_a_deadline_ends_a_stream(pair: Pair) -> None:
    near, far = ends(pair)
    start = time.monotonic()
    board = Board()
    stream(pair[0], board, StreamOptions(send=True, rate_pps=1000, seconds=0.05), near, far)
    assert board.read(words.PHASE) == words.ENDED and time.monotonic() - start >= 0.05
    board.close()


def test_a_quiet_receiver_ends_when_told_to_stop(pair: Pair) -> None:
    receiver = sink(pair, quiet_seconds=0.01)
    with receiver:
        receiver.stop(1)
        assert receiver.read(words.PHASE) == words.ENDED


def test_both_ways_at_once(pair: Pair) -> None:
    near, far = ends(pair)
    plan = StreamOptions(send=True, check=True, count=5_000, rate_pps=100_000)
    with (
        Running(lambda board: stream(pair[0], board, plan, near, far)) as one,
        Running(lambda board: stream(pair[1], board, plan, far, near)) as other,
    ):
        for running in (one, other):
            running.wait(words.PHASE, words.STOPPED_SENDING)
        for running in (one, other):
            running.wait(words.RECEIVED, 1)
            assert running.read(words.SENT) == 5_000
            assert running.read(words.CORRUPTED) == running.read(words.REORDERED) == 0


def test_round_trips_are_timed_one_by_one(pair: Pair) -> None:
    near, far = ends(pair)
    with Running(lambda board: echo(pair[1], board)) as answering:
        answering.wait(words.PHASE, words.RUNNING)
        board = Board()
        start = time.monotonic_ns()
        count = ping(pair[0], board, near, far, count=50, frame_bytes=100, seconds=10)
        took = time.monotonic_ns() - start
        assert count == 50 == board.read(words.SAMPLES)
        assert board.samples[:50].min() > 0 and board.samples[:50].sum() <= took
        start = time.monotonic_ns()
        assert ping(pair[0], board, near, far, count=5, interval=0.01, first=1000) == 5
        assert time.monotonic_ns() - start >= 40_000_000
        board.close()


def test_no_answer_is_a_time_out_not_a_hang(pair: Pair) -> None:
    near, far = ends(pair)
    board = Board()
    assert ping(pair[0], board, near, far, seconds=0.05, timeout=0.01) == 0
    assert board.read(words.TIMEOUTS) >= 2
    board.close()
    frames = burst(64)
    while count := pair[1].receive(frames):
        give_back(pair[1], frames, count)


def give_back(nic: Ixgbevf, frames: object, count: int) -> None:
    for at in range(count):
        address = int(frames[at].address)  # type: ignore[index]
        pool = nic.pool
        pool.stack[pool.words[0].free] = address - (address - pool.memory.address) % pool.buffer_bytes
        pool.words[0].free += 1


def test_a_forwarder_between_two_functions() -> None:
    with drivers(4, pools=(0, 1, 1, 2), trust=True) as (one, left, right, other):
        near, far = station(one.mac, 1), station(other.mac, 2)
        board = Board()
        with (
            Running(lambda page: forward(left, right, page, one.mac, other.mac)) as middle,
            Running(lambda page: echo(other, page)) as answering,
        ):
            middle.wait(words.PHASE, words.RUNNING)
            answering.wait(words.PHASE, words.RUNNING)
            frames, address = burst(1), int(one.pool.stack[one.pool.words[0].free - 1])
            one.pool.words[0].free -= 1
            frame = templates(near, Station(left.mac, far.ip), 60)[0][:60]
            one.pool.view(address, 60)[:] = frame
            frames[0].address, frames[0].length = address, 60
            assert one.transmit(frames, 1) == 1
            answering.wait(words.RECEIVED, 1)
            middle.wait(words.SENT, 2)
            got = burst(1)
            deadline = time.monotonic() + 10
            while one.receive(got) == 0:
                assert time.monotonic() < deadline
        back = one.pool.view(int(got[0].address), 60).tobytes()
        assert back[:6] == one.mac and back[6:12] == left.mac
        assert back[26:34] == far.ip + near.ip
        board.close()


FRAMES = [random.Random(number).randbytes(60 + 31 * number % 1455) for number in range(300)]


def test_replayed_frames_are_compared_with_what_was_packed(pair: Pair) -> None:
    near, far = ends(pair)
    frames = [pair[1].mac + pair[0].mac + frame[12:] for frame in FRAMES]
    packed = Packed.of(frames)
    with (
        sink(pair, packed=packed) as receiver,
        Running(
            lambda board: stream(
                pair[0],
                board,
                StreamOptions(send=True, window=32),
                near,
                far,
                packed=packed,
                peer=receiver.board,
            )
        ) as sender,
    ):
        sender.wait(words.PHASE, words.ENDED)
        receiver.wait(words.RECEIVED, len(frames))
        assert receiver.read(words.RECEIVED_BYTES) == sum(map(len, frames))
        for word in (words.MISSING, words.REORDERED, words.CORRUPTED):
            assert receiver.read(word) == 0


def test_a_replay_notices_what_is_lost_late_or_changed(pair: Pair) -> None:
    frames = [pair[1].mac + pair[0].mac + frame[12:] for frame in FRAMES[:8]]
    packed = Packed.of(frames)
    changed = frames[6][:-1] + bytes([frames[6][-1] ^ 1])
    order = [frames[0], frames[2], frames[1], frames[4], changed, frames[7]]
    found = judged(pair, order, 6, packed=packed)
    assert (found["received"], found["corrupted"], found["reordered"]) == (5, 1, 1)
    assert found["missing"] == 3


@pytest.mark.parametrize(
    "options", [{"frame_bytes": 59}, {"frame_bytes": 4096}, {"flows": 3}, {"flows": 2, "first": 1}]
)
def test_options_that_make_no_sense(pair: Pair, options: dict[str, int]) -> None:
    board = Board()
    with pytest.raises(UsageError):
        stream(pair[0], board, StreamOptions(send=True, **options), *ends(pair))  # type: ignore[arg-type]
    board.close()


def test_a_forwarder_wants_one_pool(pair: Pair) -> None:
    board = Board()
    with pytest.raises(UsageError, match="one pool"):
        forward(pair[0], pair[1], board, bytes(6), bytes(6))
    board.close()
