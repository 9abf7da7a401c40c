"""Two ENAs by hand, to read beside ena_{regs,admin,eth_io}_defs.h: reset, admin queue, queues, one frame across.

python examples/ena_by_hand.py SOCKET SOCKET
"""

import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.memory.shared import SharedMemory

BASE = 0x1000_0000  # I/O address of our memory; one page each for:
AQ, ACQ, RESPONSE, TX, TX_DONE, RX, RX_DONE, OUT, IN = (page * 4096 for page in range(9))
DEPTH, PHASE, FIRST_LAST_COMPLETE = 32, 1 << 24, 7 << 26


def wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"


class Ena:
    def __init__(self, socket: str) -> None:
        self.function, self.memory = VfioUserFunction(Path(socket)), SharedMemory.create("ena", 16 * 4096)
        self.bytes, self.commands, self.reads = self.memory.array, 0, 0
        self.function.config_write(4, self.function.config_read(4, 2) | 6, 2)  # memory space, bus mastering
        self.function.dma_map(self.memory, BASE)
        self.address(0x60, RESPONSE)  # MMIO_RESP: where values of registers shall go
        self.function.write32(0, 0x54, 1)  # DEV_CTL: reset, reason 0
        self.address(0x60, RESPONSE)
        wait(lambda: self.read(0x58) & 8, "reset")  # DEV_STS: RESET_IN_PROGRESS
        self.function.write32(0, 0x54, 0)
        wait(lambda: not self.read(0x58) & 8, "end of the reset")
        for address, caps, page in ((0x10, 0x18, AQ), (0x20, 0x28, ACQ)):  # admin queue, its completions
            self.address(address, page)
            self.function.write32(0, caps, 64 << 16 | DEPTH)
        self.mac = self.admin(8, bytes(12) + b"\0\1\0\0")[24:30]  # GET_FEATURE DEVICE_ATTRIBUTES
        self.tx_doorbell, self.rx_doorbell = self.queue(1, 2, TX, TX_DONE), self.queue(2, 4, RX, RX_DONE)
        self.put(RX, struct.pack("<HBBHHIHH", 2048, 0, 0x1D, 0, 0, BASE + IN, 0, 0))  # one buffer, ID 0
        self.function.write32(0, self.rx_doorbell, 1)

    def address(self, low: int, page: int) -> None:
        self.function.write32(0, low, BASE + page)
        self.function.write32(0, low + 4, 0)

    def put(self, at: int, data: bytes) -> None:
        self.bytes[at : at + len(data)] = bytearray(data)

    def read(self, register: int) -> int:
        self.reads += 1
        self.function.write32(0, 0x5C, register << 16 | self.reads)  # MMIO_REG_READ
        wait(lambda: self.bytes[RESPONSE : RESPONSE + 2].view("<u2")[0] == self.reads, "answer")
        return int(self.bytes[RESPONSE + 4 : RESPONSE + 8].view("<u4")[0])

    def admin(self, opcode: int, body: bytes) -> bytes:
        at, self.commands = self.commands * 64, self.commands + 1
        self.put(AQ + at, struct.pack("<HBB", self.commands, opcode, 1) + body)
        self.function.write32(0, 0x2C, self.commands)  # AQ_DB
        wait(lambda: self.bytes[ACQ + at + 3] & 1, "completion")
        assert self.bytes[ACQ + at + 2] == 0, f"command {opcode}: status {self.bytes[ACQ + at + 2]}"
        return self.bytes[ACQ + at + 8 : ACQ + at + 64].tobytes()

    def queue(self, way: int, words: int, ring: int, done: int) -> int:
        answer = self.admin(3, struct.pack("<BBHIIHH", 0, words, DEPTH, 0, BASE + done, 0, 0))  # CREATE_CQ
        number = int.from_bytes(answer[:2], "little")
        body = struct.pack("<BBBBHHIHH", way << 5, 0, 1, 1, number, DEPTH, BASE + ring, 0, 0)
        return int.from_bytes(self.admin(1, body)[4:8], "little")  # CREATE_SQ: where its doorbell is


one, two = Ena(sys.argv[1]), Ena(sys.argv[2])
one.put(OUT, two.mac + one.mac + b"\x88\xb5" + b"hello".ljust(46, b"."))
one.put(TX, struct.pack("<IIII", 60 | PHASE | FIRST_LAST_COMPLETE, 0, BASE + OUT, 0))
one.function.write32(0, one.tx_doorbell, 1)
wait(lambda: one.bytes[TX_DONE + 3] & two.bytes[RX_DONE + 3] & 1, "frame")
print(f"{two.mac.hex(':')} received: {two.bytes[IN + 14 : IN + 60].tobytes().decode()}")
