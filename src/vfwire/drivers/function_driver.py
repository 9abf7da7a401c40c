"""What the drivers of PCI functions have in common: identity, memory, frames, interrupts to sleep on, the end.

A model's driver (`ixgbevf.py`, `ena.py`) says how the function is started and stopped; `table.py` finds it by identity.
"""

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from vfwire import __version__
from vfwire.datapath.bursts import receive_burst, transmit_burst
from vfwire.drivers.verbs import DriverInfo, Pool
from vfwire.errors import UnsupportedMachine, UsageError, VfwireError, WaitTimeout
from vfwire.layouts.pci import COMMAND, COMMAND_MASTER, COMMAND_MEMORY, DEVICE_ID, VENDOR_ID
from vfwire.pci.function import Function

RING_SIZE = 1024
SMALLEST_RING = 64
LINK_SECONDS = 2.0


def identity_of(function: Function) -> tuple[int, int]:
    """(vendor, device) of a PCI function."""
    return function.config_read(VENDOR_ID, 2), function.config_read(DEVICE_ID, 2)


class FunctionDriver(ABC):
    """A started driver of a PCI function. Satisfies drivers.verbs.WakingDriver.

    `rx`, `tx`: record arrays of QUEUE, one row a queue pair. One thread at a time uses a driver and its pool.
    """

    name: ClassVar[str]
    device: ClassVar[str]
    pci_ids: ClassVar[frozenset[tuple[int, int]]]
    largest_ring: ClassVar[int]
    largest_mtu: ClassVar[int]
    most_entries: ClassVar[int]
    """Of one frame that is sent: buffers that a segment may lie in."""

    rx: Any
    tx: Any

    def __init__(self, function: Function, pool: Pool, ring_size: int, mtu: int) -> None:
        self._function = function
        self.pool = pool
        self.ring_size = ring_size
        self.mtu = mtu
        self.mac = b"\0" * 6
        self.info = DriverInfo(self.name, __version__, function.name)
        self._iova = 0
        self._mapped = self._running = False
        self._fds: list[int] = []

    @classmethod
    @abstractmethod
    def open(
        cls,
        function: Function,
        pool: Pool,
        *,
        queues: int = 1,
        ring_size: int = RING_SIZE,
        mtu: int = 1500,
        vlan_strip: bool = False,
    ) -> Self:
        """Reset the function, set up `queues` queue pairs of `ring_size` entries, and start.

        On any error the function is closed.
        """

    @staticmethod
    @abstractmethod
    def warm_up() -> None:
        """Compile what this driver calls, or load it from the cache, before anybody waits: seconds the first time."""

    # --- Setting up ----------------------------------------------------------------------------------------

    @classmethod
    def _check_ring(cls, size: int) -> None:
        if size & (size - 1) or not SMALLEST_RING <= size <= cls.largest_ring:
            raise UsageError(f"ring size {size}: a power of two from {SMALLEST_RING} to {cls.largest_ring}")

    def _bring_up(self) -> Self:
        """Make sure that it is ours, let it reach the pool, and start it. Closes on any error."""
        try:
            self._identify()
            self._map_memory()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _identify(self) -> None:
        vendor, device = identity_of(self._function)
        if (vendor, device) not in self.pci_ids:
            raise UnsupportedMachine(f"{self._function.name} is {vendor:04x}:{device:04x}, not {self.device}")
        command = self._function.config_read(COMMAND, 2)
        self._function.config_write(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER, 2)

    def _map_memory(self) -> None:
        """I/O addresses are this process's own virtual addresses where the carrier can: `delta` is 0 then."""
        memory = self.pool.memory
        self._iova = self._function.dma_address(memory)
        self._function.dma_map(memory, self._iova)
        self._mapped = True

    @property
    def _delta(self) -> int:
        """I/O address minus address, of all memory of the pool."""
        return self._iova - self.pool.memory.address

    @abstractmethod
    def _start(self) -> None:
        """From a function in whatever state to one that moves frames."""

    # --- Link and events -----------------------------------------------------------------------------------

    @abstractmethod
    def link_speed(self) -> int:
        """Bits a second, 0 while the link is down."""

    @abstractmethod
    def link_up(self) -> bool: ...

    def wait_link_up(self, seconds: float = LINK_SECONDS) -> int:
        """Wait until the link is up; returns its speed in bits a second. Raises WaitTimeout, PeerGone."""
        deadline = time.monotonic() + seconds
        while not self.link_up():
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    f"the link of {self.info.bus_info} stays down",
                    "see `vfwire vf show`: state, and the card's link",
                )
            self.check()
            os.sched_yield()
        return self.link_speed()

    @abstractmethod
    def enable_receive_events(self) -> int:
        """An eventfd (non-blocking, this driver's own) that is written when a frame comes while it is armed."""

    @abstractmethod
    def arm_receive_events(self) -> None:
        """Ask for one event. Look at the rings once more before sleeping: then none is missed."""

    def _make_events(self) -> None:
        """An eventfd for each of the two vectors."""
        self._fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2)]
        self._function.enable_interrupts(self._fds)

    @property
    def event_fds(self) -> list[int]:
        """What to poll for reading while armed: frames, and whoever is behind the function."""
        first = self.enable_receive_events()
        return [first, *(fd for fd in self._fds if fd != first)]

    def arm(self) -> bool:
        """See drivers.verbs.WakingDriver: takes back old events, then asks for the next."""
        self.enable_receive_events()
        for fd in self._fds:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
        self.arm_receive_events()
        return False

    def disarm(self) -> None:  # noqa: B027
        """Nothing to do: an interrupt is sent once; one may still come, and is taken back by `arm`."""

    def check(self) -> None:
        """Raises PeerGone when the card has gone (no trap)."""
        self._function.check_peer()

    @abstractmethod
    def must_restart(self) -> bool: ...

    @abstractmethod
    def restart(self) -> None: ...

    # --- What it hears -------------------------------------------------------------------------------------

    @abstractmethod
    def listen(self, groups: list[bytes]) -> None: ...

    @abstractmethod
    def hear(self, macs: Iterable[bytes], vlans: Iterable[int]) -> None:
        """Receive frames to these unicast addresses and in these VLANs, too, and to every group.

        It takes a function that its PF trusts. Raises ProtocolError where the PF refuses.
        """

    @abstractmethod
    def hear_everything(self, vlans: Iterable[int] = ()) -> bool:
        """Receive what is sent to anybody, untagged or in `vlans`. False where this function is not allowed to."""

    # --- Frames --------------------------------------------------------------------------------------------

    def receive(self, frames: Any, limit: int = 0, queue: int = 0) -> int:
        """See drivers.verbs.Driver."""
        most = min(limit, len(frames)) if limit else len(frames)
        return int(receive_burst(self.rx, queue, self.pool.words, self.pool.stack, frames, most))

    def transmit(self, frames: Any, count: int, queue: int = 0) -> int:
        """See drivers.verbs.Driver."""
        return int(transmit_burst(self.tx, queue, self.pool.words, self.pool.stack, frames, 0, count))

    @abstractmethod
    def wait_sent(self, seconds: float = LINK_SECONDS) -> None:
        """Wait until the device has every frame that `transmit` took: `close` would drop the rest.

        Raises WaitTimeout, PeerGone.
        """

    # --- What it says of itself ----------------------------------------------------------------------------

    @property
    def traps(self) -> int:
        """Accesses that left this process so far: the control path's, for the data path has none."""
        return self._function.traps

    @abstractmethod
    def alive(self) -> bool:
        """Whether the function is still there (asks it: one trapped access)."""

    @abstractmethod
    def stats(self) -> dict[str, int]: ...

    def _own_stats(self) -> dict[str, int]:
        """What the driver itself has counted, by `ethtool -S` names."""
        return {
            "rx_packets": int(self.rx.frames.sum()),
            "tx_packets": int(self.tx.frames.sum()),
            "rx_bytes": int(self.rx.bytes.sum()),
            "tx_bytes": int(self.tx.bytes.sum()),
            "rx_errors": int(self.rx.errors.sum()),
            "tx_errors": int(self.tx.errors.sum()),
            "tx_busy": int(self.tx.full.sum()),
            "alloc_rx_buff_failed": int(self.pool.words[0].failed),
        }

    # --- The end -------------------------------------------------------------------------------------------

    @abstractmethod
    def _silence(self) -> None:
        """Have the device move nothing any more. Raises PeerGone, WaitTimeout: it may go on."""

    @abstractmethod
    def _take_back(self) -> None:
        """All buffers in the rings go back to the pool: the device does not write to them any more."""

    def _end(self) -> None:
        if self._running:
            self._running = False
            self._take_back()

    def stop(self) -> None:
        """Silence the device, and take every buffer back into the pool.

        Raises PeerGone if the card went, WaitTimeout where the device does not obey: buffers stay in its rings then,
        since it may write to them, until `close` has taken its memory away.
        """
        if self._running:
            self._silence()
            self._end()

    def close(self) -> None:
        """Stop and give the function back. Quiet when the card is gone already."""
        try:
            with contextlib.suppress(VfwireError):
                self.stop()
            if self._mapped:
                self._mapped = False
                with contextlib.suppress(VfwireError):
                    self._function.dma_unmap(self._iova, self.pool.memory.size)
        finally:
            self._function.close()
            self._end()
            while self._fds:
                os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def closing_on_error(function: Function) -> Any:
    """Close the function where what follows raises."""
    try:
        yield
    except BaseException:
        function.close()
        raise
