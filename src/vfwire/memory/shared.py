"""Memory that another process can map: made here as a sealed memfd, or mapped from a descriptor that came in."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vfwire.errors import BadAccess

PAGE = mmap.PAGESIZE
TMPFS_MAGIC = 0x01021994  # statfs(2); a memfd on huge pages says HUGETLBFS_MAGIC instead

_statfs = ctypes.CDLL(None, use_errno=True).fstatfs


def filesystem_magic(fd: int) -> int:
    """The f_type of fstatfs(2): which file system a descriptor is on."""
    buffer = ctypes.create_string_buffer(256)
    if _statfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(ctypes.c_long.from_buffer(buffer).value)


class SharedMemory:
    """A mapped range of a memfd: `address` for compiled loops, `array` (uint8) for Python, `fd` for the other side,
    whose byte `offset` is the first.

    Raises nothing on use; `close` unmaps, after which the address must not be touched.
    """

    def __init__(self, fd: int, size: int, offset: int = 0, *, writable: bool = True) -> None:
        self.fd = fd
        self.size = size
        self.offset = offset
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=offset)
        self.array: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self.address = int(self.array.ctypes.data)

    @classmethod
    def create(cls, name: str, size: int) -> Self:
        """A new zeroed memfd, its size sealed: no side can shrink it under the other. Size is in bytes, whole pages."""
        size = -(-size // PAGE) * PAGE
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(fd, size)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def adopt(cls, fd: int, offset: int, size: int, *, writable: bool = True) -> Self:
        """Map what an untrusted peer sent. Takes over `fd`.

        Memory that can go away under us would kill this process by SIGBUS, so only a memfd on ordinary pages,
        sealed against shrinking and large enough, is taken. Raises BadAccess otherwise, with the descriptor closed.
        """
        try:
            check_cannot_shrink(fd, offset, size)
            return cls(fd, size, offset, writable=writable)
        except (OSError, ValueError, OverflowError) as error:
            os.close(fd)
            raise BadAccess(f"shared memory cannot be mapped: {error}", errno=errno.EINVAL) from error
        except BadAccess:
            os.close(fd)
            raise

    def close(self) -> None:
        """Unmap and close. Views of `array` that are still held keep the mapping until they go."""
        if self.fd < 0:
            return
        self.array = np.empty(0, np.uint8)
        with contextlib.suppress(BufferError):
            self._map.close()
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_cannot_shrink(fd: int, offset: int, size: int) -> None:
    """Raise BadAccess unless [offset, offset + size) of `fd` is there and stays there whatever its owner does.

    A hole punched in a memfd on ordinary pages reads as zeros; one on huge pages can fail to fault back in, so
    those are refused too (memfd_create(2), fcntl(2) F_SEAL_SHRINK).
    """
    if size <= 0 or offset < 0 or offset % PAGE or size % PAGE:
        raise BadAccess("memory range is empty or not in whole pages", errno=errno.EINVAL)
    if filesystem_magic(fd) != TMPFS_MAGIC:
        raise BadAccess(
            "memory is not a memfd on ordinary pages",
            "with QEMU use memory-backend-memfd,share=on without hugetlb",
            errno=errno.EINVAL,
        )
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    if not seals & fcntl.F_SEAL_SHRINK:
        raise BadAccess(
            "memory can shrink under the card (no F_SEAL_SHRINK)",
            "with QEMU use memory-backend-memfd, which seals it",
            errno=errno.EPERM,
        )
    if os.fstat(fd).st_size < offset + size:
        raise BadAccess("memory file is smaller than the range", errno=errno.EINVAL)
