"""A guest that drives an ENA's control side by hand: registers, admin queue, events, in raw structures.

Its memory is one memfd, mapped at MEMORY; each thing has its page there.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from vfwire.devices.card import Card, functions_of
from vfwire.devices.ena import VirtualFunctionEna
from vfwire.devices.engine import Engine
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers as regs
from vfwire.layouts import pci
from vfwire.memory.shared import SharedMemory
from vfwire.pci.endpoint import RegionIndex

MEMORY = 0x1_0000_0000  # above 4 GiB, so that high halves matter
MEMORY_BYTES = 0x40_0000
AQ, ACQ, AENQ, RESPONSE, BUFFER = (MEMORY + page * 0x1000 for page in range(5))
RINGS = MEMORY + 0x10_0000
DEPTH = 32
EVENT_DEPTH = 16
HOST, DEVICE = 1, 3  # placement of a submission queue
TX, RX = 1, 2
GROUPS = 0b11111011  # all but WARNING


@contextmanager
def ena_card(vfs: int = 1, **options: object) -> Iterator[Card]:
    """A card of ENAs in an engine that is not started."""
    engine = Engine([functions_of(vfs)])
    try:
        card = Card(engine, 0, "card0", vfs, model="ena", **options)  # type: ignore[arg-type]
        try:
            yield card
        finally:
            card.close()
    finally:
        engine.close()


class EnaCommands:
    """What a driver says and hears, wherever its device is: by `write` and `read`, in `memory` at MEMORY."""

    memory: SharedMemory
    submitted = completed = events = 0

    def write(self, offset: int, value: int) -> None:
        raise NotImplementedError

    def read(self, offset: int) -> int:
        raise NotImplementedError

    def poke(self, iova: int, data: bytes) -> None:
        self.memory.array[iova - MEMORY : iova - MEMORY + len(data)] = np.frombuffer(data, np.uint8)

    def peek(self, iova: int, size: int) -> bytes:
        return self.memory.array[iova - MEMORY : iova - MEMORY + size].tobytes()

    def read_by_dma(self, offset: int, request: int = 0x1234) -> int:
        """A readless read; -1 where no answer came."""
        self.poke(RESPONSE, struct.pack("<HHI", request ^ 0xFFFF, 0, 0))
        self.write(regs.MMIO_RESP_LO, RESPONSE & 0xFFFFFFFF)
        self.write(regs.MMIO_RESP_HI, RESPONSE >> 32)
        self.write(regs.MMIO_REG_READ, request | offset << 16)
        found, register, value = struct.unpack("<HHI", self.peek(RESPONSE, 8))
        return int(value) if (found, register) == (request, offset) else -1

    # --- Admin queue ---------------------------------------------------------------------------------------

    def reset(self, reason: int = 0) -> None:
        self.write(regs.DEV_CTL, 1 | (reason & 0xF) << 28 | (reason >> 4) << 24)
        self.write(regs.DEV_CTL, 0)
        self.submitted = self.completed = self.events = 0

    def bring_up(self, groups: int = GROUPS) -> None:
        """Reset, admin queue, events, as the Linux driver's probe does it."""
        self.reset()
        self.set_up_queues()
        if groups:
            assert self.set_feature(admin.AENQ_CONFIG, struct.pack("<II", 0, groups))[0] == 0
        self.write(regs.AENQ_HEAD_DB, EVENT_DEPTH)

    def set_up_queues(self, depth: int = DEPTH, events: int = EVENT_DEPTH) -> None:
        for low, high, base in (
            (regs.AQ_BASE_LO, regs.AQ_BASE_HI, AQ),
            (regs.ACQ_BASE_LO, regs.ACQ_BASE_HI, ACQ),
            (regs.AENQ_BASE_LO, regs.AENQ_BASE_HI, AENQ),
        ):
            self.write(low, base & 0xFFFFFFFF)
            self.write(high, base >> 32)
            self.poke(base, bytes(0x1000))
        self.write(regs.AQ_CAPS, 64 << 16 | depth)
        self.write(regs.ACQ_CAPS, 64 << 16 | depth)
        self.write(regs.AENQ_CAPS, 64 << 16 | events)

    def submit(self, opcode: int, body: bytes = b"", flags: int = 0, phase: int | None = None) -> int:
        """Put a command into the queue, without its doorbell. Returns its ID."""
        place, lap = self.submitted % DEPTH, self.submitted // DEPTH
        right = 1 - lap % 2 if phase is None else phase
        number = self.submitted & 0xFFF
        entry = struct.pack("<HBB", number, opcode, flags | right) + body
        self.poke(AQ + 64 * place, entry.ljust(64, b"\0"))
        self.submitted += 1
        return number

    def completion(self) -> tuple[int, int, bytes] | None:
        """(command ID, status, answer) of the next completion, None while there is none."""
        place, lap = self.completed % DEPTH, self.completed // DEPTH
        entry = self.peek(ACQ + 64 * place, 64)
        number, status, flags = struct.unpack_from("<HBB", entry)
        if flags & 1 != 1 - lap % 2:
            return None
        self.completed += 1
        return number, status, entry[8:]

    def command(self, opcode: int, body: bytes = b"", flags: int = 0) -> tuple[int, bytes]:
        """(status, answer) of one command."""
        number = self.submit(opcode, body, flags)
        self.write(regs.AQ_DB, self.submitted & 0xFFFF)
        answer = self.completion()
        assert answer is not None, "no completion"
        assert answer[0] == number
        return answer[1], answer[2]

    def get_feature(
        self, feature: int, version: int = 0, buffer: int = 0, address: int = BUFFER
    ) -> tuple[int, bytes]:
        body = struct.pack(
            "<IIHHBBBB", buffer, address & 0xFFFFFFFF, address >> 32, 0, 0, feature, version, 0
        )
        return self.command(admin.GET_FEATURE, body, 4 if buffer else 0)

    def set_feature(
        self, feature: int, data: bytes, buffer: bytes = b"", address: int = BUFFER
    ) -> tuple[int, bytes]:
        if buffer:
            self.poke(address, buffer)
        head = struct.pack("<IIHHBBBB", len(buffer), address & 0xFFFFFFFF, address >> 32, 0, 0, feature, 0, 0)
        return self.command(admin.SET_FEATURE, head + data, 4 if buffer else 0)

    # --- Queues --------------------------------------------------------------------------------------------

    def create_cq(
        self, words: int, *, depth: int = 256, vector: int = 1, address: int = RINGS, interrupt: int = 0x20
    ) -> tuple[int, bytes]:
        body = struct.pack(
            "<BBHIIHH", interrupt, words, depth, vector, address & 0xFFFFFFFF, address >> 32, 0
        )
        return self.command(admin.CREATE_CQ, body)

    def create_sq(
        self,
        direction: int,
        cq: int,
        *,
        depth: int = 256,
        placement: int = HOST,
        address: int = RINGS + 0x8000,
        policy: int = 0,
        contiguous: int = 1,
    ) -> tuple[int, bytes]:
        body = struct.pack(
            "<BBBBHHIHHIHH",
            *(direction << 5, 0, placement | policy << 4, contiguous, cq, depth),
            *(address & 0xFFFFFFFF, address >> 32, 0, 0, 0, 0),
        )
        return self.command(admin.CREATE_SQ, body)

    def queue(
        self, direction: int, number: int = 0, *, placement: int = HOST, vector: int = 1
    ) -> tuple[int, int]:
        """A queue with its completion queue in a place of its own: (index of the SQ, of the CQ)."""
        place = RINGS + (2 * number + direction - 1) * 0x10000
        status, answer = self.create_cq(2 if direction == TX else 4, vector=vector, address=place)
        assert status == 0
        cq = struct.unpack_from("<H", answer)[0]
        status, answer = self.create_sq(direction, cq, placement=placement, address=place + 0x8000)
        assert status == 0
        return struct.unpack_from("<H", answer)[0], cq

    def destroy_sq(self, direction: int, index: int) -> int:
        return self.command(admin.DESTROY_SQ, struct.pack("<HBB", index, direction << 5, 0))[0]

    def destroy_cq(self, index: int) -> int:
        return self.command(admin.DESTROY_CQ, struct.pack("<HH", index, 0))[0]

    # --- Events --------------------------------------------------------------------------------------------

    def event(self) -> tuple[int, int, bytes] | None:
        """(group, syndrome, its own part) of the next event, None while there is none. Gives its room back."""
        place, lap = self.events % EVENT_DEPTH, self.events // EVENT_DEPTH
        entry = self.peek(AENQ + 64 * place, 64)
        group, syndrome, flags = struct.unpack_from("<HHB", entry)
        if flags & 1 != 1 - lap % 2:
            return None
        self.events += 1
        self.write(regs.AENQ_HEAD_DB, (self.events + EVENT_DEPTH) & 0xFFFF)
        return group, syndrome, entry[16:]


class EnaGuest(EnaCommands):
    """One driver. Its function must not be used by another one."""

    def __init__(self, function: object) -> None:
        assert isinstance(function, VirtualFunctionEna)
        self.function = function
        self.state = function.port.engine.state
        self.number = function.port.function
        self.record = self.state.functions[self.number]
        function.attach()
        self.memory = SharedMemory.create("guest", MEMORY_BYTES)
        self.map_memory()
        self.bus_master()

    def map_memory(self) -> None:
        self.function.dma_map(
            MEMORY,
            MEMORY_BYTES,
            SharedMemory.adopt(os.dup(self.memory.fd), 0, MEMORY_BYTES),
            readable=True,
            writable=True,
        )

    def bus_master(self, on: bool = True) -> None:
        value = pci.COMMAND_MASTER | pci.COMMAND_MEMORY if on else 0
        self.function.region_write(RegionIndex.CONFIG, pci.COMMAND, value.to_bytes(2, "little"))

    def close(self) -> None:
        self.function.detach()
        self.memory.close()

    def write(self, offset: int, value: int) -> None:
        self.function.region_write(RegionIndex.BAR0, offset, value.to_bytes(4, "little"))

    def read(self, offset: int) -> int:
        return int.from_bytes(self.function.region_read(RegionIndex.BAR0, offset, 4), "little")


@contextmanager
def ena_guest(**options: object) -> Iterator[EnaGuest]:
    """A guest that has brought its ENA up, on a card of its own."""
    with ena_card(**options) as card:
        guest = EnaGuest(card.vfs[0])
        try:
            guest.bring_up()
            yield guest
        finally:
            guest.close()
