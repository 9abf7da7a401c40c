"""Requests as other clients send them: QEMU's, Cloud Hypervisor's, pipelined ones; message by message."""

import errno
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_user_kit import (
    VECTORS,
    FakeEndpoint,
    RawClient,
    access,
    dma_map,
    dma_unmap,
    eventfd,
    irq_set,
    region_info,
    serving,
    wait_until,
)

from vfwire.layouts.vfio_user import ERROR, NO_REPLY, TYPE_REPLY, Command
from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.pci.endpoint import IrqIndex, RegionIndex

TRIGGER_EVENTFD = 32 | 4
TRIGGER_NONE = 32 | 1
TRIGGER_BOOL = 32 | 2


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[FakeEndpoint, RawClient]]:
    with serving(tmp_path / "vf0") as (endpoint, server):
        with RawClient(tmp_path / "vf0") as client:
            yield endpoint, client
        assert server.errors == 0


def negotiate(path: Path, minor: int, text: bytes) -> tuple[int, int, dict[str, object]]:
    with RawClient(path, negotiated=False) as client, client.ask(Command.VERSION, b"\0\0" + text) as reply:
        assert reply.flags == TYPE_REPLY
        assert reply.payload[-1] == 0
        capabilities = json.loads(reply.payload[4:-1])["capabilities"]
        return (*struct.unpack_from("<HH", reply.payload), capabilities)


QEMU_TEXT = (
    b'{"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, '
    b'"pgsizes": 4096, "max_dma_maps": 65535, '
    b'"migration": {"pgsize": 4096, "max_bitmap_size": 268435456}, "write_multiple": true}}\0'
)


def test_the_version_answer_is_the_smaller_and_a_subset(tmp_path: Path) -> None:
    with serving(tmp_path / "vf0"):
        qemu = negotiate(tmp_path / "vf0", 0, b"\0\0" + QEMU_TEXT)
        assert qemu[:2] == (0, 0)
        assert set(qemu[2]) == {
            "max_msg_fds",
            "max_data_xfer_size",
            "pgsizes",
            "max_dma_maps",
            "write_multiple",
        }
        assert qemu[2]["max_msg_fds"] == 8
        assert qemu[2]["max_data_xfer_size"] == 1 << 20
        assert qemu[2]["pgsizes"] == PAGE
        cloud = b'\1\0{"capabilities":{"max_msg_fds":1,"migration":{"pgsize":4096},"write_multiple":false}}\0'
        assert negotiate(tmp_path / "vf0", 1, cloud) == (0, 1, {"max_msg_fds": 8})
        assert negotiate(tmp_path / "vf0", 7, b"\7\0{}\0") == (0, 1, {})
        assert negotiate(tmp_path / "vf0", 0, b"\0\0") == (0, 0, {})


def test_device_info(served: tuple[FakeEndpoint, RawClient]) -> None:
    _, client = served
    for argsz in (16, 20, 36):
        with client.ask(Command.DEVICE_GET_INFO, struct.pack("<IIII", argsz, 0, 0, 0)) as reply:
            assert struct.unpack("<IIII", reply.payload) == (16, 3, 9, 5)


def test_qemu_asks_for_a_region_twice(served: tuple[FakeEndpoint, RawClient]) -> None:
    endpoint, client = served
    with client.ask(Command.DEVICE_GET_REGION_INFO, region_info(0, 32)) as short:
        assert struct.unpack("<IIIIQQ", short.payload) == (80, 0xF, 0, 32, 4 * PAGE, 0)
        assert len(short.fds) == 1
    with client.ask(Command.DEVICE_GET_REGION_INFO, region_info(0, 80)) as whole:
        assert struct.unpack_from("<IIIIQQ", whole.payload) == (80, 0xF, 0, 32, 4 * PAGE, 0)
        assert struct.unpack_from("<HHIII", whole.payload, 32) == (1, 1, 0, 2, 0)
        assert struct.unpack_from("<QQQQ", whole.payload, 48) == (PAGE, PAGE, 2 * PAGE, PAGE)
        assert len(whole.payload) == 80
        assert os.fstat(whole.fds[0]).st_ino == os.fstat(endpoint.memory.fd).st_ino


def test_regions_without_pages_have_no_capabilities(served: tuple[FakeEndpoint, RawClient]) -> None:
    _, client = served
    sizes = {RegionIndex.CONFIG: 4096, RegionIndex.BAR3: PAGE, RegionIndex.ROM: 0, RegionIndex.BAR1: 0}
    for index, size in sizes.items():
        with client.ask(Command.DEVICE_GET_REGION_INFO, region_info(index, 64) + bytes(32)) as reply:
            flags = 3 if size else 0
            assert struct.unpack("<IIIIQQ", reply.payload) == (32, flags, index, 0, size, 0)
            assert reply.fds == []


def test_irq_info(served: tuple[FakeEndpoint, RawClient]) -> None:
    _, client = served
    counts = {IrqIndex.INTX: 0, IrqIndex.MSI: 0, IrqIndex.MSIX: VECTORS, IrqIndex.ERR: 1, IrqIndex.REQ: 1}
    for index, count in counts.items():
        with client.ask(Command.DEVICE_GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0)) as reply:
            assert struct.unpack("<IIII", reply.payload) == (16, 1, index, count)


def test_qemu_enables_a_vector_without_and_then_with_an_eventfd(
    served: tuple[FakeEndpoint, RawClient],
) -> None:
    endpoint, client = served
    fd = eventfd()
    assert client.error(Command.DEVICE_SET_IRQS, irq_set(TRIGGER_EVENTFD, IrqIndex.MSIX, 0, 1)) == 0
    assert endpoint.eventfds == {}
    assert client.error(Command.DEVICE_SET_IRQS, irq_set(TRIGGER_EVENTFD, IrqIndex.MSIX, 0, 1), [fd]) == 0
    os.eventfd_write(endpoint.eventfds[IrqIndex.MSIX, 0], 3)
    assert os.eventfd_read(fd) == 3
    assert client.error(Command.DEVICE_SET_IRQS, irq_set(TRIGGER_NONE, IrqIndex.MSIX, 0, 1)) == 0
    assert os.eventfd_read(fd) == 1
    marks = bytes([1, 0, 7])
    request = irq_set(TRIGGER_BOOL, IrqIndex.MSIX, 0, 3, argsz=23, data=marks)
    assert client.error(Command.DEVICE_SET_IRQS, request) == 0
    assert endpoint.triggered[-1] == (IrqIndex.MSIX, 0, [True, False, True])
    assert client.error(Command.DEVICE_SET_IRQS, irq_set(TRIGGER_NONE, IrqIndex.MSIX, 0, 0)) == 0
    assert endpoint.eventfds == {}
    os.close(fd)


def test_an_eventfd_is_made_not_to_block_the_card(served: tuple[FakeEndpoint, RawClient]) -> None:
    endpoint, client = served
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    assert client.error(Command.DEVICE_SET_IRQS, irq_set(TRIGGER_EVENTFD, IrqIndex.MSIX, 3, 1), [fd]) == 0
    os.eventfd_write(fd, (1 << 64) - 2)
    with pytest.raises(BlockingIOError):
        os.eventfd_write(endpoint.eventfds[IrqIndex.MSIX, 3], 1)
    os.close(fd)


def test_reads_and_writes_of_any_size(served: tuple[FakeEndpoint, RawClient]) -> None:
    endpoint, client = served
    with client.ask(Command.REGION_WRITE, access(0x10, RegionIndex.CONFIG, 3, b"abc")) as reply:
        assert reply.payload == access(0x10, RegionIndex.CONFIG, 3)
    for offset, count in ((0, 4096), (0x10, 3), (4095, 1)):
        with client.ask(Command.REGION_READ, access(offset, RegionIndex.CONFIG, count)) as reply:
            expected = bytes(endpoint.plain[RegionIndex.CONFIG][offset : offset + count])
            assert reply.payload == access(offset, RegionIndex.CONFIG, count, expected)


def test_a_posted_write_has_no_reply_and_is_done_before_what_follows(
    served: tuple[FakeEndpoint, RawClient],
) -> None:
    _, client = served
    client.send(Command.REGION_WRITE, access(0, RegionIndex.BAR3, 4, b"\1\2\3\4"), flags=NO_REPLY)
    with client.ask(Command.REGION_READ, access(0, RegionIndex.BAR3, 4)) as reply:
        assert reply.payload[16:] == b"\1\2\3\4"


def test_many_messages_in_flight_are_answered_in_order(served: tuple[FakeEndpoint, RawClient]) -> None:
    _, client = served
    first = client.number + 1
    for value in range(100):
        client.send(Command.REGION_WRITE, access(0, RegionIndex.BAR3, 1, bytes([value])))
        client.send(Command.REGION_READ, access(0, RegionIndex.BAR3, 1))
    for value in range(100):
        with client.receive() as written, client.receive() as read:
            assert (written.id, written.command) == (first + 2 * value, Command.REGION_WRITE)
            assert (read.id, read.command) == (first + 2 * value + 1, Command.REGION_READ)
            assert read.payload[16:] == bytes([value])


def test_write_multi(served: tuple[FakeEndpoint, RawClient]) -> None:
    """QEMU sends room for 200 writes whatever it uses of it."""
    endpoint, client = served
    writes = [(4 * i, struct.pack("<I", i)) for i in range(3)]
    body = b"".join(
        struct.pack("<QII8s", offset, RegionIndex.BAR3, len(data), data) for offset, data in writes
    )
    client.send(
        Command.REGION_WRITE_MULTI, struct.pack("<Q", 3) + body.ljust(200 * 24, b"\0"), flags=NO_REPLY
    )
    with client.ask(Command.REGION_WRITE_MULTI, struct.pack("<Q", 3) + body) as reply:
        assert reply.payload == struct.pack("<Q", 3)
    with client.ask(Command.REGION_WRITE_MULTI, struct.pack("<Q", 0)) as reply:
        assert reply.payload == struct.pack("<Q", 0)
    assert endpoint.calls.count("write 3 0x8 02000000") == 2


def test_guest_memory_comes_and_goes_as_qemu_sends_it(served: tuple[FakeEndpoint, RawClient]) -> None:
    """RAM in two pieces of one file, firmware without a descriptor and read-only; unmapped, all at once."""
    endpoint, client = served
    with SharedMemory.create("ram", 16 * PAGE) as ram:
        ram.array[10 * PAGE] = 42
        assert client.error(Command.DMA_MAP, dma_map(0, 10 * PAGE), [ram.fd]) == 0
        upper = dma_map(1 << 32, 6 * PAGE, offset=10 * PAGE)
        assert client.error(Command.DMA_MAP, upper, [ram.fd]) == 0
        assert client.error(Command.DMA_MAP, dma_map(0xFFFC0000, 4 * PAGE, flags=1)) == 0
        seen = endpoint.maps[1 << 32][1]
        assert seen is not None
        assert seen.array[0] == 42
        assert endpoint.maps[0xFFFC0000] == (4 * PAGE, None, True, False)
        with client.ask(Command.DMA_UNMAP, dma_unmap(0, 10 * PAGE)) as reply:
            assert reply.payload == dma_unmap(0, 10 * PAGE)
        assert sorted(endpoint.maps) == [0xFFFC0000, 1 << 32]
        assert client.error(Command.DMA_UNMAP, dma_unmap(0, 0, flags=2)) == 0
        assert endpoint.maps == {}


def test_a_read_only_map_cannot_be_written_here(served: tuple[FakeEndpoint, RawClient]) -> None:
    endpoint, client = served
    with SharedMemory.create("rom", PAGE) as rom:
        assert client.error(Command.DMA_MAP, dma_map(0, PAGE, flags=1), [rom.fd]) == 0
        seen = endpoint.maps[0][1]
        assert seen is not None
        assert not seen.array.flags.writeable


def test_a_client_that_takes_no_descriptors_gets_no_mapping(tmp_path: Path) -> None:
    with serving(tmp_path / "vf0"), RawClient(tmp_path / "vf0", negotiated=False) as client:
        text = b'\0\0\0\0{"capabilities":{"max_msg_fds":0}}\0'
        assert client.error(Command.VERSION, text) == 0
        with client.ask(Command.DEVICE_GET_REGION_INFO, region_info(0, 4096)) as reply:
            assert struct.unpack("<IIIIQQ", reply.payload) == (32, 3, 0, 0, 4 * PAGE, 0)
            assert reply.fds == []


def test_reset_has_no_payload(served: tuple[FakeEndpoint, RawClient]) -> None:
    endpoint, client = served
    with client.ask(Command.DEVICE_RESET) as reply:
        assert reply.payload == b""
    assert endpoint.resets == 1


def test_a_fault_of_the_model_is_an_error_reply_and_the_card_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path / "vf0") as (endpoint, server), RawClient(tmp_path / "vf0") as client:
        endpoint.fault = ZeroDivisionError("a bug")
        for _ in range(3):
            assert client.error(Command.DEVICE_RESET) == errno.EIO
        endpoint.fault = None
        assert client.error(Command.DEVICE_RESET) == 0
        assert server.errors == 3
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_an_attach_that_fails_refuses_the_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path / "vf0") as (endpoint, server):
        endpoint.fault = ZeroDivisionError("a bug")
        with (
            RawClient(tmp_path / "vf0", negotiated=False) as client,
            client.ask(Command.VERSION, b"\0\0\0\0") as reply,
        ):
            assert reply.flags & ERROR
            assert client.is_closed()
        assert not server.client_connected
        assert endpoint.detached == 0
    assert "fault in the device" in caplog.text


def test_half_a_message_waits_for_its_other_half(served: tuple[FakeEndpoint, RawClient]) -> None:
    endpoint, client = served
    data = struct.pack("<HHIII", 9, Command.DEVICE_RESET, 16, 0, 0) * 2
    for byte in data:
        client.sock.send(bytes([byte]))
    wait_until(lambda: endpoint.resets == 2, "two resets")
    for _ in range(2):
        with client.receive() as reply:
            assert (reply.id, reply.flags) == (9, TYPE_REPLY)
