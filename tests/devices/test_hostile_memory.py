"""A guest that takes its memory away, or does everything at speed, or all of a sudden: its neighbours lose nothing."""

import ctypes
import errno
import fcntl
import os
import random
import struct

import pytest
from hostile_kit import (
    IOVA,
    MEMORY,
    PLAIN,
    RING,
    TX_BUFFERS,
    TX_RING,
    Client,
    Hostile,
    Scene,
    held_by_us,
    mapped_by_us,
)

from tests.waiting import wait_until
from vfwire.datapath.state import MAPS, VECTORS
from vfwire.errors import ProtocolError
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts import vfio_user as layout
from vfwire.layouts.vfio_user import Command
from vfwire.memory.shared import PAGE, SharedMemory

FULL = 0xFFFFFFFFFFFFFFFE
ON_AN_82599 = pytest.mark.parametrize("set_up", [Hostile], indirect=True)


# --- Memory --------------------------------------------------------------------------------------------------


def test_memory_unmapped_under_traffic_is_not_touched_again(set_up: Scene, hostile: Client) -> None:
    with set_up.hostile(3) as accomplice:
        for _ in range(5):
            for _ in range(100):
                hostile.send(hostile.frame(accomplice.mac))
                accomplice.send(accomplice.frame(hostile.mac))
            hostile.function.dma_unmap(hostile.iova, hostile.memory.size)
            hostile.memory.array[:] = 0xA5
            hostile.doorbell()
            accomplice.wait_taken()
            hostile.wait_rings_left()
            assert (hostile.memory.array == 0xA5).all()
            hostile.function.dma_map(hostile.memory, hostile.iova)
            hostile.works()
        assert accomplice.record.fault == -1


def test_other_maps_come_and_go_while_rings_are_live(set_up: Scene, hostile: Client) -> None:
    other = SharedMemory.create("other", 16 * PAGE)
    at = 2 * hostile.iova
    for turn in range(50):
        hostile.function.dma_map(other, at)
        hostile.plain(at, 60)
        hostile.plain(at + PAGE * turn % other.size, 60)
        hostile.doorbell()
        hostile.function.dma_unmap(at, other.size)
    hostile.wait_taken()
    assert set_up.record.fault == -1
    hostile.works()
    other.close()


def test_memory_cannot_be_taken_away_under_the_card(set_up: Scene, hostile: Client) -> None:
    """Sealed memory cannot shrink while frames go in and out of it; memory without the seal is refused."""
    for _ in range(50):
        hostile.send(hostile.frame(b"\x02\0\0\0\0\x77"))
        with pytest.raises(PermissionError):
            os.ftruncate(hostile.memory.fd, PAGE)
    hostile.wait_taken()
    for seals in (0, fcntl.F_SEAL_GROW):
        fd = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, MEMORY)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        flags = layout.DMA_READABLE | layout.DMA_WRITABLE
        request = layout.DMA_MAP.pack(layout.DMA_MAP.size, flags, 0, 2 * hostile.iova, MEMORY)
        with pytest.raises(ProtocolError) as refused:
            hostile.function.request(Command.DMA_MAP, request, [fd])
        assert refused.value.errno == errno.EPERM
        os.close(fd)
    assert set_up.record.fault == -1


def test_holes_punched_under_traffic_read_as_zeros(set_up: Scene, hostile: Client) -> None:
    punch_hole = 0x3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE (linux/falloc.h)
    fallocate, start = ctypes.CDLL(None, use_errno=True).fallocate, hostile.tx_buffers
    hole = ctypes.c_long(start), ctypes.c_long(hostile.memory.size - start)
    for _ in range(50):
        hostile.send(hostile.frame(b"\x02\0\0\0\0\x77"))
        assert fallocate(hostile.memory.fd, punch_hole, *hole) == 0
    hostile.wait_taken()
    assert set_up.record.fault == -1


def test_many_ranges_cost_no_descriptors_that_others_need(set_up: Scene, hostile: Client) -> None:
    """A range that cannot be read is no use to the data path and is only remembered; of separate ones that can there
    are not many."""
    with SharedMemory.create("page", PAGE) as page:
        for flags, limit in ((layout.DMA_WRITABLE, 0), (layout.DMA_READABLE, MAPS)):
            held, mapped, refused = held_by_us(), mapped_by_us(), 0
            for number in range(400):
                at = 4 * hostile.iova + number * 2 * PAGE
                request = layout.DMA_MAP.pack(layout.DMA_MAP.size, flags, 0, at, PAGE)
                try:
                    hostile.function.request(Command.DMA_MAP, request, [page.fd])
                except ProtocolError as error:
                    refused += 1
                    assert error.errno == errno.ENOSPC
            assert mapped_by_us() - mapped <= limit and held_by_us() - held <= 2 * limit
            assert refused >= 400 - limit or not limit
            hostile.function.request(Command.DMA_UNMAP, layout.DMA_UNMAP.pack(24, layout.UNMAP_ALL, 0, 0))


# --- At speed ------------------------------------------------------------------------------------------------


@ON_AN_82599
def test_queues_enabled_and_disabled_at_speed(set_up: Scene, hostile: Hostile) -> None:
    hostile.put(TX_BUFFERS, hostile.frame(b"\x02\0\0\0\0\x77"))
    for place in range(RING):
        hostile.put(TX_RING + 16 * place, struct.pack("<QQ", IOVA + TX_BUFFERS, 60 | PLAIN))
    for turn in range(5000):
        hostile.write(regs.VFTXDCTL, regs.TXDCTL_ENABLE if turn % 2 else 0)
        hostile.write(regs.VFRXDCTL, regs.RXDCTL_ENABLE if turn % 3 else 0)
        hostile.write(regs.VFTDH, 0)
        hostile.write(regs.VFTDT, turn % RING)
        hostile.write(regs.VFRDH, turn % RING)
        hostile.write(regs.VFTDBAL, (IOVA + TX_RING + turn % 2 * PAGE) & 0xFFFFFFFF)
    set_up.neighbours.wait_progress()
    hostile.works()


def test_resets_at_speed(set_up: Scene, hostile: Client) -> None:
    for turn in range(300):
        hostile.send(hostile.frame(b"\xff" * 5 + b"\xfd"))
        if turn % 10:
            hostile.quick_reset()
        else:
            hostile.function.reset()
            hostile.become_master()
        hostile.start()
        hostile.rings()
    set_up.neighbours.wait_progress()
    hostile.works()


@ON_AN_82599
def test_a_mailbox_flood(set_up: Scene, hostile: Hostile) -> None:
    words = random.Random(3)
    for _ in range(600):
        message = [words.choice((words.getrandbits(4), words.getrandbits(32))), *(words.getrandbits(32),) * 2]
        hostile.ask(message)
    set_up.neighbours.wait_progress()
    hostile.works()


@pytest.mark.parametrize("how", ["closed", "full", "blocking"])
def test_interrupts_that_nobody_takes(set_up: Scene, hostile: Client, how: str) -> None:
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(hostile.vectors)]
    hostile.function.enable_interrupts(fds)
    for fd in fds:
        if how != "closed":
            os.eventfd_write(fd, FULL)
        if how == "blocking":
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        if how == "closed":
            os.close(fd)
    hostile.ask_for_interrupts()
    set_up.wait_rounds()
    set_up.neighbours.wait_progress()
    if how == "blocking":
        vectors = set_up.engine.state.vectors.eventfd[2 * VECTORS : 2 * VECTORS + 3]
        wait_until(lambda: vectors.tolist() == [-1, -1, -1], "the loss of these interrupts")
        with pytest.raises(ProtocolError) as refused:
            hostile.function.enable_interrupts(fds)
        assert refused.value.errno == errno.EPERM
    if how != "closed":
        for fd in fds:
            os.close(fd)
    hostile.works()


def test_clients_that_vanish_at_any_moment(set_up: Scene) -> None:
    chance, held, mapped = random.Random(11), held_by_us(), mapped_by_us()
    for _ in range(25):
        with set_up.hostile() as hostile:
            for _ in range(chance.randrange(20)):
                chance.choice(hostile.missteps())()
    wait_until(lambda: (held_by_us(), mapped_by_us()) == (held, mapped), "the return of all that was held")
