"""Cloud Hypervisor's client, replayed: the messages that it sends, in its order, read as strictly as it reads answers.

It needs KVM and is not run here. Order and sizes are typed from rust-vmm's vfio-user crate (`Client` in its
vfio-user/src/lib.rs) and from Cloud Hypervisor's pci/src/vfio_user.rs. It reads each answer with the size that it
expects, so that one byte more or less would shift all that follows.
"""

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.device_kit import card_of
from vfwire.bus.vfio_user.server import Server
from vfwire.devices.ixgbevf import VirtualFunction82599
from vfwire.layouts import ixgbevf as regs
from vfwire.memory.shared import SharedMemory

# Numbers as the crate and the kernel's linux/vfio.h have them, not as we do.
VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, GET_IRQ_INFO, SET_IRQS, READ, WRITE, RESET = (
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    10,
    13,
)
FLAG_PCI, FLAG_RESET, FLAG_MMAP, FLAG_CAPS = 2, 1, 4, 8
CONFIG, MSIX = 7, 2
EVENTFD_TRIGGER, NONE_TRIGGER = 4 | 32, 1 | 32
FDS_AT_ONCE = 16


class CloudHypervisorClient:
    """`Client` of the crate: one message, one answer of exactly the size that it has a structure for."""

    def __init__(self, path: Path) -> None:
        self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stream.settimeout(10)
        self.stream.connect(str(path))
        self.number = 0

    def ask(
        self, command: int, payload: bytes, answer: int, fds: list[int] | None = None
    ) -> tuple[bytes, list[int]]:
        """Send; read a header and `answer` bytes, as with read_exact. Gives them with what descriptors came."""
        header = struct.pack("<HHIII", self.number, command, 16 + len(payload), 0, 0)
        socket.send_fds(self.stream, [header + payload], fds or [])
        data, received, _, _ = socket.recv_fds(self.stream, 16 + answer, FDS_AT_ONCE)
        while len(data) < 16 + answer:
            more = self.stream.recv(16 + answer - len(data))
            assert more, "the server closed the connection"
            data += more
        number, got, size, flags, error = struct.unpack_from("<HHIII", data)
        assert (number, got, flags, error) == (self.number, command, 1, 0)
        self.size = size
        self.number += 1
        return data[16:], list(received)

    def negotiate(self) -> dict[str, object]:
        offered = {
            "capabilities": {"max_msg_fds": 1, "max_data_xfer_size": 1 << 20, "migration": {"pgsize": 4096}}
        }
        text = json.dumps(offered, separators=(",", ":")).encode() + b"\0"
        answer, _ = self.ask(VERSION, struct.pack("<HH", 0, 1) + text, 4)
        rest = self.stream.recv(self.size - 20, socket.MSG_WAITALL)
        assert struct.unpack("<HH", answer)[0] == 0
        capabilities: dict[str, object] = json.loads(rest[:-1])["capabilities"]
        return capabilities

    def regions(self) -> list[tuple[int, int, int | None, list[tuple[int, int]]]]:
        """Flags, size, descriptor and sparse areas of each."""
        answer, _ = self.ask(GET_INFO, struct.pack("<IIII", 32, 0, 0, 0), 16)  # argsz counts the header, too
        _, flags, count, _irqs = struct.unpack("<IIII", answer)
        assert flags & FLAG_PCI
        self.resettable = flags & FLAG_RESET != FLAG_RESET  # so it is written in the crate
        return [self.region(index) for index in range(count)]

    def region(self, index: int) -> tuple[int, int, int | None, list[tuple[int, int]]]:
        answer, fds = self.ask(GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0), 32)
        argsz, flags, _, offset, size, _ = struct.unpack("<IIIIQQ", answer)
        assert self.size == 48
        areas: list[tuple[int, int]] = []
        if argsz > 32:
            for fd in fds:
                os.close(fd)
            answer, fds = self.ask(GET_REGION_INFO, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0), 32)
            argsz, flags, _, offset, size, _ = struct.unpack("<IIIIQQ", answer)
            assert self.size - 48 == argsz - 32  # asserted in the crate: it would panic
            capabilities = self.stream.recv(argsz - 32, socket.MSG_WAITALL)
            assert flags & FLAG_CAPS and offset == 32
            kind, _version, following, number, _reserved = struct.unpack_from("<HHIII", capabilities)
            assert (kind, following) == (1, 0)
            areas = [struct.unpack_from("<QQ", capabilities, 16 + 16 * area) for area in range(number)]  # type: ignore[misc]
        return flags, size, fds[0] if fds else None, areas

    def read(self, region: int, offset: int, count: int) -> int:
        answer, _ = self.ask(READ, struct.pack("<QII", offset, region, count), 16 + count)
        return int.from_bytes(answer[16:], "little")

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.ask(WRITE, struct.pack("<QII", offset, region, len(data)) + data, 16)

    def irqs(self, index: int) -> int:
        answer, _ = self.ask(GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0), 16)
        return int(struct.unpack("<IIII", answer)[3])

    def set_irqs(self, flags: int, start: int, count: int, fds: list[int]) -> None:
        self.ask(SET_IRQS, struct.pack("<IIIII", 20, flags, MSIX, start, count), 0, fds)


@pytest.fixture
def function(tmp_path: Path) -> Iterator[VirtualFunction82599]:
    with card_of(1) as card:
        server = Server(card.functions[0], tmp_path / "vf0")
        server.start()
        try:
            yield card.functions[0]  # type: ignore[misc]
        finally:
            server.stop()


def test_its_memory_is_refused_without_harm(tmp_path: Path, function: VirtualFunction82599) -> None:
    """It makes guest memory by memfd_create without MFD_ALLOW_SEALING (vmm/src/memory_manager.rs), so that it could
    shrink under the card: the map is refused with an errno, which its client does not look at."""
    client = CloudHypervisorClient(tmp_path / "vf0")
    unsealed = os.memfd_create("ch_ram", 0)
    try:
        os.ftruncate(unsealed, 1 << 20)
        client.negotiate()
        header = struct.pack("<HHIII", 1, DMA_MAP, 48, 0, 0)
        socket.send_fds(client.stream, [header + struct.pack("<IIQQQ", 32, 3, 0, 0, 1 << 20)], [unsealed])
        *_, flags, error = struct.unpack("<HHIII", client.stream.recv(16, socket.MSG_WAITALL))
        assert flags == 1 | 32 and error
        client.number = 2
        assert client.read(CONFIG, 0, 4) == 0x10ED8086  # the function goes on
    finally:
        os.close(unsealed)
        client.stream.close()


def capability(client: CloudHypervisorClient, wanted: int) -> int:
    """Where the configuration space has a capability: its list is walked a byte at a time, as the client does."""
    at = client.read(CONFIG, 0x34, 1)
    while at:
        if client.read(CONFIG, at, 1) == wanted:
            return at
        at = client.read(CONFIG, at + 1, 1)
    raise AssertionError(f"no capability {wanted:#x}")


def test_its_messages_in_its_order(tmp_path: Path, function: VirtualFunction82599) -> None:
    client = CloudHypervisorClient(tmp_path / "vf0")
    eventfds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(regs.MSIX_VECTORS)]
    descriptors: list[int] = []
    try:
        assert isinstance(client.negotiate().get("max_msg_fds", 1), int)
        regions = client.regions()
        descriptors = [fd for _, _, fd, _ in regions if fd is not None]
        if client.resettable:
            client.ask(RESET, b"", 0)

        # parse_capabilities: BARs are sized by us, MSI-X is found by the device's own registers.
        msix = capability(client, 0x11)
        vectors = (client.read(CONFIG, msix + 2, 2) & 0x7FF) + 1
        assert vectors == client.irqs(MSIX) == regs.MSIX_VECTORS

        # map_mmio_regions: every sparse area of what can be mapped.
        flags, size, fd, areas = regions[0]
        assert flags & FLAG_MMAP and fd is not None and areas
        assert all(offset + length <= size for offset, length in areas)

        # dma_map for each region of guest memory, with its descriptor.
        with SharedMemory.create("guest", 1 << 20) as memory:
            client.ask(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0, 1 << 20), 0, [memory.fd])
            # The guest turns on bus mastering and MSI-X; enable_irq hands over all vectors, 16 at a time.
            client.write(CONFIG, 4, struct.pack("<H", 6))
            for start in range(0, vectors, FDS_AT_ONCE):
                block = eventfds[start : start + FDS_AT_ONCE]
                client.set_irqs(EVENTFD_TRIGGER, start, len(block), block)
            assert client.read(0, regs.VFSTATUS, 4) != 0xFFFFFFFF
            client.set_irqs(NONE_TRIGGER, 0, 0, [])
            answer, _ = client.ask(DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0, 1 << 20), 24)
            assert struct.unpack("<IIQQ", answer)[3] == 1 << 20
        client.stream.shutdown(socket.SHUT_RDWR)
    finally:
        client.stream.close()
        for descriptor in (*eventfds, *descriptors):
            os.close(descriptor)
