"""The 82599 VF's poll-mode driver. It sees a function handle and nothing else.

    Ixgbevf.warm_up()
    with Pool() as pool, Ixgbevf.open(VfioUserFunction(path), pool) as nic:
        frames = burst(32)
        count = nic.receive(frames)
        views = pool.views(frames[:count])
        sent = nic.transmit(frames, count)
        pool.give(frames[sent:count])

Initialisation in the datasheet's order (4.5, 4.6.7 and 4.6.8 for the rings; Linux ixgbevf for the mailbox).
"""

import os
import time
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.bursts import receive_burst, transmit_burst
from vfwire.datapath.ixgbevf_driver import BATCH, ixgbevf_start, ixgbevf_take_back
from vfwire.datapath.port import FRAME, IXGBEVF, POOL
from vfwire.drivers.function_driver import (
    LINK_SECONDS,
    RING_SIZE,
    SMALLEST_RING,
    FunctionDriver,
    closing_on_error,
)
from vfwire.drivers.ixgbevf_mailbox import Mailbox
from vfwire.drivers.verbs import Pool, queue_records
from vfwire.errors import PeerGone, ProtocolError, UsageError, WaitTimeout
from vfwire.layouts import ixgbevf as reg
from vfwire.layouts.ethernet import ETHERNET_BYTES, FCS_BYTES
from vfwire.layouts.ixgbe_descriptors import DESCRIPTOR_SIZE
from vfwire.layouts.ixgbe_mailbox import (
    API_10,
    API_11,
    MSGTYPE_CTS,
    MULTICAST_HASHES_MAX,
    XCAST_MODE_ALLMULTI,
    XCAST_MODE_MULTI,
    XCAST_MODE_PROMISC,
)
from vfwire.pci.function import Function

_FRAME_VECTOR, _MAILBOX_VECTOR = 0, 1  # MSI-X vectors: all receive queues, and the PF
_SPEEDS = {
    reg.LINKS_SPEED_10G: 10_000_000_000,
    reg.LINKS_SPEED_1G: 1_000_000_000,
    reg.LINKS_SPEED_100M: 100_000_000,
}


class Ixgbevf(FunctionDriver):
    """A started 82599 VF."""

    name: ClassVar[str] = "ixgbevf"
    device: ClassVar[str] = "an 82599 VF"
    pci_ids: ClassVar[frozenset[tuple[int, int]]] = frozenset({(0x8086, 0x10ED), (0x8086, 0x152E)})
    largest_ring: ClassVar[int] = 4096
    largest_mtu: ClassVar[int] = 9710
    most_entries: ClassVar[int] = 39  # datasheet 7.2.1.1: 40 descriptors, one of them the context's

    def __init__(
        self, function: Function, pool: Pool, queues: int, ring_size: int, mtu: int, vlan_strip: bool
    ) -> None:
        super().__init__(function, pool, ring_size, mtu)
        self.rx, self.tx = queue_records(queues), queue_records(queues)
        self.mailbox = Mailbox(function)
        self._slots: list[NDArray[np.int64]] = []
        self._vlan_strip = vlan_strip

    @classmethod
    def open(
        cls,
        function: Function,
        pool: Pool,
        *,
        queues: int = 1,
        ring_size: int = RING_SIZE,
        mtu: int = 1500,
        vlan_strip: bool = True,
    ) -> Self:
        """Reset the VF, talk to its PF, set up `queues` receive and transmit rings of `ring_size`, and start.

        Raises UsageError for sizes an 82599 does not have, UnsupportedMachine for another device, ProtocolError and
        WaitTimeout from the mailbox. On any error the function is closed.
        """
        with closing_on_error(function):
            cls._check_ring(ring_size)
            driver = cls(function, pool, queues, ring_size, mtu, vlan_strip)
        return driver._bring_up()

    @staticmethod
    def warm_up() -> None:
        """See FunctionDriver."""
        queues = queue_records(1)
        queues[0].kind, queues[0].size = IXGBEVF, SMALLEST_RING
        queues[0].tail = SMALLEST_RING - 1  # nothing to be had, and no room
        words, stack, frames = np.zeros(1, POOL).view(np.recarray), np.zeros(1, np.int64), np.zeros(1, FRAME)
        ixgbevf_start(queues[:0], queues[:0], words, stack)
        ixgbevf_take_back(queues[:0], words, stack)
        receive_burst(queues, 0, words, stack, frames.view(np.recarray), 0)
        queues[0].tail = 0
        transmit_burst(queues, 0, words, stack, frames.view(np.recarray), 0, 0)

    def _start(self) -> None:
        self._reset(len(self.rx))
        self._set_up_rings(self._vlan_strip)

    def _reset(self, queues: int) -> None:
        """Datasheet 4.2.2.2: VFCTRL.RST, wait, then the mailbox's own reset, which brings the MAC."""
        self._function.write32(0, reg.VFCTRL, reg.CTRL_RST)
        self.mailbox.wait_reset_done()
        self.mac = self.mailbox.reset()
        self.mailbox.negotiate()
        tx_queues, rx_queues = self.mailbox.queues()
        if queues > min(tx_queues, rx_queues):
            raise UsageError(f"{queues} queues asked for; this VF has {min(tx_queues, rx_queues)}")
        self.mailbox.set_longest_frame(
            self.mtu + ETHERNET_BYTES + FCS_BYTES
        )  # a jumbo card's PF insists on it
        self._function.write32(0, reg.VTEIMC, reg.EICR_MASK)

    def _new_queue(self, record: Any, block: int, tail: int) -> None:
        if record.ring:  # a restart: the same memory again
            self.pool.view(int(record.ring), self.ring_size * DESCRIPTOR_SIZE)[:] = 0
            record.head = record.tail = 0
        else:
            slots = np.zeros(self.ring_size, np.int64)
            self._slots.append(slots)
            record.ring = self.pool.reserve(self.ring_size * DESCRIPTOR_SIZE)
            record.slots = int(slots.ctypes.data)
        record.kind = IXGBEVF
        record.size = self.ring_size
        record.delta = self._delta
        record.doorbell = self._function.mapped(0, block + tail, 4)
        record.event = -1

    def _set_up_rings(self, vlan_strip: bool) -> None:
        write = self._function.write32
        kib = (self.pool.buffer_bytes - int(self.pool.words[0].headroom)) // 1024
        if kib < 1:
            raise UsageError("an 82599 receives into buffers of whole KiB", "give the pool larger buffers")
        write(0, reg.VFPSRTYPE, (len(self.rx).bit_length() - 1) << reg.PSRTYPE_RQPL_SHIFT)
        for number in range(len(self.rx)):
            block = reg.QUEUE_STRIDE * number
            self._new_queue(self.rx[number], block, reg.VFRDT)
            self._write_ring(reg.VFRDBAL + block, int(self.rx[number].ring))
            write(0, reg.VFSRRCTL + block, min(kib, 16) | reg.SRRCTL_DESCTYPE_ADV_ONEBUF | reg.SRRCTL_DROP_EN)
            strip = reg.RXDCTL_VME if vlan_strip else 0
            write(0, reg.VFRXDCTL + block, reg.RXDCTL_ENABLE | strip)
        for number in range(len(self.tx)):
            block = reg.QUEUE_STRIDE * number
            self._new_queue(self.tx[number], block, reg.VFTDT)
            self._write_ring(reg.VFTDBAL + block, int(self.tx[number].ring))
            write(0, reg.VFTXDCTL + block, reg.TXDCTL_ENABLE)
        self._running = True
        ixgbevf_start(self.rx, self.tx, self.pool.words, self.pool.stack)

    def _write_ring(self, block: int, address: int) -> None:
        """Base, length, head and tail of a ring; receive and transmit blocks have the same shape."""
        iova = address + self._delta
        write = self._function.write32
        write(0, block, iova & 0xFFFFFFFF)
        write(0, block + reg.VFRDBAH - reg.VFRDBAL, iova >> 32)
        write(0, block + reg.VFRDLEN - reg.VFRDBAL, self.ring_size * DESCRIPTOR_SIZE)
        write(0, block + reg.VFRDH - reg.VFRDBAL, 0)
        write(0, block + reg.VFRDT - reg.VFRDBAL, 0)

    def link_speed(self) -> int:
        """Bits a second, 0 while the link is down."""
        links = self._function.read32(0, reg.VFLINKS)
        return _SPEEDS.get(links & reg.LINKS_SPEED_MASK, 0) if links & reg.LINKS_UP else 0

    def link_up(self) -> bool:
        """One trapped read."""
        return self.link_speed() > 0

    def enable_receive_events(self) -> int:
        """An eventfd (non-blocking, this driver's own) that is written when a frame comes while it is armed.

        82599 datasheet 7.3.1, 8.3.5.2: all receive queues share one vector, which clears its cause and masks
        itself when it is sent. Until `arm_receive_events` nothing is sent, so a busy loop costs no interrupt.
        """
        if not self._fds:
            self._make_events()
            self._route_events()
        return self._fds[_FRAME_VECTOR]

    def _route_events(self) -> None:
        write = self._function.write32
        write(0, reg.VTEIAC, 1 << _FRAME_VECTOR | 1 << _MAILBOX_VECTOR)
        write(0, reg.VTEIAM, 1 << _FRAME_VECTOR)
        entry = reg.IVAR_VALID | _FRAME_VECTOR
        for pair in range(-(-len(self.rx) // reg.IVAR_QUEUES_PER_REGISTER)):
            write(0, reg.VTIVAR + 4 * pair, entry | entry << reg.IVAR_QUEUE_SHIFT)
        write(0, reg.VTIVAR_MISC, reg.IVAR_VALID | _MAILBOX_VECTOR)
        write(0, reg.VTEIMS, 1 << _MAILBOX_VECTOR)

    def arm_receive_events(self) -> None:
        """Ask for one event. Look at the rings once more before sleeping: then none is missed (one trap).

        Frames that came since the last event count: the first event after traffic may find nothing new.
        """
        self._function.write32(0, reg.VTEIMS, 1 << _FRAME_VECTOR)

    def must_restart(self) -> bool:
        """Take a message of the PF's own, if there is one: True when the VF has to `restart` (a new MAC, VLAN …).

        One trapped read, three when there is a message.
        """
        word = self.mailbox.control_message()
        return word is not None and not word & MSGTYPE_CTS

    def restart(self) -> None:
        """Reset the VF and start again, with the MAC that the PF gives now; frames in the rings are lost."""
        self.stop()
        self._start()
        if self._fds:
            self._route_events()

    def listen(self, groups: list[bytes]) -> None:
        """Receive these multicast MACs, no others; beyond what a VF can ask for, all, which needs trust."""
        few = len(groups) <= MULTICAST_HASHES_MAX
        if few:
            self.mailbox.set_multicast(groups)
        if self.mailbox.api not in (API_10, API_11):
            self.mailbox.set_cast_mode(XCAST_MODE_MULTI if few else XCAST_MODE_ALLMULTI)

    def hear(self, macs: Iterable[bytes], vlans: Iterable[int]) -> None:
        """See FunctionDriver: one more MAC filter and one VLAN filter each, and all multicast."""
        for number, mac in enumerate(mac for mac in macs if mac != self.mac):
            self.mailbox.add_mac(mac, number + 1)
        for vlan in vlans:
            self.mailbox.add_vlan(vlan)
        self.mailbox.set_cast_mode(XCAST_MODE_ALLMULTI)

    def hear_everything(self, vlans: Iterable[int] = ()) -> bool:
        """See FunctionDriver. A PF grants promiscuous mode to the host's own function only."""
        try:
            granted = self.mailbox.set_cast_mode(XCAST_MODE_PROMISC) == XCAST_MODE_PROMISC
        except ProtocolError:
            granted = False
        for vlan in vlans if granted else ():
            self.mailbox.add_vlan(vlan)
        return granted

    def wait_sent(self, seconds: float = LINK_SECONDS) -> None:
        """Wait until the card has fetched every frame that `transmit` took: `close` would drop the rest.

        Raises WaitTimeout, PeerGone.
        """
        deadline = time.monotonic() + seconds
        for number in range(len(self.tx)):
            tail = int(self.tx[number].tail) & (self.ring_size - 1)
            while (head := self._function.read32(0, reg.VFTDH + reg.QUEUE_STRIDE * number)) != tail:
                self.check()
                if time.monotonic() > deadline:
                    raise WaitTimeout(
                        f"queue {number} is not sent after {seconds:g} s: head {head}, tail {tail}"
                    )
                os.sched_yield()

    def alive(self) -> bool:
        """Whether the card is still there (asks it: one trapped read)."""
        try:
            return self._function.read32(0, reg.VFSTATUS) != 0xFFFFFFFF
        except PeerGone:
            return False

    def stats(self) -> dict[str, int]:
        """Counters by `ethtool -S` names; `hw_` ones are the card's registers (32 and 36 bits, wrapping)."""
        read = self._function.read32
        result = self._own_stats() | {
            "hw_rx_packets": read(0, reg.VFGPRC),
            "hw_tx_packets": read(0, reg.VFGPTC),
            "hw_rx_bytes": read(0, reg.VFGORC_LSB) | read(0, reg.VFGORC_MSB) << 32,
            "hw_tx_bytes": read(0, reg.VFGOTC_LSB) | read(0, reg.VFGOTC_MSB) << 32,
            "hw_multicast": read(0, reg.VFMPRC),
        }
        for number in range(len(self.rx)):
            result[f"rx_queue_{number}_packets"] = int(self.rx[number].frames)
            result[f"tx_queue_{number}_packets"] = int(self.tx[number].frames)
        return result

    def _silence(self) -> None:
        for number in range(len(self.rx)):
            self._function.write32(0, reg.VFRXDCTL + reg.QUEUE_STRIDE * number, 0)
            self._function.write32(0, reg.VFTXDCTL + reg.QUEUE_STRIDE * number, reg.TXDCTL_SWFLSH)
        self._function.write32(0, reg.VFCTRL, reg.CTRL_RST)

    def _take_back(self) -> None:
        ixgbevf_take_back(self.rx, self.pool.words, self.pool.stack)
        ixgbevf_take_back(self.tx, self.pool.words, self.pool.stack)


assert SMALLEST_RING >= 2 * BATCH
