"""An ENA's guest that breaks every rule of its rings: its own function may stop, its neighbours lose nothing, and the
card goes on. What it may do to its admin queue and registers is in test_ena_hostile.py.
"""

import random
import struct
from collections.abc import Iterator

import pytest
from ena_guest_kit import DEVICE, MEMORY, MEMORY_BYTES, RINGS, RX, TX
from ena_hostile_kit import (
    COMPLETE,
    FIRST,
    L3_SUM,
    L4_SUM,
    LAST,
    META,
    PARTIAL,
    RX_RING,
    TCP_IPV4,
    TSO,
    HostileEna,
)
from hostile_kit import RING, Scene, held_by_us, mapped_by_us, scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_ena_admin import llq_choice

from tests.waiting import wait_until
from vfwire.datapath.state import QUEUES, Drop
from vfwire.devices import ena_pages as pages
from vfwire.layouts import ena_admin as admin
from vfwire.memory.shared import PAGE, SharedMemory

NOBODY = b"\x02\0\0\0\0\x77"
PLAIN = FIRST | LAST | COMPLETE
GATHER = 64  # pieces of one frame that the card takes in hand


@pytest.fixture
def set_up() -> Iterator[Scene]:
    with scene(HostileEna) as made:
        yield made


# --- Receive --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", [0, MEMORY - 1, MEMORY + MEMORY_BYTES, MEMORY + MEMORY_BYTES - 16, (1 << 48) - 64]
)
def test_receive_buffers_in_no_memory(set_up: Scene, hostile: HostileEna, where: int) -> None:
    with set_up.hostile(3) as accomplice:
        for place in range(RING):
            hostile.poke(RX_RING + 16 * place + 8, struct.pack("<IHH", where & 0xFFFFFFFF, where >> 32, 0))
        for _ in range(3):
            accomplice.send(accomplice.frame(hostile.mac, payload=b"\xf0" * 200))
            accomplice.wait_taken()
        set_up.wait_fault(Drop.BAD_DMA)
        assert accomplice.record.fault == -1
        hostile.works()


def test_receive_buffers_in_their_own_rings(set_up: Scene, hostile: HostileEna) -> None:
    """What arrives there may be taken for descriptors and completions: it is the guest's own."""
    with set_up.hostile(3) as accomplice:
        for at in (RINGS + 0x10000, RX_RING):
            for place in range(RING):
                hostile.poke(RX_RING + 16 * place + 8, struct.pack("<IHH", at & 0xFFFFFFFF, at >> 32, 0))
            for _ in range(40):
                accomplice.send(accomplice.frame(hostile.mac, payload=b"\xf0" * 200))
                accomplice.wait_taken()
            hostile.works()
        assert accomplice.record.fault == -1


@pytest.mark.parametrize("completions", [True, False])
def test_half_of_a_queue_in_memory_that_goes(set_up: Scene, hostile: HostileEna, completions: bool) -> None:
    """Either its descriptors or its completions, the other half stays: the queue is closed with the first of them."""
    far = MEMORY + MEMORY_BYTES + PAGE
    with SharedMemory.create("more", 16 * PAGE) as more, set_up.hostile(3) as accomplice:
        hostile.function.dma_map(more, far)
        hostile.start()
        for words, direction, at in ((2, TX, 0), (4, RX, 4 * PAGE)):
            near = RINGS + at
            status, answer = hostile.create_cq(words, address=far + at if completions else near)
            (cq,) = struct.unpack_from("<H", answer)
            assert status == 0
            ring = near if completions else far + at
            assert hostile.create_sq(direction, cq, address=ring)[0] == 0
        hostile.function.dma_unmap(far, more.size)
        hostile.wait_rings_left()
        accomplice.send(accomplice.frame(hostile.mac))
        accomplice.wait_taken()
        assert accomplice.record.fault == -1
        hostile.works()


# --- Transmit -------------------------------------------------------------------------------------------------


def test_buffers_beyond_the_map_and_frames_too_short(set_up: Scene, hostile: HostileEna) -> None:
    """Dropped and counted one by one, and completed like any other."""
    last = MEMORY + MEMORY_BYTES
    for address, length in ((0, 60), (last - 59, 60), (MEMORY - 1, 60), ((1 << 48) - 8, 60), (1 << 47, 9)):
        hostile.plain(address, length)
    for length in (0, 1, 13):
        hostile.plain(MEMORY, length)
    hostile.plain(MEMORY, 0xFFFF)
    hostile.doorbell()
    hostile.wait_taken()
    assert set_up.drops(Drop.BAD_DMA) == 5
    assert set_up.drops(Drop.TOO_SHORT) == 3 and set_up.drops(Drop.TOO_LONG) == 1
    assert set_up.record.fault == -1 and hostile.completions() == 9
    hostile.works()


@pytest.mark.parametrize("count", [GATHER, RING - 1])
@pytest.mark.parametrize("length", [0, 1, 64, 0xFFFF])
def test_chains_that_never_end(set_up: Scene, hostile: HostileEna, length: int, count: int) -> None:
    for place in range(count):
        hostile.entry(length | (FIRST if place == 0 else 0), MEMORY)
    hostile.doorbell()
    set_up.wait_fault(Drop.CHAIN_TOO_LONG)
    hostile.works()


def test_a_chain_that_never_ends_in_a_low_latency_queue(set_up: Scene, hostile: HostileEna) -> None:
    hostile.start()
    assert hostile.set_feature(admin.LLQ, llq_choice(1, 1, 2, 2))[0] == 0
    hostile.rings(placement=DEVICE)
    more = struct.pack("<IIQ", 60 | 1 << 24, 0, MEMORY) * 8
    for place in range(RING - 1):
        data = struct.pack("<IIQ", 60 | 1 << 24 | FIRST, 0, MEMORY) + more[16:] if place == 0 else more
        hostile.function.region_write(2, pages.llq_offset(0) + 128 * place, data)
    hostile.tail = RING - 1
    hostile.doorbell()
    set_up.wait_fault(Drop.CHAIN_TOO_LONG)
    hostile.works()


def test_half_a_frame_for_ever(set_up: Scene, hostile: HostileEna) -> None:
    """It waits in its own ring, and goes when its end comes."""
    header = hostile.frame(NOBODY)[:14]
    at = hostile.put(hostile.tx_buffers, header)
    for place in range(10):
        hostile.entry(14 | (FIRST | COMPLETE if place == 0 else 0), at)
    hostile.doorbell()
    set_up.wait_rounds(1000)
    set_up.neighbours.wait_progress()
    assert (hostile.taken(), int(set_up.record.fault), hostile.completions()) == (0, -1, 0)
    before = int(set_up.record.tx_frames)
    hostile.entry(14 | LAST, at)
    hostile.doorbell()
    hostile.wait_taken()
    assert int(set_up.record.tx_frames) == before + 1 and hostile.completions() == 1


def test_offloads_that_make_no_sense(set_up: Scene, hostile: HostileEna) -> None:
    """Every corner of every field; a frame is sent under each, in one and in two buffers."""
    frame = hostile.frame(NOBODY, payload=b"E" + bytes(range(200)))
    at, corners = hostile.put(hostile.tx_buffers, frame), random.Random(7)
    for _ in range(8):
        for _ in range(40):
            hostile.meta(
                l2=corners.choice((0, 1, 13, 14, 255)),
                l3=corners.choice((0, 1, 20, 40, 255)),
                l4=corners.choice((0, 4, 8, 20, 60, 252)),
                mss=corners.choice((0, 1, 7, 8, 1460, 0x3FFF)),
            )
            offload = corners.getrandbits(16) & (TSO | L3_SUM | L4_SUM) | corners.choice((0, PARTIAL))
            bits = (offload | corners.choice((TCP_IPV4, 0x1F0F, 11 | 12 << 8, 8 | 13 << 8, 0))) << 32
            if corners.choice((True, False)):
                hostile.entry(len(frame) | LAST | COMPLETE | bits, at)
            else:
                hostile.entry(40 | COMPLETE | bits, at)
                hostile.entry(len(frame) - 40 | LAST, at + 40)
        hostile.doorbell()
        hostile.wait_taken()
    assert set_up.record.fault == -1 and set_up.drops(Drop.BAD_DESCRIPTOR) > 0
    hostile.works()


def test_segments_without_end_leave_time_for_the_neighbours(set_up: Scene, hostile: HostileEna) -> None:
    at = hostile.put(hostile.tx_buffers, hostile.frame(NOBODY)[:12] + b"\x08\0E" + bytes(0xF000))
    for _ in range(30):
        hostile.meta(mss=8)
        hostile.entry(0xF000 | COMPLETE | (TSO | L3_SUM | L4_SUM | TCP_IPV4) << 32, at)
        hostile.entry(0xF000, at)
        hostile.entry(0xF000 | LAST, at)
    hostile.doorbell()
    set_up.neighbours.wait_progress()
    hostile.wait_taken()
    assert set_up.record.tx_frames >= 30 * (3 * 0xF000 // 8 - 10)


def test_tags_of_all_kinds(set_up: Scene, hostile: HostileEna) -> None:
    to = b"\xff" * 6 + hostile.mac
    twice = bytes.fromhex("0064 8100 0064 0800") + bytes(40)
    for tag in (0x8100, 0x88A8):
        for rest in (b"", b"\0", bytes(2), bytes(46), twice, b"\xff" * 60):
            hostile.send(to + struct.pack(">H", tag) + rest)
    hostile.wait_taken()
    assert set_up.record.fault == -1
    hostile.works()


# --- At speed -------------------------------------------------------------------------------------------------


def test_queues_created_and_destroyed_at_speed(set_up: Scene, hostile: HostileEna) -> None:
    """Under traffic to and from them; twice, too, and in the wrong order."""
    with set_up.hostile(3) as accomplice:
        for turn in range(150):
            hostile.send(hostile.frame(accomplice.mac))
            accomplice.send(accomplice.frame(hostile.mac))
            if turn % 3 == 0:
                assert hostile.destroy_cq(0) != 0  # its submission queue is still there
            for direction in (TX, RX):
                assert hostile.destroy_sq(direction, 0) == 0
                assert hostile.destroy_sq(direction, 0) != 0
                assert hostile.destroy_cq(direction - TX) == 0
            hostile.rings()
        assert accomplice.record.fault == -1
    set_up.neighbours.wait_progress()
    hostile.works()


def test_a_flood_of_commands(set_up: Scene, hostile: HostileEna) -> None:
    """Answered in the guest's own thread: its neighbours' frames do not wait for it."""
    words = random.Random(3)
    for turn in range(600):
        status, _ = hostile.command(
            words.choice((words.getrandbits(8), admin.GET_FEATURE)), words.randbytes(60)
        )
        assert status in admin.STATUS_NAMES
        if turn % 100 == 0:
            set_up.neighbours.wait_progress(5)
    hostile.works()


# --- Anything at all ------------------------------------------------------------------------------------------

FIELDS = st.sampled_from([0, FIRST, LAST, PLAIN, FIRST | LAST, META | FIRST, META | LAST])
WORDS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.builds(
        lambda length, bits: length | PLAIN | bits << 32, st.integers(0, 2000), st.integers(0, 0x3FFFF)
    ),
    st.builds(lambda length, bits: length | bits, st.integers(0, 0xFFFF), FIELDS),
)
ADDRESSES = st.one_of(
    st.integers(MEMORY, MEMORY + MEMORY_BYTES), st.integers(0, (1 << 64) - 1), st.just(RX_RING)
)


def test_any_registers_and_any_descriptors(soaking: bool) -> None:
    with scene(HostileEna) as found:
        held, mapped = held_by_us(), mapped_by_us()

        @settings(
            max_examples=2000 if soaking else 40, suppress_health_check=list(HealthCheck), database=None
        )
        @given(
            st.lists(
                st.tuples(st.integers(0, pages.BAR0_SIZE // 4 - 1), st.integers(0, 0xFFFFFFFF)), max_size=30
            ),
            st.lists(st.tuples(WORDS, ADDRESSES), min_size=1, max_size=RING - 1),
            st.integers(0, 0xFFFF),
        )
        def attempt(writes: list[tuple[int, int]], ring: list[tuple[int, int]], tail: int) -> None:
            with found.hostile() as hostile:
                for word0, word1 in ring:
                    hostile.entry(word0, word1)
                hostile.doorbell()
                for place, value in writes:
                    hostile.write(4 * place, value)
                hostile.write(pages.tx_doorbell(0), tail)
                found.wait_rounds(20)
                row = found.engine.state.tx[2 * QUEUES]
                assert int(row.completed) <= int(row.head) or not row.on
            wait_until(
                lambda: (held_by_us(), mapped_by_us()) == (held, mapped), "the return of all that was held"
            )

        attempt()
        found.neighbours.wait_progress()
