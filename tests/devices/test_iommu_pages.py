"""What a guest's IOMMU makes of a pool, without the guest: single pages, at I/O addresses not the driver's own.

The guest itself is in tests/guests/test_own_driver.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import Pool, burst
from vfwire.layouts import vfio_user as layout
from vfwire.layouts.vfio_user import Command
from vfwire.memory.shared import PAGE, SharedMemory

FIRST = 1 << 20


class PageByPage(VfioUserFunction):
    """As QEMU's client under an IOMMU: a message for each page, and all addresses unmapped at once."""

    def dma_address(self, memory: SharedMemory) -> int:
        return FIRST

    def dma_map(self, memory: SharedMemory, iova: int) -> None:
        flags = layout.DMA_READABLE | layout.DMA_WRITABLE
        for offset in range(0, memory.size, PAGE):
            request = layout.DMA_MAP.pack(layout.DMA_MAP.size, flags, offset, iova + offset, PAGE)
            reply = self.request(Command.DMA_MAP, request, [memory.fd])
            for fd in reply.fds:
                os.close(fd)

    def dma_unmap(self, iova: int, size: int) -> None:
        super().dma_unmap(0, 1 << 38)


@pytest.fixture
def card() -> Iterator[Card]:
    Engine.warm_up()
    engine = Engine([functions_of(2, host_function=False)])
    try:
        made = Card(engine, 0, "card0", 2)
        engine.start()
        yield made
        made.close()
    finally:
        engine.close()


def test_a_driver_behind_an_iommu_sends_and_receives(card: Card, tmp_path: Path) -> None:
    servers = [Server(vf, tmp_path / str(number)) for number, vf in enumerate(card.vfs)]
    for server in servers:
        server.start()
    try:
        behind, plain = PageByPage(tmp_path / "0", wait=5), VfioUserFunction(tmp_path / "1", wait=5)
        with Pool(2048) as pool, Pool(2048) as other:
            assert pool.memory.size // PAGE > 500
            with Ixgbevf.open(behind, pool, ring_size=512) as one, Ixgbevf.open(plain, other) as two:
                assert int(one.tx[0].delta) == FIRST - pool.memory.address
                exchange(one, two)
                exchange(two, one)
                assert card.engine.state.functions[0].fault == -1
                assert card.vfs[0].counters()["dma_ranges"] == pool.memory.size // PAGE
            assert card.vfs[0].counters()["dma_ranges"] == 0
    finally:
        for server in servers:
            server.stop()


def exchange(sender: Ixgbevf, receiver: Ixgbevf, count: int = 400) -> None:
    """Frames with their number as payload, all over the sender's pool; all of them arrive as they were."""
    frames, got, seen = burst(16), burst(64), []
    for first in range(0, count, 16):
        assert sender.pool.take(frames, 60) == 16
        for view, number in zip(sender.pool.views(frames), range(first, first + 16), strict=True):
            view[:14] = list(receiver.mac + sender.mac + b"\x88\xb5")
            view[14:] = list(number.to_bytes(46, "big"))
        assert sender.transmit(frames, 16) == 16
        sender.wait_sent()
        while len(seen) < first + 16:
            arrived = receiver.receive(got)
            seen += [
                int.from_bytes(view[14:60].tobytes(), "big") for view in receiver.pool.views(got[:arrived])
            ]
            receiver.pool.give(got[:arrived])
    assert seen == list(range(count))
