"""A pool as Python applications use it: bursts of buffers out and back, and their bytes without a copy."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.drivers.verbs import Pool, burst


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(16, 2048, headroom=64) as made:
        yield made


def free_buffers(pool: Pool) -> list[int]:
    return sorted(pool.stack[: int(pool.words[0].free)].tolist())


def test_buffers_come_once_and_go_back(pool: Pool) -> None:
    before = free_buffers(pool)
    frames = burst(10)
    assert pool.take(frames, 60) == 10
    assert len(set(frames.address.tolist())) == 10
    assert not set(frames.address.tolist()) & set(free_buffers(pool))
    assert all((frames.address - pool.memory.address) % pool.stride == 64)
    pool.give(frames)
    assert free_buffers(pool) == before


def test_a_pool_that_runs_low_gives_what_it_has(pool: Pool) -> None:
    frames, more = burst(12), burst(12)
    assert (pool.take(frames, 100), pool.take(more, 100), pool.take(burst(1), 100)) == (12, 4, 0)
    pool.give(more[:4])
    pool.give(frames)
    assert len(free_buffers(pool)) == 16


def test_entries_start_clean(pool: Pool) -> None:
    frames = burst(2)
    for field in ("flags", "vlan", "header", "segment"):
        frames[field] = 9
    pool.take(frames, 60)
    for field in ("flags", "vlan", "header", "segment"):
        assert frames[field].tolist() == [0, 0]
    assert frames.length.tolist() == [60, 60]


def test_views_are_the_memory_itself(pool: Pool) -> None:
    frames = burst(3)
    pool.take(frames, 60)
    for number, view in enumerate(pool.views(frames)):
        assert view.shape == (60,)
        view[:] = number
    for number, address in enumerate(frames.address.tolist()):
        assert (pool.view(address, 60) == number).all()
    assert np.shares_memory(pool.views(frames)[0], pool.memory.array)


@pytest.mark.parametrize("length", [0, -1, 2048 - 63])
def test_a_length_that_does_not_fit(pool: Pool, length: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pool.take(burst(1), length)


@given(st.lists(st.integers(0, 6), max_size=30))
def test_no_buffer_is_lost_or_doubled(sizes: list[int]) -> None:
    with Pool(16, 1024) as pool:
        everything = free_buffers(pool)
        out = []
        for size in sizes:
            frames = burst(size)
            out.append(frames[: pool.take(frames, 60)])
            if size % 2:
                pool.give(out.pop(0))
        for frames in out:
            pool.give(frames)
        assert free_buffers(pool) == everything
