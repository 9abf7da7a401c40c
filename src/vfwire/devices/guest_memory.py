"""Guest memory for control code: whole structures read once, or written so that their hand-over word comes last.

Every address is a guest's: outside of what it has mapped, nothing is read or written, and that is counted by who asks.
Call while the function's lock is held: no map goes away meanwhile.
"""

import ctypes

from vfwire.datapath.control_words import store_register
from vfwire.devices.dma_maps import DmaMaps

_WORD = 4


class GuestMemory:
    """One guest's memory, through the DMA maps of its function. `bad`: accesses that led nowhere."""

    def __init__(self, maps: DmaMaps) -> None:
        self._maps = maps
        self.bad = 0

    def address(self, iova: int, size: int, *, writable: bool) -> int | None:
        """Where [iova, iova + size) lies in this process, None (counted) where the guest has not mapped all of it."""
        found = self._maps.address_of(iova, size, writable=writable)
        if found is None:
            self.bad += 1
        return found

    def read(self, iova: int, size: int) -> bytes | None:
        """A private copy of `size` bytes."""
        address = self.address(iova, size, writable=False)
        return None if address is None else ctypes.string_at(address, size)

    def write(self, iova: int, data: bytes, last: int | None = None) -> bool:
        """Write `data`. last: byte offset of the 32-bit word in it that is to be seen after all others: no such word
        can be written where it is not aligned, which counts as an access that led nowhere.
        """
        address = self.address(iova, len(data), writable=True)
        if address is None:
            return False
        if last is not None and (address + last) % _WORD:
            self.bad += 1
            return False
        if last is None:
            ctypes.memmove(address, data, len(data))
            return True
        end = last + _WORD
        ctypes.memmove(address, data[:last], last)
        ctypes.memmove(address + end, data[end:], len(data) - end)
        store_register(address + last, int.from_bytes(data[last:end], "little"))
        return True
