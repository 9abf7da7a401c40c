"""What a guest maps for DMA: refusals, what the loop is told, and that nothing leads there after an unmap."""

import ctypes
import errno
import os

import pytest
from device_kit import Guest, card_of
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath.state import MAPS, QUEUES
from vfwire.errors import BadAccess, ProtocolError
from vfwire.memory.shared import PAGE, SharedMemory


def memory_of(pages: int = 1) -> SharedMemory:
    return SharedMemory.create("test", pages * PAGE)


def memory_with(text: bytes) -> SharedMemory:
    """One page that starts with `text`."""
    memory = memory_of()
    memory.array[: len(text)] = list(text)
    return memory


def seen(guest: Guest, iova: int, size: int) -> bytes:
    """What the loop finds at an I/O address, through the one row that holds it."""
    (delta,) = [delta for start, end, delta, _ in rows(guest) if start <= iova and iova + size <= end]
    return ctypes.string_at(iova + delta, size)


def rows(guest: Guest) -> list[tuple[int, int, int, int]]:
    """The rows of the function in use, as the loop sees them."""
    first = guest.function.port.function * MAPS
    return sorted(tuple(row.tolist()) for row in guest.state.maps[first : first + MAPS] if row.end)


def test_a_map_is_entered_and_taken_out_again() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        memory = memory_of(2)
        memory.array[PAGE : PAGE + 5] = list(b"hello")
        guest.function.dma_map(0x10000, 2 * PAGE, memory, readable=True, writable=False)
        ((start, end, _, writable),) = rows(guest)
        assert (start, end, writable) == (0x10000, 0x10000 + 2 * PAGE, 0)
        assert seen(guest, 0x10000 + PAGE, 5) == b"hello"
        assert memory.fd == -1
        assert guest.function.dma_unmap(0x10000, 2 * PAGE) == 1
        assert rows(guest) == []


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
        assert [row[:2] for row in rows(guest)] == [(0, 4 * PAGE)]


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
            guest.function.dma_map(2 * number * PAGE, PAGE, memory_of(), readable=True, writable=True)
        with memory_of() as one_more, pytest.raises(ProtocolError) as refused:
            guest.function.dma_map(2 * MAPS * PAGE, PAGE, one_more, readable=True, writable=True)
        assert refused.value.errno == errno.ENOSPC
        guest.function.dma_unmap(10 * PAGE, PAGE)
        guest.function.dma_map(2 * MAPS * PAGE, PAGE, memory_of(), readable=True, writable=True)
        assert {row[0] for row in rows(guest)} == {2 * n * PAGE for n in range(MAPS + 1) if n != 5}
        guest.function.dma_unmap_all()
        assert rows(guest) == []


@pytest.mark.parametrize(("iova", "pages"), [(0, 1), (1, 1), (2, 2), (3, 1), (0, 2), (2, 9)])
def test_no_range_is_cut(iova: int, pages: int) -> None:
    iova, size = iova * PAGE, pages * PAGE
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.function.dma_map(PAGE, 2 * PAGE, memory_of(2), readable=True, writable=True)
        with pytest.raises(BadAccess) as refused:
            guest.function.dma_unmap(iova, size)
        assert refused.value.errno == errno.ENOENT
        assert len(rows(guest)) == 1


def test_an_unmap_turns_off_the_rings_in_it_and_forgets_the_rest() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        guest.function.dma_map(0, 2 * PAGE, memory_of(2), readable=True, writable=True)
        guest.function.dma_map(1 << 20, 2 * PAGE, memory_of(2), readable=True, writable=True)
        gone, stays = (start + delta for start, _, delta, _ in rows(guest))
        inside, beside = guest.state.tx[QUEUES], guest.state.rx[QUEUES + 1]
        neighbour = guest.state.tx[0]
        for queue, memory in ((inside, gone), (beside, stays), (neighbour, gone)):
            queue.on, queue.ring, queue.size = 1, memory + PAGE, 64
            queue.map_start, queue.map_end, queue.map_delta = 0, 2 * PAGE, memory
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


def test_ranges_that_touch_are_one_and_lie_side_by_side() -> None:
    """What a guest's IOMMU does: page by page, from all over its memory, in any order."""
    with card_of() as card:
        guest = Guest(card.vfs[0])
        for page in (3, 1, 2):
            memory = memory_with(b"page %d" % page)
            guest.function.dma_map(page * PAGE, PAGE, memory, readable=True, writable=True)
        assert [row[:2] for row in rows(guest)] == [(PAGE, 4 * PAGE)]
        assert [seen(guest, page * PAGE, 6) for page in (1, 2, 3)] == [b"page 1", b"page 2", b"page 3"]
        assert len(seen(guest, PAGE + 100, 2 * PAGE)) == 2 * PAGE
        guest.function.dma_map(4 * PAGE, PAGE, memory_of(), readable=True, writable=False)
        assert [row[:2] for row in rows(guest)] == [(PAGE, 4 * PAGE), (4 * PAGE, 5 * PAGE)]


def test_a_range_in_the_middle_goes_and_comes_again() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        for page in range(3):
            guest.function.dma_map(page * PAGE, PAGE, memory_with(b"old"), readable=True, writable=True)
        queue = guest.state.rx[0]
        start, delta = rows(guest)[0][0], rows(guest)[0][2]
        queue.on, queue.ring, queue.size = 1, start + delta + 2 * PAGE - 16, 64
        assert guest.function.dma_unmap(PAGE, PAGE) == 1
        assert [row[:2] for row in rows(guest)] == [(0, PAGE), (2 * PAGE, 3 * PAGE)]
        assert queue.on == 0  # it lay across what is gone
        guest.function.dma_map(PAGE, PAGE, memory_with(b"new"), readable=True, writable=True)
        assert [seen(guest, page * PAGE, 3) for page in range(3)] == [b"old", b"new", b"old"]
        assert len(rows(guest)) == 1


def test_an_iommu_turned_off_takes_all_that_lies_inside() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        for page in (0, 1, 5, 9):
            guest.function.dma_map(page * PAGE, PAGE, memory_of(), readable=True, writable=page != 1)
        assert guest.function.dma_unmap(0, 8 * PAGE) == 3
        assert [row[:2] for row in rows(guest)] == [(9 * PAGE, 10 * PAGE)]
        assert guest.function.dma_unmap(0, 1 << 40) == 1
        assert rows(guest) == []


def test_a_pool_page_by_page_takes_one_row() -> None:
    """More pages than a function has rows for, scattered over one file as a guest's memory is."""
    with card_of() as card, memory_of(600) as file:
        guest = Guest(card.vfs[0])
        base = 0x7F00_0000_0000
        for page in range(600):
            fd, place = os.dup(file.fd), 7 * page % 600 * PAGE
            file.array[place] = page % 251
            memory = SharedMemory.adopt(fd, place, PAGE)
            guest.function.dma_map(base + page * PAGE, PAGE, memory, readable=True, writable=True)
        assert [row[:2] for row in rows(guest)] == [(base, base + 600 * PAGE)]
        assert all(seen(guest, base + page * PAGE, 1)[0] == page % 251 for page in range(600))


RANGE = st.tuples(st.booleans(), st.integers(0, 12), st.integers(1, 4))


@given(steps=st.lists(RANGE, max_size=40))
def test_rows_are_always_what_is_mapped(steps: list[tuple[bool, int, int]]) -> None:
    """Any maps and unmaps: the same pages are reachable as in a model of single pages, each with its own content."""
    with card_of() as card:
        guest, ranges, content = Guest(card.vfs[1]), dict[int, int](), dict[int, int]()
        for step, (add, page, pages) in enumerate(steps):
            touched = [at for at, size in ranges.items() if page < at + size and at < page + pages]
            inside = [at for at in touched if page <= at and at + ranges[at] <= page + pages]
            try:
                if add:
                    memory = memory_of(pages)
                    memory.array[::PAGE] = range(step, step + pages)
                    guest.function.dma_map(page * PAGE, pages * PAGE, memory, readable=True, writable=True)
                    assert not touched
                    ranges[page] = pages
                    content |= {page + at: step + at for at in range(pages)}
                else:
                    assert guest.function.dma_unmap(page * PAGE, pages * PAGE) == len(inside)
                    assert touched == inside
                    for at in inside:
                        for gone in range(at, at + ranges.pop(at)):
                            del content[gone]
            except ProtocolError:
                assert touched if add else not inside or touched != inside
                if add:
                    memory.close()
            assert {at // PAGE for start, end, *_ in rows(guest) for at in range(start, end, PAGE)} == set(
                content
            )
            assert all(seen(guest, at * PAGE, 1)[0] == value for at, value in content.items())
