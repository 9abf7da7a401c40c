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
from collections.abc import Iterable
from typing import ClassVar, Self

import numpy as np

from vfwire import __version__
from vfwire.datapath.bursts import receive_burst, transmit_burst
from vfwire.datapath.ena_driver import BATCH, ena_start, ena_take_back
from vfwire.datapath.ena_driver_frame import MOST_ENTRIES
from vfwire.datapath.port import ENA, FRAME, POOL
from vfwire.drivers.ena_admin import Admin, CommandRefused, put_address
from vfwire.drivers.ena_events import Events
from vfwire.drivers.ena_queues import FRAME_VECTOR, Queues, negotiate_llq
from vfwire.drivers.ena_rss import KEY_BYTES, set_up_rss
from vfwire.drivers.ena_statistics import device_statistics
from vfwire.drivers.function_driver import (
    LINK_SECONDS,
    RING_SIZE,
    SMALLEST_RING,
    FunctionDriver,
    closing_on_error,
)
from vfwire.drivers.verbs import Pool, queue_records
from vfwire.errors import PeerGone, UsageError, VfwireError, WaitTimeout
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_io as io
from vfwire.layouts import ena_messages as msg
from vfwire.layouts import ena_registers as reg
from vfwire.pci.function import Function

LLQ_ENTRIES = (0, 128, 256)
_SPEC_VERSION = 2 << 8
_EXTENDED_REASONS = 16  # from here on
_UNMASK = io.INTR_REG_INTR_UNMASK_MASK | io.INTR_REG_NO_MODERATION_UPDATE_MASK


class Ena(FunctionDriver):
    """A started ENA. `events` tells what the device said of its own accord."""

    name: ClassVar[str] = "ena"
    device: ClassVar[str] = "an ENA"
    pci_ids: ClassVar[frozenset[tuple[int, int]]] = frozenset(
        {(reg.PCI_VENDOR, reg.PCI_DEVICE_VF), (reg.PCI_VENDOR, reg.PCI_DEVICE_LLQ_VF)}
    )
    largest_ring: ClassVar[int] = 8192
    largest_mtu: ClassVar[int] = 9216
    most_entries: ClassVar[int] = MOST_ENTRIES

    def __init__(
        self, function: Function, pool: Pool, queues: int, ring_size: int, mtu: int, llq: int
    ) -> None:
        super().__init__(function, pool, ring_size, mtu)
        self.admin = Admin(function, pool)
        self.events = Events(function, pool, self.admin)
        self.resets = 0
        self._queues = Queues(function, pool, self.admin, queues, ring_size, llq)
        self.rx, self.tx = self._queues.rx, self._queues.tx
        self._key = secrets.token_bytes(KEY_BYTES)
        self._capabilities = self._features = 0

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
        with closing_on_error(function):
            cls._check_ring(ring_size)
            if llq not in LLQ_ENTRIES:
                raise UsageError(f"low-latency entries of {llq} bytes", "they have 128 or 256; 0 for none")
            driver = cls(function, pool, queues, ring_size, mtu, llq)
        return driver._bring_up()

    @staticmethod
    def warm_up() -> None:
        """See FunctionDriver."""
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

    def _start(self) -> None:
        self.admin.connect(self._iova)
        self._initialize(reg.RESET_NORMAL)

    def _initialize(self, reason: int) -> None:
        """From a device in whatever state to one that moves frames."""
        self.admin.reset(reason)
        self._end()
        self.admin.start()
        self.events.start(self._delta)
        self._say_who_we_are()
        attributes = self.admin.get_feature(admin.DEVICE_ATTRIBUTES, msg.DEVICE_ATTR)
        self.mac = bytes(attributes["mac_addr"])
        self._features, self._capabilities = (
            int(attributes["supported_features"]),
            int(attributes["capabilities"]),
        )
        self._check_limits(int(attributes["max_mtu"]))
        if self._has(admin.HW_HINTS):
            self.events.take_hints(self.admin.get_feature(admin.HW_HINTS, msg.HW_HINTS_DESC))
        self.events.listen()
        if self._queues.llq_bytes:
            self._agree_on_low_latency()
        self._queues.create(self._delta)
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

    def _agree_on_low_latency(self) -> None:
        agreed = negotiate_llq(self.admin, self._queues.llq_bytes)
        if agreed.depth < self.ring_size:
            raise UsageError(
                f"no low-latency queues of {self.ring_size} entries", "take smaller rings, or llq 0"
            )
        self._queues.llq_burst = agreed.burst

    def _set_mtu(self) -> None:
        if self._has(admin.MTU):
            mtu = np.zeros((), msg.MTU_DESC)
            mtu["mtu"] = self.mtu
            self.admin.set_feature(admin.MTU, mtu)

    # --- Link and events -----------------------------------------------------------------------------------

    def link_speed(self) -> int:
        """Bits a second, 0 while the link is down, 1 if unknown. One trap where the device tells its speed."""
        self.events.poll()
        if not self.events.link_up or not self._has(admin.LINK_CONFIG):
            return int(self.events.link_up)
        link = self.admin.get_feature(admin.LINK_CONFIG, msg.LINK_DESC)
        return int(link["speed"]) * 1_000_000

    def link_up(self) -> bool:
        """As the last event said. No trap, unless there is a new one."""
        self.events.poll()
        return self.events.link_up

    def enable_receive_events(self) -> int:
        """See FunctionDriver."""
        if not self._fds:
            self._make_events()
            self._function.write32(0, reg.INTR_MASK, 0)  # events of the device's own wake, too
        return self._fds[FRAME_VECTOR]

    def arm_receive_events(self) -> None:
        """See FunctionDriver. No trap."""
        self._function.write32(0, self._queues.unmask_offset(), _UNMASK)

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
        self._initialize(reg.RESET_USER_TRIGGER if reason is None else self._sayable(reason))
        self.resets += 1
        if self._fds:
            self._function.write32(0, reg.INTR_MASK, 0)

    def _sayable(self, reason: int) -> int:
        """A device without extended reasons takes four bits: the generic one stands for the others (ena_com.c)."""
        extended = self._capabilities >> admin.EXTENDED_RESET_REASONS & 1
        return reason if extended or reason < _EXTENDED_REASONS else reg.RESET_GENERIC

    def listen(self, groups: list[bytes]) -> None:
        """Nothing to ask for: an ENA receives every group."""

    def hear(self, macs: Iterable[bytes], vlans: Iterable[int]) -> None:
        """Nothing to ask for: a trusted ENA receives what is sent to anybody."""

    def hear_everything(self, vlans: Iterable[int] = ()) -> bool:
        """Nothing to ask for, and nobody to ask: what its card trusts, as the host's own function, hears everything."""
        return True

    # --- Frames --------------------------------------------------------------------------------------------

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

    def alive(self) -> bool:
        """Whether the device is still there and well (asks it: one trapped access)."""
        try:
            status = self.admin.read(reg.DEV_STS)
        except (PeerGone, WaitTimeout):
            return False
        return bool(status & reg.DEV_STS_READY_MASK) and not status & reg.DEV_STS_FATAL_ERROR_MASK

    def stats(self) -> dict[str, int]:
        """Counters by `ethtool -S` names; `hw_` ones, and those of the allowances, are the device's own."""
        result = self._own_stats() | {
            "bad_req_id": int(self.rx.invalid.sum() + self.tx.invalid.sum()),
            "resets": self.resets,
        }
        for number in range(len(self.rx)):
            result[f"queue_{number}_rx_cnt"] = int(self.rx[number].frames)
            result[f"queue_{number}_tx_cnt"] = int(self.tx[number].frames)
            result[f"queue_{number}_tx_doorbells"] = int(self.tx[number].doorbells)
        return result | device_statistics(self.admin, self._capabilities)

    # --- The end -------------------------------------------------------------------------------------------

    def _silence(self) -> None:
        """In an orderly way if the admin queue answers, and by a reset in any case."""
        with contextlib.suppress(VfwireError):
            self._queues.destroy()
        self.admin.reset(reg.RESET_SHUTDOWN)

    def _take_back(self) -> None:
        self._queues.forget()
        ena_take_back(self.rx, self.pool.words, self.pool.stack)
        ena_take_back(self.tx, self.pool.words, self.pool.stack)


assert SMALLEST_RING >= 2 * BATCH
