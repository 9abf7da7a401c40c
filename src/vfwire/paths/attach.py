"""A function on a network interface: a driver and a tap, and who wakes whom.

While frames come the loop polls both sides. After SPIN_NS without one it sleeps in poll(2) on the tap, the
driver's events (an interrupt of the VF, armed by one trapped write; an event channel of Xen's) and its own stop: an
idle interface costs no core, but a look at the link and at the multicast groups each second.
"""

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.datapath.port import IXGBEVF, POOL, QUEUE
from vfwire.datapath.tap import BURST, FAILED, IDLE, PIECES, TAP, drop_staged, run_tap
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.netfront import Netfront
from vfwire.drivers.table import DRIVERS, driver_of
from vfwire.drivers.verbs import Pool, WakingDriver, burst
from vfwire.errors import UsageError, VfwireError
from vfwire.layouts.ethernet import ETHERNET_BYTES, FCS_BYTES, VLAN_BYTES
from vfwire.layouts.tap import VNET_BYTES, VNET_DATA_VALID
from vfwire.memory.compiled import is_cached
from vfwire.memory.files import IOVEC_BYTES
from vfwire.paths.tap import Tap

SLICE_NS = 10_000_000  # how long signals and the link may wait for Python while there is traffic
SPIN_NS = 50_000  # how long an idle loop looks before it sleeps, giving its core away meanwhile
_LOOK_SECONDS = 1.0  # between two looks at the link, the multicast groups and the peer
_FULL_SECONDS = 0.001  # between two tries while the driver's ring is full
_LARGEST = 65_535 + ETHERNET_BYTES + 2 * VLAN_BYTES  # what the kernel hands over to be segmented
_STANDARD_BUFFER, _KIB = 2048, 1024
_SMALLEST_MTU = 68  # what IPv4 asks for (RFC 791)
# Long rings: a system call a frame is slower than a card at line rate, which sends segments in trains.
_RING, _JUMBO_RING = 4096, 1024


def open_vf(path: Path, mtu: int = 1500, queues: int = 1) -> tuple[FunctionDriver, Pool]:
    """The VF behind a card's socket, and its pool. Tags stay in the frame. Raises as the driver does."""
    function = VfioUserFunction(path)
    kind = driver_of(function)
    if not _SMALLEST_MTU <= mtu <= kind.largest_mtu:
        function.close()
        raise UsageError(f"the MTU of {kind.device} is {_SMALLEST_MTU} to {kind.largest_mtu}, not {mtu}")
    longest = mtu + ETHERNET_BYTES + VLAN_BYTES + FCS_BYTES
    ring = _RING if longest <= _STANDARD_BUFFER else _JUMBO_RING
    size = max(_STANDARD_BUFFER, longest, -(-_LARGEST // kind.most_entries))
    pool = Pool(ring * (queues + 2), -(-size // _KIB) * _KIB)
    try:
        return kind.open(function, pool, queues=queues, ring_size=ring, mtu=mtu, vlan_strip=False), pool
    except BaseException:
        pool.close()
        raise


def open_netfront(path: Path, mtu: int | None = None) -> tuple[Netfront, Pool]:
    """A netfront on a virtualization layer's socket, and its pool. Raises as the driver does."""
    pool = Netfront.new_pool()
    try:
        driver = Netfront.open(path, pool)
        if mtu is not None and mtu > driver.mtu:
            driver.close()
            raise UsageError(f"the layer's MTU is {driver.mtu}, and --mtu asks for {mtu}")
        if mtu is not None:
            driver.mtu = mtu
        return driver, pool
    except BaseException:
        pool.close()
        raise


class Attachment:
    """`driver` on a tap called `name` in the network namespace `namespace`. `run` in the thread that made it.

    offloads: the kernel leaves checksums and, where the driver segments, TCP segments to the driver.
    Raises as Tap does.
    """

    def __init__(
        self, driver: WakingDriver, name: str, namespace: str | None = None, *, offloads: bool = True
    ) -> None:
        self.driver = driver
        self.sleeps = 0
        segments = offloads and isinstance(driver, FunctionDriver)
        self.tap = Tap(name, driver.mac, driver.mtu, namespace, checksums=offloads, segments=segments)
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._received, self._staged = burst(BURST), burst(BURST + PIECES)
        self._iovecs = np.zeros((1 + PIECES) * IOVEC_BYTES, np.uint8)
        self._headers = np.zeros((3, VNET_BYTES), np.uint8)
        self._headers[2, 0] = VNET_DATA_VALID
        self._taps: Any = np.zeros(1, TAP).view(np.recarray)
        self._describe(self._taps[0], -(-_LARGEST // driver.pool.buffer_bytes) if segments else 1)
        self._look_at = 0.0
        self._link: bool | None = None
        self._groups: list[bytes] | None = None

    def _describe(self, record: Any, pieces: int) -> None:
        record.fd = self.tap.fd
        record.header_bytes = self.tap.header_bytes
        record.iovecs = self._iovecs.ctypes.data
        record.header, record.plain, record.valid = (int(row.ctypes.data) for row in self._headers)
        record.pieces = pieces

    def run(self, on_link: Callable[[bool], None] | None = None) -> None:
        """Move frames until `stop`. `on_link` is told the link's state, at first and when it changes.

        Raises PeerGone when the card or the layer goes, VfwireError when somebody deletes the interface.
        """
        while not self._stopping:
            now = time.monotonic()
            if now >= self._look_at:
                self._look(on_link)
                self._look_at = now + _LOOK_SECONDS
            code = self._slice(time.monotonic_ns() + SLICE_NS, SPIN_NS)
            if code == IDLE:
                code = self._sleep(self._look_at - now)
            if code == FAILED:
                number = int(self._taps[0].error)
                raise VfwireError(
                    f"the interface {self.tap.name} has gone: {os.strerror(number)}", "attach it again"
                )

    def stop(self) -> None:
        """Let `run` return, at once. From any thread or a signal handler; nothing after `close`."""
        self._stopping = True
        if self._stop_fd >= 0:
            os.eventfd_write(self._stop_fd, 1)

    def _slice(self, until_ns: int, spin_ns: int) -> int:
        driver, pool = self.driver, self.driver.pool
        return int(
            run_tap(
                driver.rx,
                driver.tx,
                pool.words,
                pool.stack,
                self._received,
                self._staged,
                self._taps,
                until_ns,
                spin_ns,
            )
        )

    def _sleep(self, seconds: float) -> int:
        """Ask for an event, look once more, then sleep until there is one. Returns what the look came back with."""
        driver = self.driver
        there = driver.arm()
        code = self._slice(0, 0)
        if code == IDLE and not there and not self._stopping:
            poller = select.poll()
            for fd in (*driver.event_fds, self._stop_fd):
                poller.register(fd, select.POLLIN)
            if (
                self._taps[0].start < self._taps[0].end
            ):  # the ring is full: the tap's frames have to wait as well
                seconds = min(seconds, _FULL_SECONDS)
            else:
                poller.register(self.tap.fd, select.POLLIN)
            self.sleeps += 1
            ready = {fd for fd, _ in poller.poll(max(seconds, 0.0) * 1000)}
            if ready.intersection(driver.event_fds[1:]):  # the PF or the layer has something to say
                self._look_at = 0.0
        driver.disarm()
        return code

    def _look(self, on_link: Callable[[bool], None] | None) -> None:
        """The card or the layer is there, the link's state is the carrier's, and its filters are the kernel's."""
        driver = self.driver
        driver.check()
        if driver.must_restart():
            self._restart()
        up = driver.link_up()
        if up != self._link:
            self.tap.set_carrier(up)
            if on_link is not None:
                on_link(up)
            self._link = up
        groups = self.tap.groups()
        if groups != self._groups:
            driver.listen(groups)
            self._groups = groups

    def _restart(self) -> None:
        pool = self.driver.pool
        drop_staged(pool.words, pool.stack, self._staged, self._taps)
        self.driver.restart()
        self.tap.set_mac(self.driver.mac)
        self._link = self._groups = None

    def stats(self) -> dict[str, int]:
        """Frames and bytes each way, and what was dropped, beside the driver's own counters."""
        record = self._taps[0]
        names = ("to_tap", "to_tap_bytes", "to_tap_dropped", "from_tap", "from_tap_bytes", "from_tap_dropped")
        return {**{name: int(record[name]) for name in names}, "sleeps": self.sleeps}

    def close(self) -> None:
        """Take the interface away; the driver stays its owner's. Safe to call twice."""
        pool = self.driver.pool
        drop_staged(pool.words, pool.stack, self._staged, self._taps)
        self.tap.close()
        if self._stop_fd >= 0:
            os.close(self._stop_fd)
            self._stop_fd = -1

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def warm_up_attach(progress: Callable[[str], None] | None = None) -> None:
    """Compile all of this, or load it from the cache, before a card or a layer waits for us."""
    if progress is not None and not is_cached(run_tap):
        progress("the tap")
    queues: Any = np.zeros(1, QUEUE).view(np.recarray)
    none, pools = queues[:0], np.zeros(1, POOL).view(np.recarray)
    stack, taps = np.zeros(1, np.int64), np.zeros(1, TAP).view(np.recarray)
    for driver in DRIVERS:
        driver.warm_up()
    Netfront.warm_up()
    queues[0].kind = IXGBEVF
    taps[0].pieces = 1  # more than the pool has, so that nothing is read
    run_tap(none, queues, pools, stack, burst(BURST), burst(BURST + PIECES), taps, 0, 0)
    drop_staged(pools, stack, burst(1), taps)
