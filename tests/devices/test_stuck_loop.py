"""A loop that does not stand still in time: what was asked for is refused, nothing leaks, and a guest that leaves is
let go of before the next one comes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ena_guest_kit import BUFFER, MEMORY, MEMORY_BYTES, RX, EnaGuest, ena_card

from vfwire.devices.engine import Engine
from vfwire.errors import WaitTimeout
from vfwire.memory.shared import SharedMemory
from vfwire.pci.endpoint import IrqIndex, RegionIndex


@contextmanager
def stuck(engine: Engine) -> Iterator[None]:
    """Nobody gets the loop to stand still."""

    def park() -> None:
        raise WaitTimeout("the card's loop did not stand still")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_park", park)
        yield


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def maps_of(guest: EnaGuest) -> Any:
    return guest.function._maps


def test_a_guest_that_left_is_let_go_of_before_the_next_comes() -> None:
    with ena_card() as card:
        vf = card.vfs[0]
        guest = EnaGuest(vf)
        guest.bring_up()
        guest.queue(RX)
        pages = vf.regions[RegionIndex.BAR0].memory
        with stuck(card.engine):
            with pytest.raises(WaitTimeout):
                vf.detach()
            with pytest.raises(WaitTimeout):
                vf.attach()
        assert not vf.attached
        vf.attach()
        assert len(maps_of(guest)) == 0 and not guest.state.rx.on.any()
        assert vf.regions[RegionIndex.BAR0].memory is not pages
        guest.map_memory()
        guest.close()


def test_a_map_that_is_refused_leaves_nothing() -> None:
    with ena_card() as card:
        guest = EnaGuest(card.vfs[0])
        before, blocks = descriptors(), len(maps_of(guest)._blocks)
        for _ in range(3):
            for iova in (MEMORY + MEMORY_BYTES, MEMORY + (1 << 40)):
                memory = SharedMemory.create("more", 0x10000)
                with stuck(card.engine), pytest.raises(WaitTimeout):
                    card.vfs[0].dma_map(iova, 0x10000, memory, readable=True, writable=True)
                memory.close()
        assert (descriptors(), len(maps_of(guest)), maps_of(guest).entered) == (before, 1, 1)
        assert len(maps_of(guest)._blocks) == blocks
        memory = SharedMemory.create("more", 0x10000)
        card.vfs[0].dma_map(MEMORY + MEMORY_BYTES, 0x10000, memory, readable=True, writable=True)
        assert (
            maps_of(guest).address_of(BUFFER, MEMORY + MEMORY_BYTES + 0x10000 - BUFFER, writable=True)
            is not None
        )
        guest.close()


def test_eventfds_that_are_refused_are_closed() -> None:
    with ena_card() as card:
        guest = EnaGuest(card.vfs[0])
        before = descriptors()
        with stuck(card.engine), pytest.raises(WaitTimeout):
            card.vfs[0].set_irqs(IrqIndex.MSIX, 0, [os.eventfd(0), os.eventfd(0)])
        assert descriptors() == before
        guest.close()
