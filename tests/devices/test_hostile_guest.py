"""A guest that breaks every rule: its own function may stop, its neighbours lose nothing, and the card goes on."""

import random
import struct
from collections.abc import Iterator

import pytest
from hostile_kit import (
    IOVA,
    MEMORY,
    PLAIN,
    RING,
    RX_RING,
    TX_BUFFERS,
    Hostile,
    Scene,
    held_by_us,
    mapped_by_us,
    scene,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waiting import wait_until
from vfwire.datapath.state import Drop
from vfwire.errors import VfwireError
from vfwire.layouts import ixgbe_descriptors as d
from vfwire.layouts import ixgbevf as regs
from vfwire.memory.shared import PAGE, SharedMemory

TSE = d.TXD_DCMD_TSE | d.TXD_Q1_IXSM | d.TXD_Q1_TXSM
TCP4 = d.CTXD_TUCMD_IPV4 | d.CTXD_TUCMD_L4T_TCP


@pytest.fixture
def set_up() -> Iterator[Scene]:
    with scene() as made:
        yield made


# --- Rings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rings", "cause"),
    [
        ({"tx": 0}, Drop.BAD_DMA),
        ({"tx": 0xFFFF_FFFF_FFFF_FF80}, Drop.BAD_DMA),
        ({"rx": 1 << 63}, Drop.BAD_DMA),
        ({"tx": IOVA - 128}, Drop.BAD_DMA),
        ({"rx": IOVA + MEMORY - 2048}, Drop.BAD_DMA),
        ({"length": 0}, Drop.BAD_DESCRIPTOR),
        ({"length": 24}, Drop.BAD_DESCRIPTOR),
        ({"length": (1 << 20) + 128}, Drop.BAD_DESCRIPTOR),
        ({"length": 0xFFFFFFFF}, Drop.BAD_DESCRIPTOR),
        ({"length": 1 << 20, "tx": IOVA + PAGE}, Drop.BAD_DMA),
    ],
)
def test_rings_that_are_nowhere_or_of_no_size(
    set_up: Scene, hostile: Hostile, rings: dict[str, int], cause: Drop
) -> None:
    with SharedMemory.create("more", MEMORY) as more:
        hostile.function.dma_map(more, IOVA + MEMORY + PAGE)  # a ring may cross what touches, and no gap
        hostile.reset()
        hostile.rings(**rings)
        set_up.wait_fault(cause)
        hostile.works()


def test_a_ring_across_two_maps_that_touch(set_up: Scene, hostile: Hostile) -> None:
    """As an IOMMU has it: what lies side by side in I/O addresses may be two memories."""
    with SharedMemory.create("more", MEMORY) as more:
        hostile.function.dma_map(more, IOVA + MEMORY)
        hostile.reset()
        hostile.rings(tx=IOVA + MEMORY - RING * 8)
        (old_fault, sent) = set_up.record.fault, int(set_up.record.tx_frames)
        frame = hostile.frame(b"\x02\0\0\0\0\x77")
        hostile.put(TX_BUFFERS, frame)
        address, command = IOVA + TX_BUFFERS, len(frame) | PLAIN
        more.array[:16] = list(struct.pack("<QQ", address, command))  # the first of the second half
        for place in range(RING // 2):
            hostile.put(MEMORY - RING * 8 + 16 * place, struct.pack("<QQ", address, command))
        hostile.write(regs.VFTDT, RING // 2 + 1)
        wait_until(lambda: int(set_up.record.tx_frames) - sent == RING // 2 + 1, "sending across the seam")
        assert set_up.record.fault == old_fault == -1


@pytest.mark.parametrize("value", [RING, 0xFFFF, 1 << 16, 0xFFFFFFFF])
@pytest.mark.parametrize("register", [regs.VFTDT, regs.VFTDH, regs.VFRDT, regs.VFRDH])
def test_heads_and_tails_beyond_the_ring(set_up: Scene, hostile: Hostile, register: int, value: int) -> None:
    with set_up.hostile(3) as accomplice:
        hostile.write(register, value)
        if register == regs.VFTDH:
            hostile.write(regs.VFTDT, 1)
        accomplice.send(accomplice.frame(hostile.mac))
        set_up.wait_fault(Drop.BAD_DESCRIPTOR)
        assert accomplice.record.fault == -1
        hostile.works()


@pytest.mark.parametrize("where", [0, IOVA + MEMORY, IOVA + MEMORY - 16, (1 << 64) - 64, IOVA + RX_RING])
def test_receive_buffers_in_no_memory_or_in_their_own_ring(
    set_up: Scene, hostile: Hostile, where: int
) -> None:
    with set_up.hostile(3) as accomplice:
        for place in range(RING):
            hostile.put(RX_RING + 16 * place, struct.pack("<QQ", where, 0))
        for _ in range(3):
            accomplice.send(accomplice.frame(hostile.mac, payload=b"\xf0" * 200))
            accomplice.wait_taken()
        set_up.wait_fault(Drop.BAD_DMA)
        hostile.works()


# --- Descriptors ---------------------------------------------------------------------------------------------


def test_buffers_beyond_the_map_and_frames_too_short(set_up: Scene, hostile: Hostile) -> None:
    for address, length in (
        (0, 60),
        (IOVA + MEMORY - 59, 60),
        (IOVA - 1, 60),
        ((1 << 64) - 8, 60),
        (1 << 63, 9),
    ):
        hostile.descriptor(address, length | PLAIN)
    for length in (0, 1, 13):
        hostile.descriptor(IOVA, length | PLAIN)
    hostile.descriptor(IOVA, 0xFFFF | PLAIN)
    hostile.doorbell()
    hostile.wait_taken()
    assert set_up.drops(Drop.BAD_DMA) == 5 and set_up.record.bad_dma == 5
    assert set_up.drops(Drop.TOO_SHORT) == 3 and set_up.drops(Drop.TOO_LONG) == 1
    assert set_up.record.fault == -1
    hostile.works()


@pytest.mark.parametrize("length", [0, 1, 64, 0xFFFF])
def test_chains_that_never_end(set_up: Scene, hostile: Hostile, length: int) -> None:
    for _ in range(RING - 1):
        hostile.descriptor(IOVA, length | PLAIN & ~d.TXD_DCMD_EOP)
    hostile.doorbell()
    set_up.wait_fault(Drop.CHAIN_TOO_LONG)
    hostile.works()


def test_half_a_frame_for_ever(set_up: Scene, hostile: Hostile) -> None:
    for _ in range(40):
        hostile.descriptor(IOVA, 100 | PLAIN & ~d.TXD_DCMD_EOP)
    hostile.doorbell()
    set_up.wait_rounds(1000)
    set_up.neighbours.wait_progress()
    assert (hostile.read(regs.VFTDH), int(set_up.record.fault)) == (0, -1)


def test_contexts_and_offloads_that_make_no_sense(set_up: Scene, hostile: Hostile) -> None:
    """Every corner of every field; a frame is sent under each context, in one and in two buffers."""
    frame = hostile.frame(b"\x02\0\0\0\0\x77", payload=b"E" + bytes(range(200)))
    at, corners = hostile.put(TX_BUFFERS, frame), random.Random(7)
    for _ in range(8):
        for _ in range(40):
            word0 = corners.getrandbits(64) & corners.getrandbits(64)
            word1 = corners.choice((0, 1, 7, 8, 0xFFFF)) << 48 | corners.choice((0, 1, 20, 60, 255)) << 40
            tucmd = corners.choice((0, TCP4, d.CTXD_TUCMD_IPV4, 0xFFFFF))
            hostile.descriptor(word0, word1 | tucmd | d.TXD_DTYP_CTXT | d.TXD_DCMD_DEXT)
            offload = corners.choice(
                (TSE, d.TXD_Q1_IXSM, d.TXD_Q1_TXSM, TSE | d.TXD_DCMD_VLE, d.TXD_DCMD_VLE)
            )
            lie = corners.getrandbits(18) << d.TXD_Q1_PAYLEN_SHIFT
            first = corners.choice((0, 1, 14, 54, len(frame)))
            hostile.descriptor(at, first | PLAIN & ~d.TXD_DCMD_EOP | offload | lie)
            hostile.descriptor(at + first, len(frame) - first | PLAIN | offload | lie)
        hostile.doorbell()
        hostile.wait_taken()
    assert set_up.record.fault == -1 and set_up.drops(Drop.BAD_DESCRIPTOR) > 0
    hostile.works()


def test_segments_without_end_leave_time_for_the_neighbours(set_up: Scene, hostile: Hostile) -> None:
    header = hostile.frame(b"\x02\0\0\0\0\x77")[:12] + b"\x08\0E"
    at = hostile.put(TX_BUFFERS, header + bytes(0xF000))
    for _ in range(30):
        lengths = 20 | 14 << d.CTXD_Q0_MACLEN_SHIFT
        hostile.descriptor(lengths, 8 << 48 | 20 << 40 | TCP4 | d.TXD_DTYP_CTXT | d.TXD_DCMD_DEXT)
        for end in (False, False, True):
            hostile.descriptor(at, 0xF000 | (PLAIN if end else PLAIN & ~d.TXD_DCMD_EOP) | TSE)
    hostile.doorbell()
    set_up.neighbours.wait_progress()
    hostile.wait_taken()
    assert set_up.record.tx_frames >= 30 * (3 * 0xF000 // 8 - 10)


def test_legacy_descriptors_and_any_type(set_up: Scene, hostile: Hostile) -> None:
    at = hostile.put(TX_BUFFERS, hostile.frame(b"\x02\0\0\0\0\x77"))
    before = int(set_up.record.tx_frames)
    for kind in range(16):
        for dext in (0, d.TXD_DCMD_DEXT):
            hostile.descriptor(at, 60 | d.TXD_DCMD_EOP | dext | kind << d.TXD_DTYP_SHIFT)
    hostile.doorbell()
    hostile.wait_taken()
    assert set_up.record.tx_frames == before + 31  # all but the context
    assert set_up.record.fault == -1


def test_tags_of_all_kinds(set_up: Scene, hostile: Hostile) -> None:
    to = b"\xff" * 6 + hostile.mac
    for tag in (0x8100, 0x88A8):
        for rest in (
            b"",
            b"\0",
            bytes(2),
            bytes(46),
            bytes.fromhex("0064 8100 0064 0800") + bytes(40),
            b"\xff" * 60,
        ):
            hostile.send(to + struct.pack(">H", tag) + rest)
            hostile.send(to + struct.pack(">H", tag) + rest, extra=d.TXD_DCMD_VLE)
    hostile.wait_taken()
    assert set_up.record.fault == -1
    hostile.works()


# --- Anything at all -----------------------------------------------------------------------------------------

CORNERS = st.sampled_from(
    [0, 1, 0x7F, 0x80, 0x1000, 0xFFFF, 1 << 25, 1 << 26, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
)
VALUES = st.one_of(CORNERS, st.integers(0, 0xFFFFFFFF))
OFFSETS = st.one_of(
    st.sampled_from([register.offset for register in regs.REGISTERS]),
    st.integers(0, regs.BAR0_SIZE // 4 - 1).map(lambda n: 4 * n),
)
ADDRESSES = st.one_of(
    st.integers(IOVA, IOVA + MEMORY), st.integers(0, (1 << 64) - 1), st.just(IOVA + RX_RING)
)
WORDS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.builds(
        lambda length, bits: length | PLAIN | bits,
        st.integers(0, 2000),
        st.sampled_from([0, TSE, d.TXD_DCMD_VLE]),
    ),
    st.builds(lambda high: high << 32 | TCP4 | d.TXD_DTYP_CTXT | d.TXD_DCMD_DEXT, st.integers(0, 0xFFFFFFFF)),
)


def test_any_registers_and_any_descriptors(soaking: bool) -> None:
    with scene() as found:
        held, mapped = held_by_us(), mapped_by_us()

        @settings(
            max_examples=2000 if soaking else 40, suppress_health_check=list(HealthCheck), database=None
        )
        @given(
            st.lists(st.tuples(OFFSETS, VALUES), max_size=30),
            st.lists(st.tuples(ADDRESSES, WORDS), min_size=1, max_size=RING - 1),
            VALUES,
        )
        def attempt(writes: list[tuple[int, int]], ring: list[tuple[int, int]], tail: int) -> None:
            with found.hostile() as hostile:
                for word0, word1 in ring:
                    hostile.descriptor(word0, word1)
                hostile.write(regs.VFTDT, tail % RING)
                for offset, value in writes:
                    try:
                        hostile.write(offset, value)
                    except VfwireError:
                        break
                hostile.write(regs.VFTDT, tail)
                found.wait_rounds(20)
            wait_until(
                lambda: (held_by_us(), mapped_by_us()) == (held, mapped), "the return of all that was held"
            )

        attempt()
        found.neighbours.wait_progress()
