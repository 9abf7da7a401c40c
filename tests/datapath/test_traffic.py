"""The applications' loops on a wire of plain Python, compiled and uncompiled: what they send, count and answer."""

import itertools
import threading
import time
from collections.abc import Iterator

import dpkt
import numpy as np
import pytest
from loopback_kit import RING, LoopDriver, Pump, Wire, load64

from vfwire.datapath import application as words
from vfwire.drivers.verbs import Pool
from vfwire.errors import UsageError
from vfwire.paths.applications import Packed, StreamOptions, echo, forward, ping, stream, warm_up_applications
from vfwire.paths.board import Board
from vfwire.paths.flow import Station, station

MACS = [bytes([2, 0, 0, 0, 0, number]) for number in range(4)]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    told: list[str] = []
    warm_up_applications(told.append)
    assert set(told) <= {"generator and sink", "echo and forwarder", "ping"}


@pytest.fixture
def boards() -> Iterator[list[Board]]:
    made = [Board() for _ in range(2)]
    yield made
    for board in made:
        board.close()


@pytest.fixture
def ends() -> Iterator[tuple[LoopDriver, LoopDriver]]:
    pair = LoopDriver(MACS[0]), LoopDriver(MACS[1])
    yield pair
    for driver in pair:
        driver.pool.close()


def stations(pair: tuple[LoopDriver, LoopDriver]) -> tuple[Station, Station]:
    return station(pair[0].mac, 1), station(pair[1].mac, 2)


def free_buffers(driver: LoopDriver) -> int:
    """Buffers that are free, or wait in the receive ring for a frame."""
    return int(driver.pool.words[0].free + driver.rx[0].tail - driver.rx[0].head)


def sent_frames(driver: LoopDriver, count: int) -> list[bytes]:
    """The frames that a transmit ring holds, behind its plain context."""
    found = []
    for index in range(1, count + 1):
        entry = int(driver.tx["ring"][0]) + index * 16
        found.append(driver.pool.view(load64(entry), load64(entry + 8) & 0xFFFF).tobytes())
    return found


@pytest.mark.parametrize("length", [60, 61, 64, 71, 1514])
@pytest.mark.parametrize("every_byte", [False, True])
def test_a_generator_sends_numbered_frames(ends, boards, length: int, every_byte: bool) -> None:
    plan = StreamOptions(send=True, frame_bytes=length, count=10, flows=2, first=6, every_byte=every_byte)
    stream(ends[0], boards[0], plan, *stations(ends))
    assert boards[0].read(words.OFFERED) == boards[0].read(words.SENT) == 10
    assert boards[0].read(words.PHASE) == words.ENDED
    frames = sent_frames(ends[0], 10)
    for number, frame in enumerate(frames):
        assert len(frame) == length
        packet = dpkt.ethernet.Ethernet(frame)
        assert (packet.dst, packet.src, packet.data.data.dport) == (ends[1].mac, ends[0].mac, 9)
        assert packet.data.data.sport == 49152 + number % 2
        assert int.from_bytes(frame[48:56], "little") == 6 + number
    if every_byte:
        tails = [frame[56:] for frame in frames]
        assert all(one != other for one, other in itertools.pairwise(tails))


@pytest.mark.parametrize("every_byte", [False, True])
@pytest.mark.parametrize("flows", [1, 8])
def test_what_was_sent_is_accepted(ends, boards, flows: int, every_byte: bool) -> None:
    near, far = stations(ends)
    options = {"flows": flows, "frame_bytes": 100, "every_byte": every_byte, "first": 1 << 44}
    free = free_buffers(ends[0]), free_buffers(ends[1])
    stream(ends[0], boards[0], StreamOptions(send=True, count=80, **options), near, far)
    assert Wire(*ends).move() == 80
    boards[1].write(words.STOP, 1)
    stream(ends[1], boards[1], StreamOptions(check=True, quiet_seconds=0.001, **options), far, near)
    assert boards[1].read(words.RECEIVED) == 80 and boards[1].read(words.RECEIVED_BYTES) == 8000
    for word in (words.MISSING, words.REORDERED, words.DUPLICATED, words.CORRUPTED, words.FOREIGN):
        assert boards[1].read(word) == 0
    assert free_buffers(ends[1]) == free[1] and free_buffers(ends[0]) == free[0] - 80


def test_a_full_ring_keeps_what_it_did_not_take(ends, boards) -> None:
    free = free_buffers(ends[0])
    plan = StreamOptions(send=True, seconds=0.05)
    stream(ends[0], boards[0], plan, *stations(ends))
    sent = boards[0].read(words.SENT)
    assert boards[0].read(words.OFFERED) == sent == RING - 2
    assert boards[0].read(words.FULL) > 0
    assert free_buffers(ends[0]) == free - sent


def test_changed_frames_are_told_apart(ends, boards) -> None:
    near, far = stations(ends)
    plan = {"frame_bytes": 200, "every_byte": True}
    stream(ends[0], boards[0], StreamOptions(send=True, count=6, **plan), near, far)
    for index, at in ((1, 0), (2, 20), (3, 190), (4, 48)):
        entry = int(ends[0].tx["ring"][0]) + (index + 1) * 16
        ends[0].pool.view(load64(entry), 200)[at] ^= 1
    Wire(*ends).move()
    boards[1].write(words.STOP, 1)
    stream(ends[1], boards[1], StreamOptions(check=True, quiet_seconds=0.001, **plan), far, near)
    found = {
        name: boards[1].read(getattr(words, name)) for name in ("RECEIVED", "CORRUPTED", "FOREIGN", "MISSING")
    }
    assert found == {"RECEIVED": 2, "CORRUPTED": 3, "FOREIGN": 1, "MISSING": 4}


def test_order_is_judged_by_number(ends, boards) -> None:
    near, far = stations(ends)
    wire = Wire(*ends)
    order = [5, 2, 2, 9, 0, 3]
    for number in order:
        boards[0].clear()
        stream(ends[0], boards[0], StreamOptions(send=True, count=1, first=number), near, far)
    wire.move()
    boards[1].write(words.STOP, 1)
    stream(ends[1], boards[1], StreamOptions(check=True, quiet_seconds=0.001), far, near)
    names = ("RECEIVED", "MISSING", "REORDERED", "DUPLICATED")
    assert [boards[1].read(getattr(words, name)) for name in names] == [5, 5, 3, 1]


def test_both_ways_in_one_loop(ends, boards) -> None:
    near, far = stations(ends)
    plan = StreamOptions(send=True, check=True, count=300, quiet_seconds=2.0)
    threads = [
        threading.Thread(target=stream, args=(ends[0], boards[0], plan, near, far)),
        threading.Thread(target=stream, args=(ends[1], boards[1], plan, far, near)),
    ]
    wires = Wire(*ends), Wire(ends[1], ends[0])
    with Pump(*wires):
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while any(board.read(words.SENT) < 300 for board in boards) and time.monotonic() < deadline:
            time.sleep(0)
        for board in boards:
            board.write(words.STOP, 1)
        for thread in threads:
            thread.join(20)
    for board, wire in zip(boards, reversed(wires), strict=True):
        assert board.read(words.SENT) == 300
        assert board.read(words.RECEIVED) + wire.lost == 300
        assert board.read(words.CORRUPTED) == board.read(words.REORDERED) == 0


def test_a_pace_is_never_exceeded(ends, boards) -> None:
    start = time.monotonic()
    with Pump(Wire(*ends)):
        stream(ends[0], boards[0], StreamOptions(send=True, rate_pps=2_000, seconds=0.1), *stations(ends))
    assert 0 < boards[0].read(words.SENT) <= 2_000 * (time.monotonic() - start) + words.BURST


def test_round_trips_and_echo(ends, boards) -> None:
    near, far = stations(ends)
    answering = threading.Thread(target=echo, args=(ends[1], boards[1]))
    with Pump(Wire(*ends), Wire(ends[1], ends[0])):
        answering.start()
        count = ping(ends[0], boards[0], near, far, count=20, frame_bytes=90, timeout=5)
        boards[1].write(words.STOP, 1)
        answering.join(20)
    assert count == 20 == boards[0].read(words.SAMPLES) == boards[1].read(words.SENT)
    assert boards[0].samples[:20].min() > 0
    assert boards[0].read(words.TIMEOUTS) == 0


def test_an_echo_exchanges_what_it_understands(ends, boards) -> None:
    frames = {
        "udp": bytes(MACS[1] + MACS[0])
        + b"\x08\x00\x45"
        + bytes(8)
        + b"\x11\0\0"
        + b"\x01\x02\x03\x04\x05\x06\x07\x08"
        b"\x11\x11\x22\x22" + bytes(20),
        "tcp": bytes(MACS[1] + MACS[0])
        + b"\x08\x00\x45"
        + bytes(8)
        + b"\x06\0\0"
        + b"\x01\x02\x03\x04\x05\x06\x07\x08"
        b"\x11\x11\x22\x22" + bytes(20),
        "options": bytes(MACS[1] + MACS[0]) + b"\x08\x00\x46" + bytes(range(50)),
        "other": bytes(MACS[1] + MACS[0]) + b"\x86\xdd" + bytes(range(50)),
    }
    stream(
        ends[0],
        boards[0],
        StreamOptions(send=True),
        *stations(ends),
        packed=Packed.of([frame.ljust(60, b"\0") for frame in frames.values()]),
    )
    Wire(*ends).move()
    echo(ends[1], boards[1], seconds=0.01)
    back = dict(zip(frames, sent_frames(ends[1], len(frames)), strict=True))
    for name, frame in frames.items():
        assert back[name][:12] == frame[6:12] + frame[:6]
    assert back["udp"][26:38] == b"\x05\x06\x07\x08\x01\x02\x03\x04\x22\x22\x11\x11"
    assert back["tcp"][26:38] == b"\x05\x06\x07\x08\x01\x02\x03\x04\x11\x11\x22\x22"
    assert back["options"][12:60] == frames["options"][12:60]
    assert back["other"][12:60] == frames["other"][12:60]


def test_no_answer_times_out(ends, boards) -> None:
    assert ping(ends[0], boards[0], *stations(ends), seconds=0.05, timeout=0.01, interval=0.001) == 0
    assert boards[0].read(words.TIMEOUTS) >= 2


def test_a_forwarder_rewrites_both_ways(boards) -> None:
    pool = Pool(1024)
    left, right = LoopDriver(MACS[1], pool), LoopDriver(MACS[2], pool)
    outer = LoopDriver(MACS[0]), LoopDriver(MACS[3])
    plan = StreamOptions(send=True, count=3)
    for driver, inner in zip(outer, (left, right), strict=True):
        boards[0].clear()
        stream(driver, boards[0], plan, station(driver.mac, 1), station(inner.mac, 2))
        Wire(driver, inner).move()
    forward(left, right, boards[1], MACS[0], MACS[3], seconds=0.01)
    assert boards[1].read(words.RECEIVED) == boards[1].read(words.SENT) == 6
    for driver, to in ((left, MACS[0]), (right, MACS[3])):
        assert all(frame[:12] == to + driver.mac for frame in sent_frames(driver, 3))
    with pytest.raises(UsageError, match="one pool"):
        forward(left, outer[0], boards[1], MACS[0], MACS[3])
    for driver in (left, *outer):
        driver.pool.close()


REPLAYED = [bytes([number]) * (60 + 7 * number) for number in range(40)]


def test_a_replay_is_sent_as_it_is(ends, boards) -> None:
    packed = Packed.of(REPLAYED)
    stream(ends[0], boards[0], StreamOptions(send=True), *stations(ends), packed=packed)
    assert sent_frames(ends[0], 40) == REPLAYED
    Wire(*ends).move()
    boards[1].write(words.STOP, 1)
    options = StreamOptions(check=True, quiet_seconds=0.001)
    stream(ends[1], boards[1], options, *stations(ends)[::-1], packed=packed)
    assert boards[1].read(words.RECEIVED) == 40
    assert boards[1].read(words.RECEIVED_BYTES) == sum(map(len, REPLAYED))
    assert boards[1].read(words.MISSING) == boards[1].read(words.CORRUPTED) == 0


def test_a_replay_waits_for_its_receiver_and_gives_up_on_what_is_lost(ends, boards) -> None:
    packed = Packed.of(REPLAYED)
    start = time.monotonic()
    plan = StreamOptions(send=True, window=16)
    stream(ends[0], boards[0], plan, *stations(ends), packed=packed, peer=boards[1])
    assert time.monotonic() - start >= 0.2
    assert boards[0].read(words.SENT) == 40


@pytest.mark.parametrize(
    ("kept", "reordered", "corrupted", "missing"),
    [([0, 1, 2], 0, 0, 0), ([0, 2], 0, 0, 1), ([1, 0, 2], 1, 0, 0), ([0, None, 2], 0, 1, 1)],
)
def test_a_replayed_stream_is_judged(
    ends, boards, kept: list[int | None], reordered: int, corrupted: int, missing: int
) -> None:
    frames = [bytes(61) if number is None else REPLAYED[number] for number in kept]
    stream(ends[0], boards[0], StreamOptions(send=True), *stations(ends), packed=Packed.of(frames))
    Wire(*ends).move()
    boards[1].write(words.STOP, 1)
    options = StreamOptions(check=True, quiet_seconds=0.001)
    stream(ends[1], boards[1], options, *stations(ends)[::-1], packed=Packed.of(REPLAYED[:3]))
    names = ("RECEIVED", "REORDERED", "CORRUPTED", "MISSING")
    assert [boards[1].read(getattr(words, name)) for name in names] == [
        len(kept) - corrupted,
        reordered,
        corrupted,
        missing,
    ]


def test_samples_and_words_share_a_board() -> None:
    board = Board()
    board.write(words.SENT, -5)
    board.samples[0] = 7
    assert board.read(words.SENT) == -5 and board.samples.dtype == np.int64
    board.clear()
    assert board.read(words.SENT) == 0 and board.samples[0] == 7
    board.close()
