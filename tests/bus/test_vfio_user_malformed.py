"""Malformed requests, each with the errno it is answered with; one log line a kind, and the connection goes on."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_user_kit import (
    EINVAL,
    VECTORS,
    FakeEndpoint,
    RawClient,
    access,
    dma_map,
    dma_unmap,
    eventfd,
    irq_set,
    open_descriptors,
    region_info,
    serving,
)

from vfwire.bus.vfio_user import version
from vfwire.bus.vfio_user.server import Server
from vfwire.layouts.vfio_user import MAX_MESSAGE, NO_REPLY, Command
from vfwire.memory.shared import PAGE
from vfwire.pci.endpoint import IrqIndex, RegionIndex

MSIX, BAR0, BAR3, CONFIG = IrqIndex.MSIX, RegionIndex.BAR0, RegionIndex.BAR3, RegionIndex.CONFIG
TOP = (1 << 64) - 1
Served = tuple[FakeEndpoint, Server, RawClient]

MAPS = 64  # in place of as many as a client may really have


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "vf0") as (endpoint, server), RawClient(tmp_path / "vf0") as client:
        yield endpoint, server, client


def write_one(offset: int, region: int, count: int) -> bytes:
    return struct.pack("<QII8s", offset, region, count, b"\1" * 8)


REFUSED = {
    "info short": (Command.DEVICE_GET_INFO, bytes(8), EINVAL),
    "info argsz": (Command.DEVICE_GET_INFO, struct.pack("<IIII", 8, 0, 0, 0), EINVAL),
    "region info short": (Command.DEVICE_GET_REGION_INFO, bytes(8), EINVAL),
    "region info argsz": (Command.DEVICE_GET_REGION_INFO, region_info(1, 8), EINVAL),
    "region info index": (Command.DEVICE_GET_REGION_INFO, region_info(9), EINVAL),
    "irq info short": (Command.DEVICE_GET_IRQ_INFO, bytes(8), EINVAL),
    "irq info argsz": (Command.DEVICE_GET_IRQ_INFO, struct.pack("<IIII", 8, 0, 0, 0), EINVAL),
    "irq info index": (Command.DEVICE_GET_IRQ_INFO, struct.pack("<IIII", 16, 0, 5, 0), EINVAL),
    "irqs empty": (Command.DEVICE_SET_IRQS, b"", EINVAL),
    "irqs short": (Command.DEVICE_SET_IRQS, bytes(8), EINVAL),
    "irqs argsz": (Command.DEVICE_SET_IRQS, irq_set(33, MSIX, 0, 0, argsz=3), EINVAL),
    "irqs index": (Command.DEVICE_SET_IRQS, irq_set(33, 5, 0, 0), EINVAL),
    "irqs unknown flag": (Command.DEVICE_SET_IRQS, irq_set(33 | 64, MSIX, 0, 1), EINVAL),
    "irqs no data": (Command.DEVICE_SET_IRQS, irq_set(32, MSIX, 0, 1), EINVAL),
    "irqs no action": (Command.DEVICE_SET_IRQS, irq_set(1, MSIX, 0, 1), EINVAL),
    "irqs two actions": (Command.DEVICE_SET_IRQS, irq_set(8 | 16 | 1, MSIX, 0, 1), EINVAL),
    "irqs two kinds of data": (Command.DEVICE_SET_IRQS, irq_set(32 | 1 | 2, MSIX, 0, 1), EINVAL),
    "irqs beyond": (Command.DEVICE_SET_IRQS, irq_set(33, MSIX, VECTORS - 1, 2), EINVAL),
    "irqs start beyond": (Command.DEVICE_SET_IRQS, irq_set(33, MSIX, VECTORS + 1, 1), EINVAL),
    "irqs overflow": (Command.DEVICE_SET_IRQS, irq_set(36, MSIX, 4, 0xFFFFFFFF), EINVAL),
    "irqs of a kind there is none of": (Command.DEVICE_SET_IRQS, irq_set(33, IrqIndex.INTX, 0, 1), EINVAL),
    "irqs none from 1": (Command.DEVICE_SET_IRQS, irq_set(33, MSIX, 1, 0), EINVAL),
    "irqs none masked": (Command.DEVICE_SET_IRQS, irq_set(9, MSIX, 0, 0), EINVAL),
    "irqs none bool": (Command.DEVICE_SET_IRQS, irq_set(34, MSIX, 0, 0), EINVAL),
    "irqs bool short": (Command.DEVICE_SET_IRQS, irq_set(34, MSIX, 0, 2, argsz=21, data=b"\0"), EINVAL),
    "irqs bool long": (Command.DEVICE_SET_IRQS, irq_set(34, MSIX, 0, 2, argsz=23, data=b"\0\0\0"), EINVAL),
    "irqs mask": (Command.DEVICE_SET_IRQS, irq_set(8 | 1, MSIX, 0, 1), errno.ENOTTY),
    "irqs unmask": (Command.DEVICE_SET_IRQS, irq_set(16 | 2, MSIX, 0, 1, data=b"\1"), errno.ENOTTY),
    "irqs unmask by eventfd": (Command.DEVICE_SET_IRQS, irq_set(16 | 4, MSIX, 0, 1), errno.ENOTTY),
    "read short": (Command.REGION_READ, bytes(15), EINVAL),
    "read long": (Command.REGION_READ, access(0, BAR3, 1, b"x"), EINVAL),
    "read of nothing": (Command.REGION_READ, access(0, BAR3, 0), EINVAL),
    "read of no region": (Command.REGION_READ, access(0, RegionIndex.BAR1, 1), EINVAL),
    "read region 9": (Command.REGION_READ, access(0, 9, 4), EINVAL),
    "read region -1": (Command.REGION_READ, access(0, 0xFFFFFFFF, 4), EINVAL),
    "read beyond": (Command.REGION_READ, access(PAGE - 3, BAR3, 4), EINVAL),
    "read far beyond": (Command.REGION_READ, access(1 << 40, BAR3, 4), EINVAL),
    "read overflow": (Command.REGION_READ, access(TOP, BAR3, 4), EINVAL),
    "read too much": (Command.REGION_READ, access(0, BAR3, 0xFFFFFFFF), EINVAL),
    "write short": (Command.REGION_WRITE, bytes(3), EINVAL),
    "write less than said": (Command.REGION_WRITE, access(0, BAR3, 4, b"abc"), EINVAL),
    "write more than said": (Command.REGION_WRITE, access(0, BAR3, 4, b"abcde"), EINVAL),
    "write of nothing": (Command.REGION_WRITE, access(0, BAR3, 0), EINVAL),
    "write region": (Command.REGION_WRITE, access(0, 10, 1, b"a"), EINVAL),
    "write beyond": (Command.REGION_WRITE, access(4095, CONFIG, 2, b"ab"), EINVAL),
    "write overflow": (Command.REGION_WRITE, access(TOP, CONFIG, 1, b"a"), EINVAL),
    "multi short": (Command.REGION_WRITE_MULTI, bytes(7), EINVAL),
    "multi with fewer": (Command.REGION_WRITE_MULTI, b"\2".ljust(8, b"\0") + write_one(0, BAR3, 4), EINVAL),
    "multi with too many": (Command.REGION_WRITE_MULTI, b"\xff" * 8 + bytes(240), EINVAL),
    "multi with 201": (Command.REGION_WRITE_MULTI, struct.pack("<Q", 201) + bytes(201 * 24), EINVAL),
    "multi of 9 bytes": (Command.REGION_WRITE_MULTI, struct.pack("<Q", 1) + write_one(0, BAR3, 9), EINVAL),
    "multi beyond": (Command.REGION_WRITE_MULTI, struct.pack("<Q", 1) + write_one(PAGE, BAR3, 1), EINVAL),
    "map short": (Command.DMA_MAP, bytes(31), EINVAL),
    "map long": (Command.DMA_MAP, dma_map(0, PAGE) + b"\0", EINVAL),
    "map argsz": (Command.DMA_MAP, dma_map(0, PAGE, argsz=31), EINVAL),
    "map of nothing": (Command.DMA_MAP, dma_map(0, 0), EINVAL),
    "map unaligned": (Command.DMA_MAP, dma_map(PAGE // 2, PAGE), EINVAL),
    "map of half a page": (Command.DMA_MAP, dma_map(0, PAGE // 2), EINVAL),
    "map overflow": (Command.DMA_MAP, dma_map(TOP - PAGE + 1, 2 * PAGE), EINVAL),
    "map above all": (Command.DMA_MAP, dma_map(1 << 63, PAGE), EINVAL),
    "map unknown flags": (Command.DMA_MAP, dma_map(0, PAGE, flags=3 | 8), EINVAL),
    "map mmap without descriptor": (Command.DMA_MAP, dma_map(0, PAGE, flags=3 | 4), EINVAL),
    "unmap short": (Command.DMA_UNMAP, bytes(23), EINVAL),
    "unmap argsz": (Command.DMA_UNMAP, dma_unmap(0, PAGE, argsz=8), EINVAL),
    "unmap huge argsz": (Command.DMA_UNMAP, dma_unmap(0, PAGE, argsz=1 << 21), EINVAL),
    "unmap unknown": (Command.DMA_UNMAP, dma_unmap(0, PAGE), errno.ENOENT),
    "unmap flags": (Command.DMA_UNMAP, dma_unmap(0, PAGE, flags=4), EINVAL),
    "unmap dirty": (Command.DMA_UNMAP, dma_unmap(0, PAGE, flags=1) + bytes(24), EINVAL),
    "unmap all of a range": (Command.DMA_UNMAP, dma_unmap(0, PAGE, flags=2), EINVAL),
    "unmap all dirty": (Command.DMA_UNMAP, dma_unmap(0, 0, flags=3), EINVAL),
    "reset with a payload": (Command.DEVICE_RESET, b"\0", EINVAL),
    "command 0": (0, b"", EINVAL),
    "command 14": (14, b"", EINVAL),
    "command 19": (19, b"\0", EINVAL),
    "command 65535": (65535, bytes(100), EINVAL),
    "version again": (Command.VERSION, bytes(4), EINVAL),
    "dma read from a client": (Command.DMA_READ, bytes(16), EINVAL),
    "dma write from a client": (Command.DMA_WRITE, bytes(16), EINVAL),
    "region descriptors": (Command.DEVICE_GET_REGION_IO_FDS, bytes(16), errno.EOPNOTSUPP),
    "features": (Command.DEVICE_FEATURE, bytes(8), errno.ENOTTY),
    "migration read": (Command.MIG_DATA_READ, bytes(8), errno.EOPNOTSUPP),
    "migration write": (Command.MIG_DATA_WRITE, bytes(8), errno.EOPNOTSUPP),
}


def test_each_is_refused_with_its_errno_and_reaches_no_device(served: Served) -> None:
    endpoint, server, client = served
    answers = {name: client.error(command, payload) for name, (command, payload, _) in REFUSED.items()}
    assert answers == {name: expected for name, (*_, expected) in REFUSED.items()}
    assert server.errors == len(REFUSED)
    assert endpoint.calls == ["attach", "unmap 0x0 0x1000"]
    assert client.error(Command.DEVICE_RESET) == 0


def test_one_log_line_for_each_kind(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    _, server, client = served
    for number in range(50):
        client.error(Command.REGION_READ, access(1 << 40, number, 4))
        client.error(2000 + number)
        client.send(Command.REGION_WRITE, access(0, BAR3, 1), flags=NO_REPLY)
    assert client.error(Command.DEVICE_RESET) == 0
    assert server.errors == 150
    assert len(caplog.records) == 3
    assert all("fake: " in record.message and "refused" in record.message for record in caplog.records)


def test_a_new_connection_is_told_of_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path / "vf0") as (_, server):
        for _ in range(3):
            with RawClient(tmp_path / "vf0") as client:
                assert client.error(Command.REGION_READ) == EINVAL
        assert server.errors == 3
    assert len(caplog.records) == 3


def test_descriptors_where_none_belong_are_closed(served: Served) -> None:
    endpoint, _, client = served
    fds = [eventfd() for _ in range(8)]
    before = open_descriptors()
    trigger = irq_set(32 | 1, MSIX, 0, 1)
    some = irq_set(32 | 4, MSIX, 0, 2)
    for command, payload, sent in (
        (Command.DEVICE_RESET, b"", fds),
        (Command.REGION_READ, access(0, BAR0, 4), fds[:1]),
        (Command.VERSION, bytes(4), fds[:2]),
        (999, b"", fds),
        (Command.DMA_UNMAP, dma_unmap(0, 0, flags=2), fds[:1]),
        (Command.DEVICE_SET_IRQS, trigger, fds[:1]),
        (Command.DEVICE_SET_IRQS, irq_set(32 | 2, MSIX, 0, 1, data=b"\1"), fds[:1]),
        (Command.DEVICE_SET_IRQS, some, fds[:1]),
        (Command.DEVICE_SET_IRQS, some, fds[:3]),
        (Command.DEVICE_SET_IRQS, irq_set(33, MSIX, 0, 0), fds[:1]),
        (Command.DMA_MAP, dma_map(0, PAGE), fds[:2]),
        (Command.DMA_MAP, dma_map(0, PAGE), fds[:1]),
    ):
        assert client.error(command, payload, sent) == EINVAL
        assert open_descriptors() == before, command
    assert endpoint.calls == ["attach"]
    for fd in fds:
        os.close(fd)


def test_too_many_descriptors_are_refused_and_closed(served: Served) -> None:
    endpoint, _, client = served
    fds = [eventfd() for _ in range(20)]
    before = open_descriptors()
    for count in (9, 12, 20):
        request = irq_set(32 | 4, MSIX, 0, count)
        assert client.error(Command.DEVICE_SET_IRQS, request, fds[:count]) == EINVAL
        assert open_descriptors() == before
    assert endpoint.eventfds == {}
    for fd in fds:
        os.close(fd)


def test_what_is_no_eventfd_is_refused(served: Served, tmp_path: Path) -> None:
    endpoint, _, client = served
    reader, writer = os.pipe()
    plain = os.open(tmp_path / "plain", os.O_CREAT | os.O_RDWR)
    before = open_descriptors()
    for fd in (reader, writer, plain, client.sock.fileno()):
        assert client.error(Command.DEVICE_SET_IRQS, irq_set(32 | 4, MSIX, 0, 1), [fd]) == EINVAL
        assert open_descriptors() == before
    assert endpoint.eventfds == {}
    for fd in (reader, writer, plain):
        os.close(fd)


def test_memory_that_can_go_away_is_refused(served: Served, tmp_path: Path) -> None:
    """Shrinkable, on disk, too small, a device: the first with the errno that says what is missing."""
    endpoint, _, client = served
    shrinkable = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(shrinkable, PAGE)
    disk = os.open(tmp_path / "disk", os.O_CREAT | os.O_RDWR)
    os.ftruncate(disk, PAGE)
    zero = os.open("/dev/zero", os.O_RDWR)
    before = open_descriptors()
    assert client.error(Command.DMA_MAP, dma_map(0, PAGE), [shrinkable]) == errno.EPERM
    assert client.error(Command.DMA_MAP, dma_map(0, PAGE), [disk]) == EINVAL
    assert client.error(Command.DMA_MAP, dma_map(0, PAGE), [zero]) == EINVAL
    sealed = endpoint.memory.fd
    assert client.error(Command.DMA_MAP, dma_map(0, 8 * PAGE), [sealed]) == EINVAL
    assert client.error(Command.DMA_MAP, dma_map(0, PAGE, offset=PAGE // 2), [sealed]) == EINVAL
    assert client.error(Command.DMA_MAP, dma_map(0, PAGE, offset=1 << 63), [sealed]) == EINVAL
    assert endpoint.maps == {}
    assert open_descriptors() == before
    for fd in (shrinkable, disk, zero):
        os.close(fd)


def test_an_overlap_is_the_endpoints_to_refuse_and_leaks_nothing(served: Served) -> None:
    endpoint, _, client = served
    memory = endpoint.memory.fd
    assert client.error(Command.DMA_MAP, dma_map(0, 2 * PAGE), [memory]) == 0
    before = open_descriptors()
    assert client.error(Command.DMA_MAP, dma_map(PAGE, 2 * PAGE), [memory]) == errno.EEXIST
    assert open_descriptors() == before
    assert list(endpoint.maps) == [0]


def test_maps_are_limited_and_an_unmap_makes_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, client = served
    monkeypatch.setattr(version, "MAX_DMA_MAPS", MAPS)
    for number in range(MAPS):
        assert client.error(Command.DMA_MAP, dma_map(number * PAGE, PAGE)) == 0
    one_more = dma_map(MAPS * PAGE, PAGE)
    assert client.error(Command.DMA_MAP, one_more) == errno.ENOSPC
    assert client.error(Command.DMA_UNMAP, dma_unmap(0, PAGE)) == 0
    assert client.error(Command.DMA_MAP, one_more) == 0
    assert client.error(Command.DMA_MAP, dma_map(0, PAGE)) == errno.ENOSPC
    assert client.error(Command.DMA_UNMAP, dma_unmap(0, 0, flags=2)) == 0
    assert client.error(Command.DMA_MAP, dma_map(0, PAGE)) == 0


def test_write_multi_stops_at_the_first_that_is_refused(served: Served) -> None:
    endpoint, server, client = served
    body = struct.pack("<Q", 3) + write_one(0, BAR3, 4) + write_one(PAGE, BAR3, 4) + write_one(8, BAR3, 4)
    with client.ask(Command.REGION_WRITE_MULTI, body) as reply:
        assert reply.payload == struct.pack("<Q", 1)
    assert server.errors == 1
    assert endpoint.calls[1:] == ["write 3 0x0 01010101"]


@pytest.mark.parametrize("size", [0, 15, MAX_MESSAGE + 1, 0xFFFFFFFF])
def test_a_size_that_is_none_ends_the_connection(served: Served, size: int) -> None:
    """After it nobody knows where the next message starts."""
    _, server, client = served
    client.sock.send(struct.pack("<HHIII", 0xBAD1, Command.DEVICE_SET_IRQS, size, 0, 0))
    with client.receive() as reply:
        assert (reply.id, reply.error) == (0xBAD1, EINVAL)
    assert client.is_closed()
    assert server.errors == 1


@pytest.mark.parametrize("kind", [1, 2, 15])
def test_a_reply_nobody_asked_for_is_refused(served: Served, kind: int) -> None:
    _, _, client = served
    client.sock.send(struct.pack("<HHIII", 0xBAD2, Command.DEVICE_SET_IRQS, 16, kind, 0))
    with client.receive() as reply:
        assert (reply.id, reply.error) == (0xBAD2, EINVAL)
    assert client.error(Command.DEVICE_RESET) == 0


def capabilities(text: str) -> bytes:
    return b'\0\0\0\0{"capabilities":' + text.encode() + b"}\0"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0",
        b"\1\0\0\0",
        b"\xe7\3\0\0",
        b"\0\0\0\0{}",
        b"\0\0\0\0{\0",
        b'\0\0\0\0"\0',
        b"\0\0\0\0[]\0",
        b"\0\0\0\0\xff\xfe\0",
        b"\0\0\0\0" + b"[" * 16000 + b"\0",
        b"\0\0\0\0" + b"9" * 10000 + b"\0",
        b"\0\0\0\0" + b" " * 20000 + b"{}\0",
        capabilities('"23"'),
        capabilities('{"max_msg_fds":"foo"}'),
        capabilities('{"max_msg_fds":-1}'),
        capabilities('{"max_msg_fds":1025}'),
        capabilities('{"max_msg_fds":true}'),
        capabilities('{"max_msg_fds":1.5}'),
        capabilities('{"max_data_xfer_size":null}'),
        capabilities('{"max_dma_maps":[1]}'),
        capabilities('{"pgsizes":NaN}'),
        capabilities('{"write_multiple":1}'),
    ],
)
def test_a_version_that_makes_no_sense_ends_the_connection(tmp_path: Path, payload: bytes) -> None:
    with serving(tmp_path / "vf0") as (endpoint, server):
        with RawClient(tmp_path / "vf0", negotiated=False) as client:
            assert client.error(Command.VERSION, payload) == EINVAL
            assert client.is_closed()
        assert not server.client_connected
        with RawClient(tmp_path / "vf0"):
            assert (endpoint.attached, server.errors) == (1, 1)


def test_the_first_message_must_be_the_version(tmp_path: Path) -> None:
    fd = eventfd()
    with serving(tmp_path / "vf0") as (endpoint, _):
        for command, fds in ((Command.DEVICE_RESET, []), (999, []), (Command.VERSION, [fd])):
            with RawClient(tmp_path / "vf0", negotiated=False) as client:
                assert client.error(command, bytes(4), fds) == EINVAL
                assert client.is_closed()
        assert endpoint.calls == []
    os.close(fd)
