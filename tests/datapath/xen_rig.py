"""A virtualization layer's arrays with netfronts on it, in one process and without sockets; tests drive each
step.
"""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from vfwire.bus.xen.events import EventChannel
from vfwire.datapath import netback, netback_vif
from vfwire.datapath import netfront as loops
from vfwire.datapath.netback_state import DROP_CAUSES, FREE, RUNNING, Host, count_vifs, new_host
from vfwire.drivers.netfront import GRANT_PAGES, RX_RING_REF, TX_RING_REF, Netfront
from vfwire.drivers.verbs import Pool, burst

ETHERTYPE = b"\x88\xb5"  # IEEE 802 local experimental
MACS = [bytes((0, 0x16, 0x3E, 0, 0, number)) for number in range(1, 33)]
BROADCAST = bytes([255] * 6)


class TxRequest(ctypes.Structure):
    _fields_ = (
        ("gref", ctypes.c_uint32),
        ("offset", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("id", ctypes.c_uint16),
        ("size", ctypes.c_uint16),
    )


class RxResponse(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint16),
        ("offset", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("status", ctypes.c_int16),
    )


class TxResponse(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint16), ("status", ctypes.c_int16))


class Ring:
    """A shared ring page, as the other side of it could write it."""

    def __init__(self, address: int, entry_bytes: int) -> None:
        self._address = address
        self._entry_bytes = entry_bytes
        self._words = (ctypes.c_uint32 * 4).from_address(address)

    req_prod = property(lambda self: self._words[0], lambda self, value: self._set(0, value))
    req_event = property(lambda self: self._words[1], lambda self, value: self._set(1, value))
    rsp_prod = property(lambda self: self._words[2], lambda self, value: self._set(2, value))
    rsp_event = property(lambda self: self._words[3], lambda self, value: self._set(3, value))

    def _set(self, index: int, value: int) -> None:
        self._words[index] = value & 0xFFFFFFFF

    def entry(self, index: int, structure: Any) -> Any:
        return structure.from_address(self._address + 64 + (index & 255) * self._entry_bytes)


class Front:
    """A netfront whose backend is whoever the test wants."""

    def __init__(self, number: int, buffers: int = 1024, headroom: int = 0) -> None:
        self.pool = Netfront.new_pool(buffers, headroom)
        self.channels = [EventChannel.allocate(1), EventChannel.allocate(2)]
        xenbus: Any = SimpleNamespace(name="rig", backend={"mac": MACS[number].hex(":")})
        self.driver = Netfront(xenbus, self.pool, self.channels)
        self.table = self.driver._table
        self.grants = (ctypes.c_uint64 * (GRANT_PAGES * 512)).from_address(self.table)
        self.tx = Ring(int(self.driver.tx[0].ring), 12)
        self.rx = Ring(int(self.driver.rx[0].ring), 8)
        memory = self.pool.memory.address
        rings = (int(self.driver.tx[0].ring), TX_RING_REF, int(self.driver.rx[0].ring), RX_RING_REF)
        loops.open_rings(*rings, self.table, memory)

    def start(self) -> None:
        loops.fill_receive_ring(self.driver.rx, 0, self.pool.words, self.pool.stack)
        loops.disarm_responses(self.driver.rx, self.driver.tx)

    @property
    def mac(self) -> bytes:
        return self.driver.mac

    @property
    def free(self) -> int:
        return int(self.pool.words[0].free)

    def buffer(self, data: bytes) -> int:
        """Take a buffer out of the pool and fill it."""
        words = self.pool.words[0]
        words.free -= 1
        address = int(self.pool.stack[words.free]) + int(words.headroom)
        self.pool.view(address, len(data))[:] = np.frombuffer(data, np.uint8)
        return address

    def transmit(self, frames: list[bytes], flags: int = 0) -> int:
        records = burst(max(len(frames), 1))
        for i, data in enumerate(frames):
            records[i].address = self.buffer(data)
            records[i].length = len(data)
            records[i].flags = flags
        taken = self.driver.transmit(records, len(frames))
        for i in range(taken, len(frames)):
            self.give(int(records[i].address))
        return taken

    def receive(self, limit: int = 256) -> list[bytes]:
        records = burst(limit)
        count = self.driver.receive(records)
        found = []
        for record in records[:count]:
            found.append(self.pool.view(int(record.address), int(record.length)).tobytes())
            self.give(int(record.address))
        return found

    def give(self, address: int) -> None:
        words = self.pool.words[0]
        offset = address - self.pool.memory.address
        self.pool.stack[words.free] = address - offset % 4096
        words.free += 1

    def frame(self, to: bytes, payload: bytes = b"", size: int = 60) -> bytes:
        return (to + self.mac + ETHERTYPE + payload).ljust(size, b"\0")

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
        self.pool.close()


class Rig:
    """A layer with `count` netfronts as its vifs.

    `uplink`: a Front of another rig, whose driver is the uplink's.
    """

    def __init__(self, count: int, uplink: Front | None = None, headroom: int = 0) -> None:
        self.own = Pool(2048, 2048) if uplink is None else uplink.pool
        self._uplink = uplink
        rx, tx = (None, None) if uplink is None else (uplink.driver.rx, uplink.driver.tx)
        self.host: Host = new_host(rx, tx, self.own.words, self.own.stack)
        self.layer = self.host.layer[0]
        self.layer.max_frame = 1518
        self.layer.learning = 1
        self.fronts = [self.attach(Front(number, headroom=headroom)) for number in range(count)]

    def attach(self, front: Front, number: int | None = None) -> Front:
        v = int(self.layer.vifs) if number is None else number
        domain, vif = self.host.domains[v], self.host.vifs[v]
        domain.arena = front.pool.memory.address
        domain.pages = front.pool.memory.size // 4096
        domain.table = front.table
        domain.entries = len(front.grants)
        domain.grantee = 0
        assert netback_vif.map_rings(self.host.layer, v, TX_RING_REF, RX_RING_REF) == 0
        vif.tx_event, vif.rx_event = front.channels[0].wait_fd, front.channels[1].wait_fd
        vif.headroom = int(front.pool.words[0].headroom)
        vif.state = RUNNING
        count_vifs(self.host)
        front.start()
        return front

    def detach(self, number: int) -> None:
        host = self.host
        netback_vif.detach_vif(host.layer, number, TX_RING_REF, RX_RING_REF)
        count_vifs(host)

    def round(self, times: int = 1) -> int:
        """Let the layer go round; returns the code of the last."""
        code = 0
        for _ in range(times):
            host = self.host
            arrays = (host.layer, host.pool, host.stack, host.uplink_rx, host.uplink_tx)
            code = netback.run_slice(*arrays, host.arrived, host.staged, 0, 0)
        return int(code)

    def settle(self) -> None:
        """Go round until nothing moves any more."""
        for _ in range(100):
            if self.round() != netback.AGAIN:
                return
        raise AssertionError("the layer does not come to rest")

    def drops(self, port: int | None = None) -> dict[str, int]:
        """By cause; of one port or of all."""
        counts = self.host.drops.sum(axis=0) if port is None else self.host.drops[port]
        return {cause: int(counts[i]) for i, cause in enumerate(DROP_CAUSES) if counts[i]}

    def learn_all(self) -> None:
        """Every front is heard once, and everybody has received that."""
        for front in self.fronts:
            assert front.transmit([front.frame(BROADCAST)]) == 1
        self.settle()
        for front in self.fronts:
            front.receive()
            front.transmit([])
        self.host.drops[:] = 0

    def own_buffers(self) -> int:
        """Buffers of the layer's own pool that are free or wait in a backlog."""
        waiting = sum(
            int(vif.backlog_tail) - int(vif.backlog_head) for vif in self.host.vifs if vif.state != FREE
        )
        return int(self.own.words[0].free) + waiting

    def close(self) -> None:
        for front in self.fronts:
            front.close()
        if self._uplink is None:
            self.own.close()
