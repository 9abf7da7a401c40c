"""An ENA's queues, as its driver asks for them by admin commands."""

import struct

import pytest
from ena_guest_kit import (
    DEVICE,
    MEMORY,
    MEMORY_BYTES,
    RINGS,
    RX,
    TX,
    ena_guest,
)
from test_ena_admin import llq_choice

from vfwire.datapath.state import QUEUES
from vfwire.devices.ena_options import EnaOptions
from vfwire.layouts import ena_admin as admin
from vfwire.memory.shared import SharedMemory


def test_a_queue_pair_reaches_the_loop() -> None:
    with ena_guest() as guest:
        assert guest.queue(TX) == (0, 0)
        assert guest.queue(RX) == (0, 1)
        base = guest.function._maps.address_of(RINGS, 1, writable=True)
        assert base is not None
        tx, rx = guest.state.tx[0], guest.state.rx[0]
        assert (tx.on, tx.ring, tx["size"], tx.completions) == (1, base + 0x8000, 256, base)
        assert (rx.on, rx.ring, rx.completions, rx.completion_bytes) == (
            1,
            base + 0x18000,
            base + 0x10000,
            16,
        )
        assert (tx.vector, rx.vector, tx.completion_bytes, tx.llq_bytes) == (1, 1, 8, 0)
        assert guest.function.describe()["queues_open"] == {"tx": 1, "rx": 1}


def test_answers_name_places_that_do_not_meet() -> None:
    with ena_guest() as guest:
        doorbells, unmasks = set(), set()
        for number in range(32):
            for direction in (TX, RX):
                place = RINGS + (2 * number + direction - 1) * 0x8000
                answer = guest.create_cq(4, vector=1 + number, address=place, depth=256)[1]
                cq, depth, numa, head, unmask = struct.unpack_from("<HHIII", answer)
                assert depth == 256
                answer = guest.create_sq(direction, cq, address=place + 0x4000)[1]
                sq, doorbell = struct.unpack_from("<H2xI", answer)
                assert sq == number
                doorbells |= {doorbell, numa, head}
                unmasks.add(unmask)
        assert len(doorbells) == 3 * 64
        assert len(unmasks) == 32
        assert all(0x1000 <= offset < 0x4000 and offset % 4 == 0 for offset in doorbells | unmasks)
        assert not doorbells & unmasks
        assert guest.create_cq(4)[0] == 1
        assert guest.destroy_sq(RX, 7) == 0
        assert guest.create_cq(4)[0] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"words": 3},
        {"words": 0},
        {"depth": 0},
        {"depth": 1},
        {"depth": 255},
        {"depth": 16384},
        {"vector": 33},
        {"vector": 0xFFFFFFFF},
        {"address": MEMORY - 0x1000},
        {"address": MEMORY + MEMORY_BYTES - 16},
        {"address": RINGS + 8},
        {"address": 0xFFFF_FFFF_F000},
    ],
)
def test_completion_queues_that_cannot_be(wrong: dict[str, int]) -> None:
    with ena_guest() as guest:
        assert guest.create_cq(wrong.pop("words", 4), **wrong)[0] == 5
        assert guest.destroy_cq(0) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": 0},
        {"direction": 3},
        {"cq": 1},
        {"depth": 100},
        {"depth": 0},
        {"placement": 0},
        {"placement": 2},
        {"placement": DEVICE},
        {"policy": 1},
        {"contiguous": 0},
        {"address": MEMORY + MEMORY_BYTES},
        {"address": RINGS + 4},
    ],
)
def test_submission_queues_that_cannot_be(wrong: dict[str, int]) -> None:
    with ena_guest() as guest:
        assert guest.create_cq(4)[0] == 0
        assert guest.create_sq(wrong.pop("direction", RX), wrong.pop("cq", 0), **wrong)[0] == 5
        assert not guest.state.rx.on.any() and not guest.state.tx.on.any()
        assert guest.create_sq(RX, 0)[0] == 0


def test_a_completion_queue_serves_one_submission_queue() -> None:
    with ena_guest() as guest:
        index, cq = guest.queue(RX)
        assert guest.create_sq(TX, cq)[0] == 7
        assert guest.destroy_cq(cq) == 7
        assert guest.destroy_sq(TX, index) == 5
        assert guest.destroy_sq(RX, index) == 0
        assert guest.destroy_sq(RX, index) == 5
        assert not guest.state.rx.on.any()
        assert guest.destroy_cq(cq) == 0
        assert guest.destroy_cq(cq) == 5


def test_receive_completions_are_not_8_bytes() -> None:
    with ena_guest() as guest:
        assert guest.create_cq(2)[0] == 0
        assert guest.create_sq(RX, 0)[0] == 5
        assert guest.create_sq(TX, 0)[0] == 0


def test_a_polled_queue_has_no_vector() -> None:
    with ena_guest() as guest:
        assert guest.create_cq(4, vector=0xFFFF, interrupt=0)[0] == 0
        assert guest.create_sq(RX, 0)[0] == 0
        assert guest.state.rx[0].vector == -1


@pytest.mark.parametrize(("size", "depth", "status"), [(1, 1024, 0), (1, 2048, 5), (4, 512, 0), (4, 1024, 5)])
def test_low_latency_queues_fit_their_memory(size: int, depth: int, status: int) -> None:
    with ena_guest() as guest:
        assert guest.set_feature(admin.LLQ, llq_choice(1, size, 2, 2))[0] == 0
        for number in range(2):
            assert guest.create_cq(2, address=RINGS + 0x4000 * number)[0] == 0
            found, answer = guest.create_sq(TX, number, depth=depth, placement=DEVICE)
            assert found == status
            if not status:
                assert struct.unpack_from("<HHII", answer)[3] == 0x20000 * number
                assert guest.state.tx[number].ring == guest.function._bar2.address + 0x20000 * number
                assert guest.state.tx[number].llq_bytes == {1: 128, 4: 256}[size]
        assert guest.create_sq(RX, 1, placement=DEVICE)[0] in (5, 7)


@pytest.mark.parametrize(("size", "most"), [(1, 8), (4, 4)])
def test_a_doorbell_that_announces_more_than_a_burst_is_counted(size: int, most: int) -> None:
    """ena_com.c divides the bytes of a burst by those of an entry; the tail counts in 16 bits."""
    with ena_guest(ena=EnaOptions(burst=1024), exact=True) as guest:
        assert guest.set_feature(admin.LLQ, llq_choice(1, size, 2, 2))[0] == 0
        guest.queue(TX, placement=DEVICE)
        guest.queue(TX, 1)
        guest.queue(RX)
        low_latency, host, receive = (
            queue.doorbell - guest.function._bar0.address
            for queue in (guest.state.tx[0], guest.state.tx[1], guest.state.rx[0])
        )
        tail, told = 0, 0
        for step, too_long in [(most, 0), (1, 0), (most + 1, 1), (most, 0), (0xFFF0, 1), (most, 0), (256, 1)]:
            tail = tail + step & 0xFFFF
            told += too_long
            guest.write(low_latency, tail)
            assert guest.function.counters()["bursts_too_long"] == told, (step, tail)
        guest.write(host, 200)  # no limit applies to rings in the guest's memory
        guest.write(receive, 200)
        assert guest.destroy_sq(TX, 0) == 0
        guest.write(low_latency, 0)
        assert guest.function.counters()["bursts_too_long"] == told == 3


@pytest.mark.parametrize("options", [{"ena": EnaOptions(burst=1024)}, {"exact": True}])
def test_bursts_are_not_counted_where_nobody_could(options: dict[str, object]) -> None:
    with ena_guest(**options) as guest:
        assert "bursts_too_long" not in guest.function.counters()


def test_a_doorbell_of_the_queue_before_is_forgotten() -> None:
    with ena_guest() as guest:
        index, cq = guest.queue(TX)
        doorbell = guest.state.tx[0].doorbell - guest.function._bar0.address
        guest.write(doorbell, 77)
        guest.destroy_sq(TX, index)
        guest.destroy_cq(cq)
        guest.queue(TX)
        assert guest.read(doorbell) == 0


def test_memory_that_goes_takes_its_queues_with_it() -> None:
    with ena_guest() as guest:
        guest.queue(TX)
        guest.queue(RX)
        guest.function.dma_unmap(MEMORY, MEMORY_BYTES)
        assert not guest.state.tx.on[:QUEUES].any()
        assert not guest.state.rx.on[:QUEUES].any()


@pytest.mark.parametrize("again", [False, True], ids=["new", "used before"])
@pytest.mark.parametrize("placement", [admin.PLACEMENT_POLICY_HOST, admin.PLACEMENT_POLICY_DEV])
def test_a_completion_queue_whose_memory_went_is_not_written_to(placement: int, again: bool) -> None:
    """Its submission queue is refused until there is memory again; then completions go there."""
    elsewhere, size = MEMORY + (1 << 32), 0x10000
    with ena_guest() as guest:
        assert guest.set_feature(admin.LLQ, llq_choice(1, 1, 2, 2))[0] == 0

        def map_there(writable: bool) -> None:
            memory = SharedMemory.create("completions", size)
            guest.function.dma_map(elsewhere, size, memory, readable=True, writable=writable)

        def create() -> int:
            return guest.create_sq(TX, cq, placement=placement)[0]

        map_there(writable=True)
        cq = struct.unpack_from("<H", guest.create_cq(2, address=elsewhere)[1])[0]
        if again:
            assert create() == 0
            assert guest.destroy_sq(TX, 0) == 0
        assert guest.function.dma_unmap(elsewhere, size) == 1
        assert create() == admin.ILLEGAL_PARAMETER
        map_there(writable=False)
        assert create() == admin.ILLEGAL_PARAMETER
        assert guest.function.dma_unmap(elsewhere, size) == 1
        assert not guest.state.tx.on.any()
        map_there(writable=True)
        assert create() == 0
        assert guest.state.tx[0].completions == guest.function._maps.address_of(elsewhere, 1, writable=True)
