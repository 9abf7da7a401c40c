"""An ENA driven by noise: every register, command and doorbell, in any order. Nothing raises, nothing leaks, and what
comes afterwards is served as if nothing had been.
"""

import struct

import numpy as np
from ena_guest_kit import (
    AQ,
    BUFFER,
    DEPTH,
    EVENT_DEPTH,
    MEMORY,
    MEMORY_BYTES,
    RINGS,
    RX,
    TX,
    EnaGuest,
    ena_card,
    ena_guest,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfwire.datapath.state import QUEUES
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers as regs
from vfwire.pci.endpoint import RegionIndex

_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_words = st.one_of(
    st.integers(0, 0xFFFFFFFF), st.integers(0, 64), st.sampled_from([0xFFFF, 64 << 16 | DEPTH])
)
_addresses = st.one_of(
    st.sampled_from([0, RINGS, BUFFER, MEMORY + MEMORY_BYTES - 16, MEMORY + MEMORY_BYTES, (1 << 48) - 64]),
    st.integers(0, (1 << 48) - 1),
    st.integers(MEMORY, MEMORY + MEMORY_BYTES),
)
_opcodes = st.one_of(st.sampled_from(sorted(admin.OPCODE_NAMES)), st.integers(0, 255))
_features = st.one_of(st.sampled_from(sorted(admin.FEATURE_NAMES)), st.integers(0, 255))


def _works(guest: EnaGuest) -> None:
    """A driver that keeps to the rules gets all it wants, whatever was before."""
    guest.bring_up()
    for number in range(3):
        for direction in (TX, RX):
            assert guest.queue(direction, number)[0] == number
    assert guest.event() is not None


def _unharmed(neighbour: EnaGuest) -> None:
    assert neighbour.get_feature(admin.LINK_CONFIG)[0] == 0
    assert neighbour.state.tx.on[neighbour.number * QUEUES] == 1
    assert neighbour.state.rx.on[neighbour.number * QUEUES] == 1


@_SETTINGS
@given(
    writes=st.lists(
        st.tuples(
            st.one_of(st.sampled_from([row.offset for row in regs.REGISTERS]), st.integers(0, 0xFFF)), _words
        ),
        max_size=60,
    )
)
def test_noise_in_every_register(writes: list[tuple[int, int]]) -> None:
    with ena_card(vfs=2) as card:
        guest, neighbour = EnaGuest(card.vfs[0]), EnaGuest(card.vfs[1])
        neighbour.bring_up()
        neighbour.queue(TX)
        neighbour.queue(RX)
        guest.bring_up()
        for offset, value in writes:
            guest.write(offset, value)
            guest.read(offset)
        guest.function.tick()
        _unharmed(neighbour)
        _works(guest)
        guest.close()
        neighbour.close()


@_SETTINGS
@given(data=st.data())
def test_noise_in_every_command(data: st.DataObject) -> None:
    with ena_guest() as guest:
        for _ in range(data.draw(st.integers(1, 40))):
            body = bytearray(data.draw(st.binary(min_size=60, max_size=60)))
            struct.pack_into("<Q", body, 4, data.draw(_addresses))
            body[13] = data.draw(_features)
            status, _ = guest.command(data.draw(_opcodes), bytes(body), data.draw(st.integers(0, 127)) << 1)
            assert status in admin.STATUS_NAMES
        _works(guest)


@_SETTINGS
@given(data=st.data())
def test_queues_in_any_order(data: st.DataObject) -> None:
    """Created twice, destroyed twice, anywhere, of any size: what the loop has is what the answers said."""
    with ena_guest() as guest:
        for _ in range(data.draw(st.integers(1, 40))):
            step = data.draw(st.sampled_from(["cq", "sq", "destroy sq", "destroy cq"]))
            index, direction = data.draw(st.integers(0, 70)), data.draw(st.integers(0, 7))
            depth = data.draw(st.sampled_from([0, 1, 3, 16, 256, 8192, 0xFFFF]))
            if step == "cq":
                words, address = data.draw(st.integers(0, 31)), data.draw(_addresses)
                guest.create_cq(words, depth=depth, vector=data.draw(_words), address=address)
            elif step == "sq":
                address, placement = data.draw(_addresses), data.draw(st.integers(0, 15))
                guest.create_sq(direction, index, depth=depth, address=address, placement=placement)
            elif step == "destroy sq":
                guest.destroy_sq(direction, index)
            else:
                guest.destroy_cq(index)
            open_ones = {(TX, slot) for slot in np.flatnonzero(guest.state.tx.on[:QUEUES])}
            open_ones |= {(RX, slot) for slot in np.flatnonzero(guest.state.rx.on[:QUEUES])}
            assert open_ones == set(guest.function.rings)
            mapped = guest.function._maps.address_of(MEMORY, MEMORY_BYTES, writable=True)
            assert mapped is not None
            for direction, slot in open_ones:
                queue = (guest.state.tx if direction == TX else guest.state.rx)[slot]
                for start, size in (
                    (queue.ring, queue["size"] * 16),
                    (queue.completions, queue.completion_size * queue.completion_bytes),
                ):
                    assert mapped <= start and start + size <= mapped + MEMORY_BYTES
        _works(guest)


@_SETTINGS
@given(
    tails=st.lists(st.integers(0, 0xFFFFFFFF), max_size=20),
    entries=st.binary(max_size=64 * DEPTH),
    heads=st.lists(st.integers(0, 0xFFFFFFFF), max_size=10),
)
def test_doorbells_over_noise(tails: list[int], entries: bytes, heads: list[int]) -> None:
    with ena_guest() as guest:
        guest.poke(AQ, entries)
        for tail in tails:
            guest.write(regs.AQ_DB, tail)
        for head in heads:
            guest.write(regs.AENQ_HEAD_DB, head)
            guest.function._next_keep_alive = 0.0
            guest.function.tick()
        assert guest.function.events.room <= EVENT_DEPTH
        _works(guest)


@_SETTINGS
@given(
    accesses=st.lists(
        st.tuples(
            st.sampled_from([RegionIndex.BAR0, RegionIndex.BAR1, RegionIndex.BAR2]),
            st.integers(0, 0x3FFF),
            st.binary(min_size=1, max_size=16),
        ),
        max_size=40,
    )
)
def test_accesses_of_any_size_anywhere(accesses: list[tuple[RegionIndex, int, bytes]]) -> None:
    with ena_guest(exact=True) as guest:
        for bar, offset, data in accesses:
            piece = data[: 0x4000 - offset]
            guest.function.region_write(bar, offset, piece)
            assert len(guest.function.region_read(bar, offset, len(piece))) == len(piece)
        _works(guest)


def test_memory_that_goes_between_two_commands() -> None:
    with ena_guest() as guest:
        guest.queue(TX)
        guest.function.dma_unmap_all()
        guest.submit(admin.GET_FEATURE)
        guest.write(regs.AQ_DB, guest.submitted)
        guest.write(regs.MMIO_REG_READ, 1)
        guest.function._next_keep_alive = 0.0
        guest.function.tick()
        assert not guest.state.tx.on.any()
        assert guest.function.counters()["bad_addresses"] >= 2
