"""Addresses of this process set aside, into which pieces of files are mapped: what an IOMMU does for a device.

Pieces that follow each other here may come from anywhere in their files; the kernel's page tables translate.
"""

import ctypes
import mmap
import os
from typing import Any

_NONE = 0  # mman.h PROT_NONE
_NORESERVE = 0x4000  # mman.h MAP_NORESERVE: set aside, nothing is accounted for
_FIXED = 0x10  # MAP_FIXED, of both x86 and Arm
_ASIDE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
_FAILED = ctypes.c_void_p(-1).value

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _map(address: int, size: int, protection: int, flags: int, fd: int, offset: int) -> int:
    found: int | None = _libc.mmap(address, size, protection, flags, fd, offset)
    if found == _FAILED or found is None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


class Window:
    """`size` bytes of addresses from `address` on, not accessible until something is mapped there.

    Sizes and offsets are in bytes, whole pages. Raises OSError where the kernel refuses.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = _map(0, size, _NONE, _ASIDE, -1, 0)

    def place(self, at: int, size: int, fd: int, offset: int, *, writable: bool) -> None:
        """Map [offset, offset + size) of `fd`, which must not be able to shrink, at address + `at`."""
        self._check(at, size)
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        _map(self.address + at, size, protection, mmap.MAP_SHARED | _FIXED, fd, offset)

    def clear(self, at: int, size: int) -> None:
        """What was mapped there goes; the addresses stay set aside."""
        self._check(at, size)
        _map(self.address + at, size, _NONE, _ASIDE | _FIXED, -1, 0)

    def _check(self, at: int, size: int) -> None:
        """A fixed mapping replaces whatever is there: never let it leave the window."""
        if self.size == 0 or at < 0 or size <= 0 or at + size > self.size:
            raise ValueError("outside of the window")

    def close(self) -> None:
        """Everything in it goes, and the addresses. Safe to call twice."""
        if self.size:
            _libc.munmap(self.address, self.size)
            self.size = 0
