"""A PCI function as its driver sees it. Drivers know nothing else, so the same driver runs on any carrier:
vfio-user (`bus/vfio_user/client.py`) on a card, the kernel's VFIO (`bus/vfio/function.py`) in a guest or on hardware.
"""

from typing import Protocol

from vfwire.memory.shared import SharedMemory


class Function(Protocol):
    """The handle that a driver is given. All offsets and sizes are in bytes, all values little-endian ints.

    Every method raises PeerGone when the device went away, ProtocolError when it refuses.
    """

    name: str
    """What a person would call it: a BDF address or a socket's path."""

    traps: int
    """Accesses so far that left this process: a message, a system call, an exit."""

    def config_read(self, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of configuration space."""
        ...

    def config_write(self, offset: int, value: int, size: int) -> None: ...

    def read32(self, bar: int, offset: int) -> int:
        """Read a register: from the mapped page where there is one, else by a trapped access."""
        ...

    def write32(self, bar: int, offset: int, value: int) -> None: ...

    def mapped(self, bar: int, offset: int, size: int) -> int:
        """The address at which [offset, offset + size) of a BAR is mapped here, for compiled loops.

        Raises UnsupportedMachine where the device traps that range (the data path cannot poll there).
        """
        ...

    def dma_address(self, memory: SharedMemory) -> int:
        """An I/O address that suits this carrier for `memory`: where it can, the memory's own address here."""
        ...

    def dma_map(self, memory: SharedMemory, iova: int) -> None:
        """Let the device reach all of `memory` at I/O address `iova`."""
        ...

    def dma_unmap(self, iova: int, size: int) -> None:
        """Take it back. Returns when the device has let go."""
        ...

    def enable_interrupts(self, eventfds: list[int]) -> None:
        """Hand one eventfd to each MSI-X vector from 0 on; an empty list disables MSI-X."""
        ...

    def check_peer(self) -> None:
        """Raise PeerGone if the device has gone, without an access to it: for loops that only touch mapped pages."""
        ...

    def reset(self) -> None:
        """Function-level reset."""
        ...

    def close(self) -> None:
        """Give the function back. Safe to call twice."""
        ...
