"""The two ends together: everything a driver does through its Function, seen from the endpoint."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_user_kit import VECTORS, FakeEndpoint, eventfd, open_descriptors, serving, wait_until

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.errors import PeerGone, ProtocolError, UnsupportedMachine
from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.pci.endpoint import IrqIndex, RegionIndex
from vfwire.pci.function import Function

Ends = tuple[FakeEndpoint, Server, VfioUserFunction]


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with serving(tmp_path / "vf0") as (endpoint, server):
        function = VfioUserFunction(tmp_path / "vf0")
        yield endpoint, server, function
        function.close()


def test_it_is_a_function(ends: Ends) -> None:
    function: Function = ends[2]
    assert function.name.endswith("vf0")
    assert ends[1].client_connected
    assert ends[0].attached == 1


def test_regions_are_the_endpoints(ends: Ends) -> None:
    _, _, function = ends
    assert [region.size for region in function.regions] == [4 * PAGE, 0, 0, PAGE, 0, 0, 0, 4096, 0]
    mapped = [(pages.start, pages.end) for pages in function.regions[0].pages]
    assert mapped == [(PAGE, 2 * PAGE), (2 * PAGE, 3 * PAGE)]
    assert not any(region.pages for region in function.regions[1:])


def test_mapped_pages_are_the_devices_own_memory(ends: Ends) -> None:
    endpoint, _, function = ends
    function.write32(0, PAGE + 0x18, 0xDEADBEEF)
    assert endpoint.memory.array[PAGE + 0x18 : PAGE + 0x1C].tobytes() == bytes.fromhex("efbeadde")
    endpoint.memory.array[2 * PAGE + 4] = 0x7F
    assert function.read32(0, 2 * PAGE + 4) == 0x7F
    function.write32(0, PAGE, -1)
    assert function.read32(0, PAGE) == 0xFFFFFFFF
    assert function.traps == 0
    assert endpoint.calls == ["attach"]


def test_unmapped_pages_trap_and_are_counted(ends: Ends) -> None:
    endpoint, _, function = ends
    function.write32(0, 0x10, 0x12345678)
    assert function.read32(0, 0x10) == 0x12345678
    function.write32(3, 8, -2)
    assert function.read32(3, 8) == 0xFFFFFFFE
    assert function.traps == 4
    assert endpoint.calls[1:] == [
        "write 0 0x10 78563412",
        "read 0 0x10 4",
        "write 3 0x8 feffffff",
        "read 3 0x8 4",
    ]


def test_a_word_that_is_not_aligned_is_left_to_the_device(ends: Ends) -> None:
    endpoint, _, function = ends
    function.read32(0, PAGE + 2)
    assert endpoint.calls[1:] == [f"read 0 {PAGE + 2:#x} 4"]


def test_mapped_addresses_for_compiled_loops(ends: Ends) -> None:
    endpoint, _, function = ends
    address = function.mapped(0, PAGE + 8, 16)
    assert address == function.mapped(0, PAGE, 4) + 8
    function.write32(0, PAGE + 8, 7)
    assert endpoint.memory.array[PAGE + 8] == 7
    for offset, size in ((0, 4), (PAGE - 4, 8), (2 * PAGE - 4, 8), (3 * PAGE, 4)):
        with pytest.raises(UnsupportedMachine):
            function.mapped(0, offset, size)
    with pytest.raises(UnsupportedMachine):
        function.mapped(3, 0, 4)


def test_configuration_space(ends: Ends) -> None:
    endpoint, _, function = ends
    function.config_write(4, 0x0406, 2)
    assert endpoint.plain[RegionIndex.CONFIG][4:6] == b"\x06\x04"
    assert [function.config_read(4, size) for size in (1, 2, 4)] == [6, 0x406, 0x406]
    assert function.traps == 4


def test_dma_is_the_same_memory_on_both_sides(ends: Ends) -> None:
    endpoint, _, function = ends
    with SharedMemory.create("guest", 4 * PAGE) as memory:
        memory.array[5] = 55
        function.dma_map(memory, 0x10000)
        size, seen, readable, writable = endpoint.maps[0x10000]
        assert (size, readable, writable) == (4 * PAGE, True, True)
        assert seen is not None
        assert seen.array[5] == 55
        seen.array[6] = 66
        assert memory.array[6] == 66
        with pytest.raises(ProtocolError) as overlap:
            function.dma_map(memory, 0x11000)
        assert overlap.value.errno == errno.EEXIST
        with pytest.raises(ProtocolError) as unknown:
            function.dma_unmap(0x10000, PAGE)
        assert unknown.value.errno == errno.ENOENT
        function.dma_unmap(0x10000, 4 * PAGE)
        assert endpoint.maps == {}


def test_interrupts_arrive(ends: Ends) -> None:
    endpoint, _, function = ends
    fds = [eventfd() for _ in range(VECTORS)]
    function.enable_interrupts(fds)
    assert sorted(endpoint.eventfds) == [(IrqIndex.MSIX, vector) for vector in range(VECTORS)]
    for vector in (0, 7, 8, VECTORS - 1):
        os.eventfd_write(endpoint.eventfds[IrqIndex.MSIX, vector], 1)
        assert os.eventfd_read(fds[vector]) == 1
    function.enable_interrupts(fds[:2])
    assert sorted(endpoint.eventfds) == [(IrqIndex.MSIX, 0), (IrqIndex.MSIX, 1)]
    function.enable_interrupts([])
    assert endpoint.eventfds == {}
    with pytest.raises(ProtocolError):
        function.enable_interrupts([*fds, fds[0]])
    for fd in fds:
        os.close(fd)


def test_reset_and_close(ends: Ends) -> None:
    endpoint, server, function = ends
    function.reset()
    assert endpoint.resets == 1
    function.close()
    function.close()
    wait_until(lambda: endpoint.detached == 1, "detach")
    assert not server.client_connected
    with pytest.raises(PeerGone):
        function.config_read(0, 2)


def test_the_next_client_finds_the_device_as_new(ends: Ends, tmp_path: Path) -> None:
    endpoint, server, function = ends
    with SharedMemory.create("guest", PAGE) as memory:
        function.dma_map(memory, 0)
    function.close()
    second = VfioUserFunction(tmp_path / "vf0")
    assert (endpoint.attached, endpoint.detached, endpoint.maps) == (2, 1, {})
    assert second.config_read(0, 4) == 0
    assert server.errors == 0
    second.close()


def test_an_end_of_the_server_is_told_at_once(ends: Ends) -> None:
    _, server, function = ends
    function.check_peer()
    server.stop()
    with pytest.raises(PeerGone, match="went away"):
        function.check_peer()
    with pytest.raises(PeerGone) as gone:
        function.reset()
    assert gone.value.hint
    assert function.read32(0, PAGE) == 0  # its pages stay mapped, so that a loop over them survives


def test_a_device_that_hangs_is_given_up_in_time(tmp_path: Path) -> None:
    with serving(tmp_path / "vf0") as (endpoint, _):
        function = VfioUserFunction(tmp_path / "vf0", timeout=0.2)
        release = threading.Event()
        endpoint.reset = release.wait  # type: ignore[method-assign,assignment]
        with pytest.raises(PeerGone, match="no answer within"):
            function.reset()
        release.set()
        with pytest.raises(PeerGone):
            function.config_read(0, 2)
        function.close()


def test_no_descriptor_is_lost_over_a_clients_life(tmp_path: Path) -> None:
    with serving(tmp_path / "vf0") as (endpoint, _):
        before = open_descriptors()
        for rounds in range(1, 4):
            function = VfioUserFunction(tmp_path / "vf0")
            fds = [eventfd() for _ in range(9)]
            function.enable_interrupts(fds)
            with SharedMemory.create("guest", PAGE) as memory:
                function.dma_map(memory, 0)
            function.close()
            for fd in fds:
                os.close(fd)
            wait_until(lambda rounds=rounds: endpoint.detached == rounds, "detach")
        wait_until(lambda: open_descriptors() == before, f"{before} open descriptors")


def test_threads_take_turns_on_one_function(ends: Ends) -> None:
    _, _, function = ends
    wrong: list[int] = []

    def hammer(offset: int) -> None:
        for value in range(200):
            function.write32(3, offset, value)
            if function.read32(3, offset) != value:
                wrong.append(value)

    threads = [threading.Thread(target=hammer, args=(8 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert function.traps == 1600
