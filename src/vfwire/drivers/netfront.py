"""The Xen PV network driver: netfront, on a virtualization layer's socket (Linux xen-netfront.c; io/netif.h).

One queue pair, as Xen's toolstack gives by default; one buffer a frame. `feature-sg`, segmentation and,
towards us, blank checksums are not used: a frame comes whole and with its checksums, as from any other driver here.

No stock netfront witnesses the other end: it runs under Xen alone, and Xen does not run here. What stands in for that
is that layouts, states and keys are pinned to Xen's public headers (tests/layouts/test_xen_layouts.py).
"""

from pathlib import Path
from typing import Any, Self

import numpy as np

import vfwire
from vfwire.bus.xen.events import EventChannel, wait_readable
from vfwire.bus.xen.frontend import XenbusFrontend
from vfwire.bus.xen.xenbus import number
from vfwire.datapath import netfront as loops
from vfwire.datapath.port import NETFRONT, QUEUE
from vfwire.drivers.verbs import DriverInfo, Pool, burst
from vfwire.errors import ProtocolError, UsageError
from vfwire.layouts import xen_netif as keys
from vfwire.layouts.ethernet import MAC_BYTES, STANDARD_MTU
from vfwire.layouts.xen_grant import ENTRIES_PER_PAGE, RESERVED_ENTRIES
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.layouts.xenbus import XenbusState

GRANT_PAGES = 2
TX_RING_REF = RESERVED_ENTRIES
RX_RING_REF = RESERVED_ENTRIES + 1
FIRST_TX_REF = 16
FIRST_RX_REF = FIRST_TX_REF + keys.TX_RING_SIZE
MAX_HEADROOM = 1024

assert FIRST_RX_REF + keys.RX_RING_SIZE <= GRANT_PAGES * ENTRIES_PER_PAGE


def parse_mac(text: str) -> bytes:
    """Six bytes of "00:16:3e:xx:xx:xx". Raises ProtocolError for anything else."""
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != MAC_BYTES or text.lower() != mac.hex(":") or mac[0] & 1 or not any(mac):
        raise ProtocolError(f"{text!r} is not a MAC address of a station")
    return mac


class Netfront:
    """A started netfront (drivers/verbs.Driver). Its pool's buffers are pages: Xen grants nothing smaller.

    A received frame begins anywhere in its page after the pool's headroom: the layer spreads them over cache
    sets.
    """

    def __init__(self, xenbus: XenbusFrontend, pool: Pool, channels: list[EventChannel]) -> None:
        self.info = DriverInfo("netfront", vfwire.__version__, xenbus.name)
        self.mac = parse_mac(xenbus.backend.get(keys.KEY_MAC, ""))
        self.mtu = number(xenbus.backend, keys.KEY_MTU, STANDARD_MTU)
        self.pool = pool
        self.waits = 0  # times that `wait_for_event` went to sleep
        self._xenbus = xenbus
        self._tx_channel, self._rx_channel = channels
        self._stopped = False
        self._closed = False
        self._table = pool.reserve(GRANT_PAGES * PAGE_BYTES)
        self.tx, self._tx_own = self._queue(FIRST_TX_REF, keys.TX_RING_SIZE, self._tx_channel)
        self.rx, self._rx_own = self._queue(FIRST_RX_REF, keys.RX_RING_SIZE, self._rx_channel)

    @classmethod
    def open(cls, path: Path, pool: Pool, *, mac: bytes | None = None, timeout: float = 5.0) -> Self:
        """Connect to the layer that listens at `path` and start.

        `mac`: asked of the layer, which otherwise gives one.

        Raises UsageError for a pool whose buffers are not whole pages, PeerGone, PermissionDenied,
        ProtocolError when the layer refuses, and WaitTimeout after `timeout` seconds of silence.
        """
        if pool.stride % PAGE_BYTES or int(pool.words[0].headroom) > MAX_HEADROOM:
            raise UsageError(
                "a pool for netfront has whole pages as buffers, and a headroom of at most 1,024 bytes",
                "make it with Netfront.new_pool()",
            )
        xenbus = XenbusFrontend.connect(path)
        channels: list[EventChannel] = []
        try:
            wish = {} if mac is None else {keys.KEY_MAC: mac.hex(":")}
            xenbus.switch(XenbusState.INITIALISING, wish)
            xenbus.wait_backend_state(XenbusState.INIT_WAIT, timeout)
            if number(xenbus.backend, keys.KEY_RX_COPY, 0) != 1:
                raise ProtocolError("the layer does not support the copying receive path")
            channels = xenbus.allocate_channels(2, timeout)
            driver = cls(xenbus, pool, channels)
            driver._connect(timeout)
        except BaseException:
            xenbus.disconnect(0.0)
            for channel in channels:
                channel.close()
            raise
        return driver

    @staticmethod
    def new_pool(count: int = 4096, headroom: int = 0) -> Pool:
        """A pool as netfront wants it: each buffer is a page, because Xen grants pages."""
        return Pool(count, PAGE_BYTES, headroom, spread=False)

    @classmethod
    def warm_up(cls) -> None:
        """Compile what opening and closing call, or load it from the cache, before anybody waits for it."""
        with cls.new_pool(1) as pool:
            queues: Any = np.zeros(1, QUEUE).view(np.recarray)
            context = np.zeros(loops.CTX_BYTES // 8, np.int64)
            page = pool.reserve(PAGE_BYTES)
            queues[0].ring, queues[0].context = page, context.ctypes.data
            frames, words, stack = burst(1), pool.words, pool.stack
            loops.open_rings(page, 0, page, 0, page, page)
            loops.fill_receive_ring(queues, 0, words, stack)
            loops.receive_burst(queues, 0, words, stack, frames, 0)
            loops.transmit_burst(queues, 0, words, stack, frames, 0, 0)
            loops.arm_responses(queues, queues, False)
            loops.disarm_responses(queues, queues)
            loops.take_all_back(queues, 0, words, stack)
            loops.close_rings(page, 0, 0)

    def _queue(self, first_ref: int, size: int, channel: EventChannel) -> tuple[Any, list[Any]]:
        """A queue's record, and the arrays that it points into."""
        slots = np.zeros(size, np.int64)
        context = np.zeros(loops.CTX_BYTES // 8, np.int64)
        context[loops.CTX_TABLE // 8] = self._table
        context[loops.CTX_FIRST_REF // 8] = first_ref
        context[loops.CTX_ARENA // 8] = self.pool.memory.address
        context[loops.CTX_FREE_TAIL // 8] = size
        context[loops.CTX_IDS // 8 :][:size] = np.arange(size)
        queue: Any = np.zeros(1, QUEUE).view(np.recarray)
        queue[0].kind = NETFRONT
        queue[0].ring = self.pool.reserve(PAGE_BYTES)
        queue[0].size = size
        queue[0].slots = slots.ctypes.data
        queue[0].context = context.ctypes.data
        queue[0].event = channel.notify_fd
        return queue, [slots, context]

    def _connect(self, timeout: float) -> None:
        memory = self.pool.memory
        tx_ring, rx_ring = int(self.tx[0].ring), int(self.rx[0].ring)
        loops.open_rings(tx_ring, TX_RING_REF, rx_ring, RX_RING_REF, self._table, memory.address)
        loops.fill_receive_ring(self.rx, 0, self.pool.words, self.pool.stack)
        self._xenbus.share(memory, (self._table - memory.address) // PAGE_BYTES, GRANT_PAGES)
        own = {
            keys.KEY_TX_RING_REF: TX_RING_REF,
            keys.KEY_RX_RING_REF: RX_RING_REF,
            keys.KEY_EVENT_CHANNEL_TX: self._tx_channel.port,
            keys.KEY_EVENT_CHANNEL_RX: self._rx_channel.port,
            keys.KEY_NUM_QUEUES: 1,
            keys.KEY_REQUEST_RX_COPY: 1,
            keys.KEY_RX_NOTIFY: 1,
            keys.KEY_SG: 0,
            keys.KEY_NO_CSUM_OFFLOAD: 1,
            keys.KEY_XDP_HEADROOM: int(self.pool.words[0].headroom),
        }
        self._xenbus.switch(XenbusState.INITIALISED, {key: str(value) for key, value in own.items()})
        self._xenbus.wait_backend_state(XenbusState.CONNECTED, timeout)
        self._xenbus.switch(XenbusState.CONNECTED)
        loops.disarm_responses(self.rx, self.tx)

    def receive(self, frames: Any, limit: int = 0, queue: int = 0) -> int:
        """See drivers/verbs.Driver. A layer that is gone looks like silence: `check` tells."""
        limit = min(limit, len(frames)) if limit else len(frames)
        return int(loops.receive_burst(self.rx, queue, self.pool.words, self.pool.stack, frames, limit))

    def transmit(self, frames: Any, count: int, queue: int = 0) -> int:
        """See drivers/verbs.Driver."""
        return int(loops.transmit_burst(self.tx, queue, self.pool.words, self.pool.stack, frames, 0, count))

    def wait_for_event(self, timeout: float, *, sent: bool = False) -> bool:
        """Sleep until a frame has come (or, with `sent`, one has gone), at most `timeout` seconds; True when
        so.

        Before it sleeps it asks for an event and looks once more, so none is missed. Raises PeerGone when the
        layer goes away meanwhile.
        """
        self._xenbus.check()
        for channel in (self._rx_channel, self._tx_channel):
            channel.drain()
        if loops.arm_responses(self.rx, self.tx, sent) == 0:
            self.waits += 1
            fds = [self._rx_channel.wait_fd, self._tx_channel.wait_fd, self._xenbus.fileno()]
            wait_readable(fds, int(timeout * 1e9))
        there = bool(loops.arm_responses(self.rx, self.tx, sent))
        loops.disarm_responses(self.rx, self.tx)
        if not there:
            self._xenbus.check()
        return there

    @property
    def event_fds(self) -> list[int]:
        """What to poll for reading while armed: frames, and the layer's messages."""
        return [self._rx_channel.wait_fd, self._xenbus.fileno()]

    def arm(self) -> bool:
        """See drivers.verbs.WakingDriver."""
        self._rx_channel.drain()
        return bool(loops.arm_responses(self.rx, self.tx, False))

    def disarm(self) -> None:
        """See drivers.verbs.WakingDriver."""
        loops.disarm_responses(self.rx, self.tx)

    def link_up(self) -> bool:
        """Up for as long as the layer is there."""
        return not self._stopped

    def must_restart(self) -> bool:
        """Never: a layer that wants something else closes the connection."""
        return False

    def restart(self) -> None:
        """See drivers.verbs.WakingDriver. Raises UsageError: open a new one."""
        raise UsageError("a netfront does not restart", "open a new one")

    def listen(self, groups: list[bytes]) -> None:
        """Nothing to do: a bridge floods multicast."""

    def check(self) -> None:
        """Raises PeerGone when the layer went away or closes on us, with its reason if it gave one."""
        self._xenbus.check()

    def stats(self) -> dict[str, int]:
        rx, tx = self.rx[0], self.tx[0]
        return {
            "rx_packets": int(rx.frames),
            "rx_bytes": int(rx.bytes),
            "rx_errors": int(rx.errors),
            "tx_packets": int(tx.frames),
            "tx_bytes": int(tx.bytes),
            "tx_errors": int(tx.errors),
            "tx_ring_full": int(tx.full),
            "notifications_sent": int(rx.notified) + int(tx.notified),
            "event_waits": self.waits,
            "pool_empty": int(self.pool.words[0].failed),
        }

    def stop(self) -> None:
        """Leave the layer and take every granted buffer back to the pool.

        Statistics stay. Safe to call twice.
        """
        if self._stopped:
            return
        self._stopped = True
        self._xenbus.disconnect(2.0)
        for queues in (self.rx, self.tx):
            loops.take_all_back(queues, 0, self.pool.words, self.pool.stack)
        loops.close_rings(self._table, TX_RING_REF, RX_RING_REF)

    def close(self) -> None:
        """Stop, and close what is ours; the pool stays its owner's. Safe to call twice."""
        self.stop()
        if not self._closed:
            self._closed = True
            self._tx_channel.close()
            self._rx_channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
