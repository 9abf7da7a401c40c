"""What the vfio-user tests share: an endpoint that records its calls, a client that can say anything."""

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vfwire.bus.vfio_user import version
from vfwire.bus.vfio_user.server import Server
from vfwire.bus.vfio_user.wire import Message, Receiver, pack, send_part
from vfwire.errors import BadAccess
from vfwire.layouts import vfio_user as layout
from vfwire.layouts.vfio_user import Command
from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.pci.endpoint import MappedArea, Region, RegionIndex

BAR0_SIZE = 4 * PAGE
CONFIG_SIZE = 4096
VECTORS = 20
EINVAL = errno.EINVAL


class FakeEndpoint:
    """BAR0 of four pages, 1 and 2 mappable; BAR3 that always traps; configuration space; 20 MSI-X vectors."""

    def __init__(self) -> None:
        self.name = "fake"
        self.memory = SharedMemory.create("fake-bar0", BAR0_SIZE)
        self.calls: list[str] = []
        self.plain = {RegionIndex.BAR3: bytearray(PAGE), RegionIndex.CONFIG: bytearray(CONFIG_SIZE)}
        self.maps: dict[int, tuple[int, SharedMemory | None, bool, bool]] = {}
        self.eventfds: dict[tuple[int, int], int] = {}
        self.triggered: list[tuple[int, int, list[bool]]] = []
        self.attached = 0
        self.detached = 0
        self.resets = 0
        self.fault: Exception | None = None
        self.gate = threading.Event()  # cleared, it holds the next read of a region
        self.gate.set()
        areas = (MappedArea(PAGE, PAGE, PAGE), MappedArea(2 * PAGE, PAGE, 2 * PAGE))
        empty = Region()
        self.regions = (
            Region(BAR0_SIZE, self.memory, areas),
            empty,
            empty,
            Region(PAGE),
            empty,
            empty,
            empty,
            Region(CONFIG_SIZE),
            empty,
        )
        self.irq_counts = (0, 0, VECTORS, 1, 1)

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        if self.fault is not None:
            raise self.fault

    def attach(self) -> None:
        self.attached += 1
        self._enter("attach")

    def _bytes(self, index: int) -> memoryview:
        if index == RegionIndex.BAR0:
            return self.memory.array.data
        return memoryview(self.plain[RegionIndex(index)])

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        self._enter(f"read {index} {offset:#x} {count}")
        assert self.gate.wait(10)
        return bytes(self._bytes(index)[offset : offset + count])

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        self._enter(f"write {index} {offset:#x} {data.hex()}")
        self._bytes(index)[offset : offset + len(data)] = data

    def dma_map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        self._enter(f"map {iova:#x} {size:#x}")
        if any(iova < at + length and at < iova + size for at, (length, *_) in self.maps.items()):
            raise BadAccess("overlaps another map", errno=errno.EEXIST)
        self.maps[iova] = (size, memory, readable, writable)

    def dma_unmap(self, iova: int, size: int) -> int:
        self._enter(f"unmap {iova:#x} {size:#x}")
        if iova not in self.maps or self.maps[iova][0] != size:
            raise BadAccess("no such map", errno=errno.ENOENT)
        memory = self.maps.pop(iova)[1]
        if memory is not None:
            memory.close()
        return 1

    def dma_unmap_all(self) -> None:
        self.calls.append("unmap all")
        for _, memory, *_ in self.maps.values():
            if memory is not None:
                memory.close()
        self.maps.clear()

    def set_irqs(self, index: int, start: int, eventfds: list[int]) -> None:
        for vector, fd in enumerate(eventfds, start):
            self._release(index, vector)
            if fd >= 0:
                self.eventfds[index, vector] = fd
        self._enter(f"irqs {index} {start} {len(eventfds)}")

    def _release(self, index: int, vector: int) -> None:
        fd = self.eventfds.pop((index, vector), -1)
        if fd >= 0:
            os.close(fd)

    def disable_irqs(self, index: int) -> None:
        self.calls.append(f"disable {index}")
        for kind, vector in list(self.eventfds):
            if kind == index:
                self._release(kind, vector)

    def trigger_irqs(self, index: int, start: int, flags: list[bool]) -> None:
        self.triggered.append((index, start, flags))
        for vector, wanted in enumerate(flags, start):
            if wanted and (index, vector) in self.eventfds:
                os.eventfd_write(self.eventfds[index, vector], 1)

    def reset(self) -> None:
        self.resets += 1
        self._enter("reset")

    def detach(self) -> None:
        self.dma_unmap_all()
        for index in range(5):
            self.disable_irqs(index)
        self.detached += 1

    def close(self) -> None:
        for region in self.regions:
            if region.memory is not None:
                region.memory.close()
        self.memory.close()


class RawClient:
    """A client that sends what it is told to, right or wrong."""

    def __init__(self, path: Path, *, negotiated: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(path))
        self.receiver = Receiver(self.sock)
        self.number = 100
        if negotiated:
            with self.ask(Command.VERSION, version.pack(0, 1, version.OURS)) as reply:
                assert not reply.flags & layout.ERROR

    def send(self, command: int, payload: bytes = b"", fds: list[int] | None = None, flags: int = 0) -> None:
        self.number += 1
        data = pack(self.number, command, flags, payload)
        assert send_part(self.sock, data, fds or []) == len(data)

    def receive(self) -> Message:
        message = self.receiver.step()
        assert message is not None
        return message

    def ask(self, command: int, payload: bytes = b"", fds: list[int] | None = None) -> Message:
        """Send, receive, and see that the answer belongs to the question. Close what it brings."""
        self.send(command, payload, fds)
        reply = self.receive()
        assert (reply.id, reply.command) == (self.number, command)
        assert reply.flags & layout.TYPE_MASK == layout.TYPE_REPLY
        return reply

    def error(self, command: int, payload: bytes = b"", fds: list[int] | None = None) -> int:
        """The errno of the answer, 0 for none."""
        with self.ask(command, payload, fds) as reply:
            failed = bool(reply.flags & layout.ERROR)
            assert failed == bool(reply.error)
            assert not (failed and reply.payload)
            return reply.error

    def is_closed(self) -> bool:
        """The server has closed the connection (waits for it; whatever was still coming is dropped)."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self.receiver.close()
        self.sock.close()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(path: Path) -> Iterator[tuple[FakeEndpoint, Server]]:
    """A served fake endpoint; at the end every client was detached once, and the socket is gone."""
    endpoint = FakeEndpoint()
    server = Server(endpoint, path)
    server.start()
    try:
        yield endpoint, server
    finally:
        server.stop()
        endpoint.close()
    assert endpoint.detached == endpoint.attached or endpoint.fault is not None
    assert not path.exists()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait, at most `seconds`, for a condition in another thread or process."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.001)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def eventfd() -> int:
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def access(offset: int, region: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<QII", offset, region, count) + data


def dma_map(iova: int, size: int, *, flags: int = 3, offset: int = 0, argsz: int = 32) -> bytes:
    return struct.pack("<IIQQQ", argsz, flags, offset, iova, size)


def dma_unmap(iova: int, size: int, *, flags: int = 0, argsz: int = 24) -> bytes:
    return struct.pack("<IIQQ", argsz, flags, iova, size)


def irq_set(flags: int, index: int, start: int, count: int, *, argsz: int = 20, data: bytes = b"") -> bytes:
    return struct.pack("<IIIII", argsz, flags, index, start, count) + data


def region_info(index: int, argsz: int = 32) -> bytes:
    return struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0)
