"""Memory for tests that ends at a page which nobody may touch: a read too far ends the test run."""

import ctypes
import mmap

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """`put(data)` lays bytes so that they end at the guard page, and returns their address."""

    def __init__(self, pages: int = 32) -> None:
        self._map = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.end = self._base + pages * mmap.PAGESIZE
        if _libc.mprotect(self.end, mmap.PAGESIZE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, data: bytes) -> int:
        address = self.end - len(data)
        ctypes.memmove(address, data, len(data))
        return address


def peek(address: int, count: int) -> bytes:
    """`count` bytes at an address."""
    return ctypes.string_at(address, count)
