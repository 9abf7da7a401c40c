"""A BAR that holds an MSI-X table and its pending bits (PCI Local Bus 3.0 sections 6.8.2.6 to 6.8.2.10)."""

from collections.abc import Callable

from vfwire.layouts import pci

_ENTRY_WRITABLE = (0xFFFFFFFC).to_bytes(4, "little") + b"\xff" * 8 + b"\x01\x00\x00\x00"
_ENTRY_POWER_ON = bytes(pci.MSIX_ENTRY_VECTOR_CTRL) + b"\x01\x00\x00\x00"  # a vector starts masked
_CONTROL = pci.MSIX_ENTRY_VECTOR_CTRL


def _nothing(_vector: int) -> None:
    return


class MsixTable:
    """`vectors` entries of 16 bytes at `table_offset` of a BAR, one pending bit each at `pba_offset`.

    A guest reads and writes it at any offset and size and nothing raises: gaps read zero, pending bits cannot
    be written. `on_unmask(vector)` is called after a guest has cleared a vector's mask bit; a device then
    sends what is pending. Whether MSI-X is enabled, or masked as a whole, the configuration space says.
    """

    def __init__(self, vectors: int, table_offset: int = 0, pba_offset: int = 0x2000) -> None:
        if not 1 <= vectors <= pci.MSIX_FLAGS_QSIZE + 1:
            raise ValueError("MSI-X has 1 to 2,048 vectors")
        self.vectors = vectors
        self.on_unmask: Callable[[int], None] = _nothing
        self._table_offset = table_offset
        self._pba_offset = pba_offset
        self._table_bytes = vectors * pci.MSIX_ENTRY_SIZE
        self._pba_bytes = -(-vectors // 64) * 8
        if table_offset < pba_offset + self._pba_bytes and pba_offset < table_offset + self._table_bytes:
            raise ValueError("MSI-X table and pending bits overlap")
        self._writable = _ENTRY_WRITABLE * vectors
        self._table = bytearray(_ENTRY_POWER_ON * vectors)
        self._pending = 0

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes of the BAR from `offset`; zero where there is neither table nor pending bits."""
        out = bytearray(max(count, 0))
        self._overlay(out, offset, self._table_offset, self._table)
        self._overlay(out, offset, self._pba_offset, self._pending.to_bytes(self._pba_bytes, "little"))
        return bytes(out)

    def write(self, offset: int, data: bytes) -> None:
        """Write into the BAR; bits that are no table entry's are ignored."""
        start = max(offset, self._table_offset)
        stop = min(offset + len(data), self._table_offset + self._table_bytes)
        if start >= stop:
            return
        first = start - self._table_offset
        was_masked = [vector for vector in self._touched(first, stop - start) if self.masked(vector)]
        for position, byte in enumerate(data[start - offset : stop - offset], first):
            mask = self._writable[position]
            self._table[position] = self._table[position] & ~mask | byte & mask
        for vector in was_masked:
            if not self.masked(vector):
                self.on_unmask(vector)

    def masked(self, vector: int) -> bool:
        """The vector's own mask bit is set. A vector that there is none of is masked."""
        if not 0 <= vector < self.vectors:
            return True
        return bool(self._table[vector * pci.MSIX_ENTRY_SIZE + _CONTROL] & pci.MSIX_ENTRY_CTRL_MASKBIT)

    def message(self, vector: int) -> tuple[int, int]:
        """(address, data) that the guest has put into an entry. Raises IndexError for no such vector."""
        if not 0 <= vector < self.vectors:
            raise IndexError(f"no MSI-X vector {vector}")
        entry = self._table[vector * pci.MSIX_ENTRY_SIZE : (vector + 1) * pci.MSIX_ENTRY_SIZE]
        address = int.from_bytes(entry[pci.MSIX_ENTRY_LOWER_ADDR : pci.MSIX_ENTRY_DATA], "little")
        return address, int.from_bytes(entry[pci.MSIX_ENTRY_DATA : _CONTROL], "little")

    def set_pending(self, vector: int) -> None:
        """Remember that a masked vector has something to say. Ignored where there is no such vector."""
        if 0 <= vector < self.vectors:
            self._pending |= 1 << vector

    def clear_pending(self, vector: int) -> None:
        if 0 <= vector < self.vectors:
            self._pending &= ~(1 << vector)

    def pending(self, vector: int) -> bool:
        return 0 <= vector < self.vectors and bool(self._pending >> vector & 1)

    def reset(self) -> None:
        """All entries zero and masked, nothing pending."""
        self._table[:] = _ENTRY_POWER_ON * self.vectors
        self._pending = 0

    @staticmethod
    def _overlay(out: bytearray, offset: int, start: int, content: bytes | bytearray) -> None:
        """Copy what `content`, at `start`, shares with `out`, at `offset`."""
        low = max(offset, start)
        high = min(offset + len(out), start + len(content))
        if low < high:
            out[low - offset : high - offset] = content[low - start : high - start]

    @staticmethod
    def _touched(first: int, count: int) -> range:
        last = first + count - 1
        return range(first // pci.MSIX_ENTRY_SIZE, last // pci.MSIX_ENTRY_SIZE + 1)
