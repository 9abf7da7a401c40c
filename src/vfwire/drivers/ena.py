"""The Elastic Network Adapter's poll-mode driver. It sees a function handle and nothing else.

    Ena.warm_up()
    with Pool() as pool, Ena.open(VfioUserFunction(path), pool) as nic:
        frames = burst(32)
        count = nic.receive(frames)
        sent = nic.transmit(frames, count)
        pool.give(frames[sent:count])

Initialisation in the order of the vendor's drivers (ena_netdev.c, ena_com.c): reset, admin queue, host information,
attributes, events, placement, offloads; then queues, RSS, MTU. Data goes without traps: doorbells and the words that
ask for interrupts lie in mapped pages.
"""

import contextlib
import os
import secrets
import time
from typing import Any, Self

import numpy as np

from vfwire import __version__
from vfwire.datapath.bursts import receive_burst, transmit_burst
from vfwire.datapath.ena_driver import BATCH, ena_start, ena_take_back
from vfwire.datapath.port import ENA, FRAME, POOL
from vfwire.drivers.ena_admin import Admin, CommandRefused, put_address
from vfwire.drivers.ena_events import Events
from vfwire.drivers.ena_queues import FRAME_VECTOR, Queues, negotiate_llq, queue_records
from vfwire.drivers.ena_rss import KEY_BYTES, set_up_rss
from vfwire.drivers.ena_statistics import device_statistics
from vfwire.drivers.verbs import DriverInfo, Pool
from vfwire.errors import PeerGone, UnsupportedMachine, UsageError, VfwireError, WaitTimeout
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_io as io
from vfwire.layouts import ena_messages as msg
from vfwire.layouts import ena_registers as reg
from vfwire.layouts.pci import COMMAND, COMMAND_MASTER, COMMAND_MEMORY, DEVICE_ID, VENDOR_ID
from vfwire.pci.function import Function

PCI_IDS = frozenset({(reg.PCI_VENDOR, reg.PCI_DEVICE_VF), (reg.PCI_VENDOR, reg.PCI_DEVICE_LLQ_VF)})
RING_SIZE = 1024
SMALLEST_RING, LARGEST_RING = 64, 8192
LLQ_ENTRIES = (0, 128, 256)
LINK_SECONDS = 2.0
_SPEC_VERSION = 2 << 8
_UNMASK = io.INTR_REG_INTR_UNMASK_MASK | io.INTR_REG_NO_MODERATION_UPDATE_MASK


class Ena:
    """A started ENA. Satisfies drivers.verbs.WakingDriver.

    `rx` and `tx` are record arrays of QUEUE, one row a queue pair. `events` tells what the device said of its own
    accord. One thread at a time uses a driver and its pool.
    """

    def __init__(
        self, function: Function, pool: Pool, queues: int, ring_size: int, mtu: int, llq: int
    ) -> None:
        self._function = function
        self.pool = pool
        self.mtu = mtu
        self.mac = b"\0" * 6
        self.ring_size = ring_size
        self.info = DriverInfo("ena", __version__, function.name)
        self.admin = Admin(function, pool)
        self.events = Events(function, pool, self.admin)
        self.resets = 0
        self._queues = Queues(function, pool, self.admin, queues, ring_size, llq)
        self.rx, self.tx = self._queues.rx, self._queues.tx
        self._key = secrets.token_bytes(KEY_BYTES)
        self._capabilities = self._features = 0
        self._iova = pool.memory.address  # I/O addresses are our own: nothing to translate on the way
        self._mapped = self._running = False
        self._fds: list[int] = []

    @classmethod
    def open(
        cls,
        function: Function,
        pool: Pool,
        *,
        queues: int = 1,
        ring_size: int = RING_SIZE,
        mtu: int = 1500,
        vlan_strip: bool = False,
        llq: int = 0,
    ) -> Self:
        """Reset the device, create `queues` queue pairs of `ring_size` entries, and start.

        llq: bytes of an entry (128 or 256) where transmit rings are to lie in the device's memory, 0 for ours.
        vlan_strip: not offered, an ENA leaves tags in line; anything is taken, so that all drivers open alike.
        Raises UsageError for what the device does not have, UnsupportedMachine for another device, ProtocolError and
        WaitTimeout from its admin queue. On any error the function is closed.
        """
        try:
            if ring_size & (ring_size - 1) or not SMALLEST_RING <= ring_size <= LARGEST_RING:
                raise UsageError(
                    f"ring size {ring_size}: a power of two from {SMALLEST_RING} to {LARGEST_RING}"
                )
            if llq not in LLQ_ENTRIES:
                raise UsageError(f"low-latency entries of {llq} bytes", "they have 128 or 256; 0 for none")
            driver = cls(function, pool, queues, ring_size, mtu, llq)
        except BaseException:
            function.close()
            raise
        try:
            driver._identify()
            driver._function.dma_map(pool.memory, driver._iova)
            driver._mapped = True
            driver.admin.connect(driver._iova)
            driver._initialize(reg.RESET_NORMAL)
        except BaseException:
            driver.close()
            raise
        return driver

    @staticmethod
    def warm_up() -> None:
        """Compile what this driver calls, or load it from the cache, before anybody waits: seconds the first time."""
        queues, completions = queue_records(1), np.zeros(2, np.int64)
        queues[0].kind, queues[0].size, queues[0].completion_size = ENA, SMALLEST_RING, 1
        queues[0].tail = SMALLEST_RING - 1  # nothing to be had, and no room
        queues[0].completions = completions.ctypes.data
        words, stack, frames = np.zeros(1, POOL).view(np.recarray), np.zeros(1, np.int64), np.zeros(1, FRAME)
        ena_start(queues[:0], words, stack)
        ena_take_back(queues[:0], words, stack)
        receive_burst(queues, 0, words, stack, frames.view(np.recarray), 0)
        transmit_burst(queues, 0, words, stack, frames.view(np.recarray), 0, 0)

    # --- Setting up ----------------------------------------------------------------------------------------

    def _identify(self) -> None:
        function = self._function
        identity = (function.config_read(VENDOR_ID, 2), function.config_read(DEVICE_ID, 2))
        if identity not in PCI_IDS:
            vendor, device = identity
            raise UnsupportedMachine(f"{function.name} is {vendor:04x}:{device:04x}, not an ENA")
        command = function.config_read(COMMAND, 2)
        function.config_write(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER, 2)

    def _initialize(self, reason: int) -> None:
        """From a device in whatever state to one that moves frames."""
        delta = self._iova - self.pool.memory.address
        self.admin.reset(reason)
        self.admin.start()
        self.events.start(delta)
        self._say_who_we_are()
        attributes = self.admin.get_feature(admin.DEVICE_ATTRIBUTES, msg.DEVICE_ATTR)
        self.mac = bytes(attributes["mac_addr"])
        self._features, self._capabilities = (
            int(attributes["supported_features"]),
            int(attributes["capabilities"]),
        )
        self._check_limits(int(attributes["max_mtu"]))
        self.events.listen()
        if self._queues.llq_bytes and negotiate_llq(self.admin, self._queues.llq_bytes) < self.ring_size:
            raise UsageError(
                f"no low-latency queues of {self.ring_size} entries", "take smaller rings, or llq 0"
            )
        self._queues.create(delta)
        if len(self.rx) > 1:
            set_up_rss(self.admin, self._queues.receive_numbers(), self._key)
        self._set_mtu()
        self._running = True
        ena_start(self.rx, self.pool.words, self.pool.stack)
        self.events.poll()

    def _has(self, feature: int) -> bool:
        return bool(self._features >> feature & 1)

    def _say_who_we_are(self) -> None:
        """The host information page, before anything else is asked. A device may do without."""
        page = np.zeros((), msg.HOST_INFO)
        page["os_type"], page["os_dist_str"] = (
            admin.OS_DPDK,
            b"vfwire",
        )  # no number of our own: a poll-mode driver
        page["driver_version"] = int(__version__.split(".")[0]) & admin.HOST_INFO_MAJOR_MASK
        page["ena_spec_version"], page["num_cpus"] = _SPEC_VERSION, os.cpu_count() or 1
        self.admin.view("host")[: page.nbytes] = np.frombuffer(page.tobytes(), np.uint8)
        where = np.zeros((), msg.HOST_ATTR)
        put_address(where["os_info_ba"], self.admin.iova("host"))
        with contextlib.suppress(CommandRefused):
            self.admin.set_feature(admin.HOST_ATTR_CONFIG, where)

    def _check_limits(self, longest_mtu: int) -> None:
        if self.mtu > longest_mtu:
            raise UsageError(f"MTU {self.mtu}: this ENA takes up to {longest_mtu}")
        if self._has(admin.MAX_QUEUES_EXT):
            most = self.admin.get_feature(admin.MAX_QUEUES_EXT, msg.MAX_QUEUES_EXT, version=1)
            rings = ["tx_sq", "tx_cq", "rx_sq", "rx_cq"]
        else:
            most = self.admin.get_feature(admin.MAX_QUEUES_NUM, msg.MAX_QUEUES)
            rings = ["sq", "cq"]
        pairs = min(int(most[f"max_{ring}_num"]) for ring in rings)
        depth = min(int(most[f"max_{ring}_depth"]) for ring in rings)
        if len(self.rx) > pairs:
            raise UsageError(f"{len(self.rx)} queues asked for; this ENA has {pairs}")
        if self.ring_size > depth:
            raise UsageError(f"ring size {self.ring_size}: this ENA's rings have up to {depth} entries")
        if len(self.rx) > 1 and not self._has(admin.RSS_INDIRECTION_TABLE_CONFIG):
            raise UsageError("several queues asked for; this ENA has no RSS")

    def _set_mtu(self) -> None:
        if self._has(admin.MTU):
            mtu = np.zeros((), msg.MTU_DESC)
            mtu["mtu"] = self.mtu
            self.admin.set_feature(admin.MTU, mtu)

    # --- Link and events -----------------------------------------------------------------------------------

    def link_speed(self) -> int:
        """Bits a second, 0 while the link is down. One trap where the device tells its speed."""
        self.events.poll()
        if not self.events.link_up or not self._has(admin.LINK_CONFIG):
            return int(self.events.link_up)
        link = self.admin.get_feature(admin.LINK_CONFIG, msg.LINK_DESC)
        return int(link["speed"]) * 1_000_000

    def wait_link_up(self, seconds: float = LINK_SECONDS) -> int:
        """Wait until the link is up; returns its speed in bits a second (1 if unknown). Raises WaitTimeout."""
        deadline = time.monotonic() + seconds
        while not self.link_up():
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    "the ENA's link stays down", "see `vfwire vf show`: state, and the card's link"
                )
            self.check()
            os.sched_yield()
        return self.link_speed()

    def link_up(self) -> bool:
        """As the last event said. No trap, unless there is a new one."""
        self.events.poll()
        return self.events.link_up

    def enable_receive_events(self) -> int:
        """An eventfd (non-blocking, this driver's own) that is written when a frame comes while it is armed."""
        if not self._fds:
            self._fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2)]
            self._function.enable_interrupts(self._fds)
            self._function.write32(0, reg.INTR_MASK, 0)  # events of the device's own wake, too
        return self._fds[FRAME_VECTOR]

    def arm_receive_events(self) -> None:
        """Ask for one event. Look at the rings once more before sleeping: then none is missed. No trap."""
        self._function.write32(0, self._queues.unmask_offset(), _UNMASK)

    @property
    def event_fds(self) -> list[int]:
        """What to poll for reading while armed: the device's events, and frames."""
        self.enable_receive_events()
        return list(self._fds)

    def arm(self) -> bool:
        """See drivers.verbs.WakingDriver: takes back old events, then asks for the next."""
        self.enable_receive_events()
        for fd in self._fds:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
        self.arm_receive_events()
        return False

    def disarm(self) -> None:
        """Nothing to do: an interrupt is sent once, and taken back by `arm`."""

    def check(self) -> None:
        """Raises PeerGone when the card has gone (no trap)."""
        self._function.check_peer()

    def must_restart(self) -> bool:
        """Whether the device asked for a reset, went silent, or completed what was never submitted: then `restart`."""
        self.events.poll()
        if self.events.reset_reason is None:
            if self.events.overdue():
                self.events.reset_reason = reg.RESET_KEEP_ALIVE_TO
            elif self.rx.invalid.any():
                self.events.reset_reason = reg.RESET_INV_RX_REQ_ID
            elif self.tx.invalid.any():
                self.events.reset_reason = reg.RESET_INV_TX_REQ_ID
        return self.events.reset_reason is not None

    def restart(self) -> None:
        """Reset the device, for the reason that `must_restart` found, and build the queues anew; frames in them are
        lost.
        """
        reason = self.events.reset_reason
        self._take_back()
        self._initialize(reg.RESET_USER_TRIGGER if reason is None else reason)
        self.resets += 1
        if self._fds:
            self._function.write32(0, reg.INTR_MASK, 0)

    def listen(self, groups: list[bytes]) -> None:
        """Nothing to ask for: an ENA receives every group."""

    # --- Frames --------------------------------------------------------------------------------------------

    def receive(self, frames: Any, limit: int = 0, queue: int = 0) -> int:
        """See drivers.verbs.Driver."""
        most = min(limit, len(frames)) if limit else len(frames)
        return int(receive_burst(self.rx, queue, self.pool.words, self.pool.stack, frames, most))

    def transmit(self, frames: Any, count: int, queue: int = 0) -> int:
        """See drivers.verbs.Driver."""
        return int(transmit_burst(self.tx, queue, self.pool.words, self.pool.stack, frames, 0, count))

    def wait_sent(self, seconds: float = LINK_SECONDS) -> None:
        """Wait until the device has completed every frame that `transmit` took. Raises WaitTimeout, PeerGone."""
        deadline = time.monotonic() + seconds
        nothing = np.zeros(1, FRAME).view(np.recarray)
        for number in range(len(self.tx)):
            self.transmit(nothing, 0, number)
            while (waiting := int(self.tx[number].tail - self.tx[number].head)) > 0:
                self.check()
                if time.monotonic() > deadline:
                    raise WaitTimeout(
                        f"queue {number}: {waiting} descriptors are not sent after {seconds:g} s"
                    )
                os.sched_yield()
                self.transmit(nothing, 0, number)

    # --- What it says of itself ----------------------------------------------------------------------------

    @property
    def traps(self) -> int:
        """Accesses that left this process so far: the control path's, for the data path has none."""
        return self._function.traps

    def alive(self) -> bool:
        """Whether the device is still there and well (asks it: one trapped access)."""
        try:
            status = self.admin.read(reg.DEV_STS)
        except (PeerGone, WaitTimeout):
            return False
        return bool(status & reg.DEV_STS_READY_MASK) and not status & reg.DEV_STS_FATAL_ERROR_MASK

    def stats(self) -> dict[str, int]:
        """Counters by `ethtool -S` names; `hw_` ones, and those of the allowances, are the device's own."""
        result = {
            "rx_packets": int(self.rx.frames.sum()),
            "tx_packets": int(self.tx.frames.sum()),
            "rx_bytes": int(self.rx.bytes.sum()),
            "tx_bytes": int(self.tx.bytes.sum()),
            "rx_errors": int(self.rx.errors.sum()),
            "bad_req_id": int(self.rx.invalid.sum() + self.tx.invalid.sum()),
            "tx_busy": int(self.tx.full.sum()),
            "alloc_rx_buff_failed": int(self.pool.words[0].failed),
            "resets": self.resets,
        }
        for number in range(len(self.rx)):
            result[f"queue_{number}_rx_cnt"] = int(self.rx[number].frames)
            result[f"queue_{number}_tx_cnt"] = int(self.tx[number].frames)
        return result | device_statistics(self.admin, self._capabilities)

    # --- The end -------------------------------------------------------------------------------------------

    def _take_back(self) -> None:
        """The device has no queue any more, or soon will not: every buffer goes back to the pool."""
        self._running = False
        self._queues.forget()
        ena_take_back(self.rx, self.pool.words, self.pool.stack)
        ena_take_back(self.tx, self.pool.words, self.pool.stack)

    def stop(self) -> None:
        """Destroy the queues, reset, and take every buffer back into the pool. Raises PeerGone if the card went."""
        if not self._running:
            return
        try:
            self._queues.destroy()
            self.admin.reset(reg.RESET_SHUTDOWN)
        finally:
            self._take_back()

    def close(self) -> None:
        """Stop and give the function back. Quiet when the card is gone already."""
        try:
            self.stop()
            if self._mapped:
                self._mapped = False
                self._function.dma_unmap(self._iova, self.pool.memory.size)
        except VfwireError:
            pass
        finally:
            self._function.close()
            while self._fds:
                os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


assert SMALLEST_RING >= 2 * BATCH
