"""System calls on descriptors, for compiled loops: readv(2) and writev(2), with their error in the result."""

import ctypes
from typing import Any

from numba import types

from vfwire.memory.compiled import inlined, jit_disabled
from vfwire.memory.words import load32

IOVEC_BYTES = 16  # struct iovec: address, length; 64 bits each

if jit_disabled():
    _libc = ctypes.CDLL(None, use_errno=True)

    def _plain(function: Any, fd: int, iovecs: int, count: int) -> int:
        done = int(function(int(fd), ctypes.c_void_p(int(iovecs)), int(count)))
        return -ctypes.get_errno() if done < 0 else done

    def read_into(fd: int, iovecs: int, count: int) -> int:
        """Read into `count` struct iovec at address `iovecs`; returns bytes, or -errno."""
        return _plain(_libc.readv, fd, iovecs, count)

    def write_from(fd: int, iovecs: int, count: int) -> int:
        """Write what `count` struct iovec at address `iovecs` name; returns bytes, or -errno."""
        return _plain(_libc.writev, fd, iovecs, count)

else:
    _readv = types.ExternalFunction("readv", types.int64(types.int32, types.int64, types.int32))
    _writev = types.ExternalFunction("writev", types.int64(types.int32, types.int64, types.int32))
    _errno_location = types.ExternalFunction("__errno_location", types.int64())

    @inlined
    def read_into(fd: int, iovecs: int, count: int) -> int:
        """Read into `count` struct iovec at address `iovecs`; returns bytes, or -errno."""
        done = _readv(fd, iovecs, count)
        return done if done >= 0 else -load32(_errno_location())  # type: ignore[no-any-return]

    @inlined
    def write_from(fd: int, iovecs: int, count: int) -> int:
        """Write what `count` struct iovec at address `iovecs` name; returns bytes, or -errno."""
        done = _writev(fd, iovecs, count)
        return done if done >= 0 else -load32(_errno_location())  # type: ignore[no-any-return]
