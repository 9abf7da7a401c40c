"""A PCI function as its device implements it: the few verbs a transport calls. A model knows no transport."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

from vfwire.memory.shared import SharedMemory


class RegionIndex(IntEnum):
    """Region numbers as VFIO names them (linux/vfio.h, VFIO_PCI_*_REGION_INDEX)."""

    BAR0 = 0
    BAR1 = 1
    BAR2 = 2
    BAR3 = 3
    BAR4 = 4
    BAR5 = 5
    ROM = 6
    CONFIG = 7
    VGA = 8


class IrqIndex(IntEnum):
    """Interrupt kinds as VFIO numbers them (linux/vfio.h, VFIO_PCI_*_IRQ_INDEX)."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


@dataclass(frozen=True, slots=True)
class MappedArea:
    """Pages of a region that the guest may map: its [offset, offset + size) lies at `file_offset` of the memfd."""

    offset: int
    size: int
    file_offset: int


@dataclass(frozen=True, slots=True)
class Region:
    """One region. size 0: not implemented. `memory` backs the `areas`; all else traps."""

    size: int = 0
    memory: SharedMemory | None = None
    areas: tuple[MappedArea, ...] = ()


class Endpoint(Protocol):
    """What a transport serves. Called from one thread at a time. The guest is hostile: offsets and sizes are within
    the region (the transport checked), all else is the model's to check. Raises BadAccess/ProtocolError with an errno.
    """

    name: str

    @property
    def regions(self) -> tuple[Region, ...]:
        """Nine regions, indexed by RegionIndex."""
        ...

    @property
    def irq_counts(self) -> tuple[int, ...]:
        """Vectors of each IrqIndex, five numbers."""
        ...

    def attach(self) -> None:
        """A client has connected and negotiated."""
        ...

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        """Any count from 1 to the region's size; what has no meaning reads as all-ones, counted."""
        ...

    def region_write(self, index: int, offset: int, data: bytes) -> None: ...

    def dma_map(
        self, iova: int, size: int, memory: SharedMemory | None, *, readable: bool, writable: bool
    ) -> None:
        """Guest memory appears. memory None: a range without a descriptor (by messages only: not used for DMA)."""
        ...

    def dma_unmap(self, iova: int, size: int) -> int:
        """The mapped ranges inside go, usually one, exactly; returns how many, when the data path has let go of them.

        BadAccess (ENOENT) if there is none, or if one would have to be cut.
        """
        ...

    def dma_unmap_all(self) -> None: ...

    def set_irqs(self, index: int, start: int, eventfds: list[int]) -> None:
        """eventfds[i] (owned by the callee from now on; -1 for none) serves vector start + i."""
        ...

    def disable_irqs(self, index: int) -> None: ...

    def trigger_irqs(self, index: int, start: int, flags: list[bool]) -> None:
        """Raise those vectors now (VFIO_IRQ_SET_ACTION_TRIGGER with DATA_NONE or DATA_BOOL)."""
        ...

    def reset(self) -> None:
        """VFIO_USER_DEVICE_RESET. Ring state is cleared, the data path has let go, before it returns. DMA maps stay."""
        ...

    def detach(self) -> None:
        """The client is gone, orderly or not: reset, unmap all, close its eventfds."""
        ...


@runtime_checkable
class AnswersQuickly(Protocol):
    """An endpoint that answers some of a client's messages by itself, without the interpreter."""

    def answer_quickly(self, fd: int, entries: Any) -> None:
        """Wait, and answer what comes on the client's socket `fd` until anything else is to be done.

        entries: struct pollfd as int64, fd's first. What it does not answer it leaves in the socket.
        """
        ...
