"""What a guest maps for DMA: refusals, what the loop is told, and that nothing leads there after an unmap."""

import errno

import pytest
from device_kit import Guest, card_of
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath.state import MAPS, QUEUES
from vfwire.errors import BadAccess, ProtocolError
from vfwire.memory.shared import PAGE, SharedMemory


def memory_of(pages: int = 1) -> SharedMemory:
    return SharedMemory.create("test", pages * PAGE)


def rows(guest: Guest) -> list[tuple[int, int, int, int]]:
    """The rows of the function in use, as the loop sees them."""
    first = guest.function.port.function * MAPS
    return sorted(tuple(row.tolist()) for row in guest.state.maps[first : first + MAPS] if row.end)


def test_a_map_is_entered_and_taken_out_again() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        memory = memory_of(2)
        guest.function.dma_map(0x10000, 2 * PAGE, memory, readable=True, writable=False)
        assert rows(guest) == [(0x10000, 0x10000 + 2 * PAGE, memory.address - 0x10000, 0)]
        guest.function.dma_unmap(0x10000, 2 * PAGE)
        assert rows(guest) == []
        assert memory.fd == -1


@pytest.mark.parametrize("memory", [None, "unreadable"])
def test_ranges_that_cannot_be_used_are_remembered_only(memory: str | None) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        mapped = memory_of() if memory else None
        guest.function.dma_map(0, PAGE, mapped, readable=False, writable=True)
        assert rows(guest) == []
        with pytest.raises(ProtocolError) as refused:
            guest.function.dma_map(0, PAGE, None, readable=True, writable=True)
        assert refused.value.errno == errno.EEXIST
        guest.function.dma_unmap(0, PAGE)


@pytest.mark.parametrize(("iova", "pages"), [(PAGE, 1), (0, 2), (2 * PAGE, 2), (0, 9), (2 * PAGE, 1)])
def test_overlaps_are_refused(iova: int, pages: int) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.function.dma_map(PAGE, 2 * PAGE, memory_of(2), readable=True, writable=True)
        with memory_of(pages) as other, pytest.raises(ProtocolError) as refused:
            guest.function.dma_map(iova, pages * PAGE, other, readable=True, writable=True)
        assert refused.value.errno == errno.EEXIST
        guest.function.dma_map(0, PAGE, memory_of(), readable=True, writable=True)
        guest.function.dma_map(3 * PAGE, PAGE, memory_of(), readable=True, writable=True)
        assert len(rows(guest)) == 3


@pytest.mark.parametrize(
    ("iova", "size"), [(0, 0), (-PAGE, PAGE), ((1 << 63) - PAGE, 2 * PAGE), (1 << 63, PAGE)]
)
def test_ranges_out_of_reach_are_refused(iova: int, size: int) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        with pytest.raises(ProtocolError) as refused:
            guest.function.dma_map(iova, size, None, readable=True, writable=True)
        assert refused.value.errno == errno.EINVAL


def test_too_many_are_refused_and_room_comes_back() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        for number in range(MAPS):
            guest.function.dma_map(number * PAGE, PAGE, memory_of(), readable=True, writable=True)
        with memory_of() as one_more, pytest.raises(ProtocolError) as refused:
            guest.function.dma_map(MAPS * PAGE, PAGE, one_more, readable=True, writable=True)
        assert refused.value.errno == errno.ENOSPC
        guest.function.dma_unmap(5 * PAGE, PAGE)
        guest.function.dma_map(MAPS * PAGE, PAGE, memory_of(), readable=True, writable=True)
        assert {row[0] for row in rows(guest)} == {n * PAGE for n in range(MAPS + 1) if n != 5}
        guest.function.dma_unmap_all()
        assert rows(guest) == []


@pytest.mark.parametrize(("iova", "size"), [(0, 2 * PAGE), (PAGE, PAGE), (0, 3 * PAGE)])
def test_only_exactly_what_was_mapped_can_go(iova: int, size: int) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.function.dma_map(0, PAGE, memory_of(), readable=True, writable=True)
        with pytest.raises(BadAccess) as refused:
            guest.function.dma_unmap(iova, size)
        assert refused.value.errno == errno.ENOENT
        assert len(rows(guest)) == 1


def test_an_unmap_turns_off_the_rings_in_it_and_forgets_the_rest() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        gone, stays = memory_of(2), memory_of(2)
        guest.function.dma_map(0, 2 * PAGE, gone, readable=True, writable=True)
        guest.function.dma_map(1 << 20, 2 * PAGE, stays, readable=True, writable=True)
        inside, beside = guest.state.tx[QUEUES], guest.state.rx[QUEUES + 1]
        neighbour = guest.state.tx[0]
        for queue, memory in ((inside, gone), (beside, stays), (neighbour, gone)):
            queue.on, queue.ring, queue.size = 1, memory.address + PAGE, 64
            queue.map_start, queue.map_end, queue.map_delta = 0, 2 * PAGE, memory.address
        guest.state.tx.to[:] = 0
        guest.function.dma_unmap(0, 2 * PAGE)
        assert (inside.on, beside.on, neighbour.on) == (0, 1, 1)
        assert (inside.map_end, beside.map_end, neighbour.map_end) == (0, 0, 2 * PAGE)
        assert set(guest.state.tx.to.tolist()) == {-1}


def test_maps_outlive_a_reset_but_not_the_guest() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        memory = memory_of()
        guest.function.dma_map(0, PAGE, memory, readable=True, writable=True)
        guest.function.reset()
        assert len(rows(guest)) == 1
        guest.function.detach()
        assert rows(guest) == [] and memory.fd == -1


RANGE = st.tuples(st.booleans(), st.integers(0, 12), st.integers(1, 4))


@given(steps=st.lists(RANGE, max_size=40))
def test_rows_are_always_what_is_mapped(steps: list[tuple[bool, int, int]]) -> None:
    with card_of() as card:
        guest, model = Guest(card.vfs[1]), dict[int, int]()
        for add, page, pages in steps:
            overlaps = any(page < at + size and at < page + pages for at, size in model.items())
            try:
                if add:
                    memory = memory_of(pages)
                    guest.function.dma_map(page * PAGE, pages * PAGE, memory, readable=True, writable=True)
                    assert not overlaps
                    model[page] = pages
                else:
                    guest.function.dma_unmap(page * PAGE, pages * PAGE)
                    assert model.pop(page) == pages
            except ProtocolError:
                assert overlaps if add else model.get(page) != pages
                if add:
                    memory.close()
            expected = sorted((at * PAGE, (at + size) * PAGE) for at, size in model.items())
            assert [row[:2] for row in rows(guest)] == expected
