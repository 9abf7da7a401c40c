"""Stream sockets from compiled loops: look at what has arrived, take it, send. Nothing here waits."""

import ctypes
import select
import socket
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from vfwire.memory.compiled import inlined, jit_disabled
from vfwire.memory.words import load32, load64, store64

MESSAGE_HEADER_WORDS = 9  # struct msghdr (7 words of 64 bits) and the struct iovec that it points to
_LENGTH, _FLAGS, _IOVEC = 5, 6, 7
_PEEK, _NOW, _QUIET = int(socket.MSG_PEEK), int(socket.MSG_DONTWAIT), int(socket.MSG_NOSIGNAL)
_TRUNCATED = int(socket.MSG_CTRUNC)
_POLLIN = int(select.POLLIN)


def message_header(buffer: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What `peek` wants: room for no descriptor, and `buffer` for the bytes (the caller keeps both)."""
    header = np.zeros(MESSAGE_HEADER_WORDS, np.int64)
    header[2], header[3] = header[_IOVEC:].ctypes.data, 1
    header[_IOVEC:] = buffer.ctypes.data, buffer.size
    return header


def poll_entries(*fds: int) -> NDArray[np.int64]:
    """struct pollfd for each, that wait for something to read."""
    return np.array([fd | _POLLIN << 32 for fd in fds], np.int64)


if jit_disabled():
    _libc: Any = ctypes.CDLL(None)
    _libc.poll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int]
    _libc.recvmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    _libc.recv.argtypes = _libc.send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    _libc.recvmsg.restype = _libc.recv.restype = _libc.send.restype = ctypes.c_ssize_t
    _poll, _recvmsg, _recv, _send = _libc.poll, _libc.recvmsg, _libc.recv, _libc.send
else:
    _poll = types.ExternalFunction("poll", types.int32(types.int64, types.int64, types.int32))
    _recvmsg = types.ExternalFunction("recvmsg", types.int64(types.int32, types.int64, types.int32))
    _recv = types.ExternalFunction("recv", types.int64(types.int32, types.int64, types.int64, types.int32))
    _send = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))


@inlined
def wait_first(entries: int, count: int) -> int:
    """Wait until one of `count` poll_entries has something. 1: the first one has something to read, and no other."""
    if _poll(entries, count, -1) != 1:
        return 0
    return 1 if load64(entries) >> 48 & 0xFFFF == _POLLIN else 0


@inlined
def peek(fd: int, header: int) -> int:
    """Fill the buffer of a message_header and leave it all where it is: bytes, or -1 (none; or descriptors with it)."""
    store64(header + 8 * _LENGTH, 0)
    count = _recvmsg(fd, header, _PEEK | _NOW)
    return -1 if load32(header + 8 * _FLAGS) & _TRUNCATED else count


@inlined
def take(fd: int, address: int, count: int) -> int:
    """Read `count` bytes, or fewer."""
    return _recv(fd, address, count, _NOW)  # type: ignore[no-any-return]


@inlined
def send(fd: int, address: int, count: int) -> int:
    """Send what there is room for: bytes, -1 for none."""
    return _send(fd, address, count, _NOW | _QUIET)  # type: ignore[no-any-return]
