"""UDP in bursts from compiled code, so that it is the kernel that is measured and not Python.

Addresses are those of arrays laid out as <sys/socket.h> has them on 64-bit Linux; every loop ends at a deadline.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types

from vfwire.memory.compiled import compiled
from vfwire.memory.words import clock_ns

BURST = 64
MSG_DONTWAIT = 0x40
MSG_WAITFORONE = 0x10000

IOVEC = np.dtype([("base", "i8"), ("length", "i8")])
MMSGHDR = np.dtype(  # struct mmsghdr: a msghdr of 56 bytes, then how long the message was
    [
        ("name", "i8"),
        ("namelen", "i8"),
        ("iov", "i8"),
        ("iovlen", "i8"),
        ("control", "i8"),
        ("controllen", "i8"),
        ("flags", "i8"),
        ("length", "i8"),
    ]
)

_sendmmsg = types.ExternalFunction(
    "sendmmsg", types.int32(types.int32, types.int64, types.uint32, types.int32)
)
_recvmmsg = types.ExternalFunction(
    "recvmmsg", types.int32(types.int32, types.int64, types.uint32, types.int32, types.int64)
)
_send = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))
_recv = types.ExternalFunction("recv", types.int64(types.int32, types.int64, types.int64, types.int32))


@dataclass(frozen=True)
class Messages:
    """BURST messages of `payload` bytes; `address` is that of the mmsghdr array, `data` that of the first payload."""

    address: int
    data: int
    keep: tuple[Any, ...]

    @classmethod
    def make(cls, payload: int) -> "Messages":
        data = np.zeros((BURST, max(payload, 8)), np.uint8)
        vectors = np.zeros(BURST, IOVEC)
        vectors["base"] = data.ctypes.data + np.arange(BURST) * data.shape[1]
        vectors["length"] = payload
        headers = np.zeros(BURST, MMSGHDR)
        headers["iov"] = vectors.ctypes.data + np.arange(BURST) * IOVEC.itemsize
        headers["iovlen"] = 1
        return cls(int(headers.ctypes.data), int(data.ctypes.data), (data, vectors, headers))


@compiled
def blast(fd, messages, deadline):  # type: ignore[no-untyped-def]
    """Send bursts over a connected socket until `deadline` (CLOCK_MONOTONIC, ns); returns messages sent."""
    sent = 0
    while clock_ns() < deadline:
        count = _sendmmsg(fd, messages, BURST, 0)
        if count > 0:
            sent += count
    return sent


@compiled
def drain(fd, messages, begin, deadline):  # type: ignore[no-untyped-def]
    """Receive until `deadline`; returns messages that came after `begin` and the nanoseconds in which they came.

    The socket has a receive timeout, so a silent wire ends it too.
    """
    received = 0
    now = clock_ns()
    first = 0
    while now < deadline:
        count = _recvmmsg(fd, messages, BURST, MSG_WAITFORONE, 0)
        now = clock_ns()
        if count <= 0:
            continue
        if first:
            received += count
        elif now >= begin:
            first = now
    return received, now - first if first else 0


@compiled
def echo(fd, data, size, flags, deadline):  # type: ignore[no-untyped-def]
    """Send back what comes until `deadline`; returns how many. flags MSG_DONTWAIT polls, 0 sleeps."""
    echoed = 0
    while clock_ns() < deadline:
        if _recv(fd, data, size, flags) > 0:
            _send(fd, data, size, 0)
            echoed += 1
    return echoed


@compiled
def ask(fd, data, size, flags, samples, deadline):  # type: ignore[no-untyped-def]
    """Send one, wait for its answer, again until `deadline` or samples (int64 ns) is full; returns how many."""
    count = 0
    while count < len(samples):
        begin = clock_ns()
        _send(fd, data, size, 0)
        while _recv(fd, data, size, flags) <= 0:
            if clock_ns() > deadline:
                return count
        now = clock_ns()
        samples[count] = now - begin
        count += 1
        if now > deadline:
            return count
    return count
