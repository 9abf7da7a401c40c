"""Event channels: a pair of eventfds for each, one for each direction (Xen's EVTCHNOP_* and evtchn_send).

An event says "look at your ring", nothing else; two that come before anybody looks are one, as Xen's pending
bit has it.
"""

import contextlib
import ctypes
import os
import select
from typing import Any, Self

import numpy as np

from vfwire.errors import UnsupportedMachine

_POLLFD = np.dtype([("fd", "i4"), ("events", "i2"), ("revents", "i2")])
_ppoll: Any = ctypes.CDLL(None, use_errno=True).ppoll
_ppoll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]


class EventChannel:
    """One end of a bound channel.

    `notify_fd`: written to wake the other side; `wait_fd`: readable when it woke us.
    """

    def __init__(self, port: int, notify_fd: int, wait_fd: int) -> None:
        self.port = port
        self.notify_fd = notify_fd
        self.wait_fd = wait_fd

    @classmethod
    def allocate(cls, port: int) -> Self:
        """A new channel; `other_end` is for the other side. Raises UnsupportedMachine when no descriptor is
        left.
        """
        fds: list[int] = []
        try:
            for _ in range(2):
                fds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise UnsupportedMachine(f"no eventfd to be had: {error.strerror}") from error
        return cls(port, *fds)

    def other_end(self) -> list[int]:
        """The descriptors to send: what the other side has as its notify_fd and its wait_fd."""
        return [self.wait_fd, self.notify_fd]

    def drain(self) -> bool:
        """Take what is pending; True when something was."""
        try:
            return len(os.read(self.wait_fd, 8)) == 8
        except BlockingIOError:
            return False

    def free_writer(self) -> None:
        """Let go on whoever hangs in a write to `notify_fd` because the other side has filled it up and made it block.

        What was pending there is pending afterwards: no event is lost.
        """
        os.set_blocking(self.notify_fd, False)
        with contextlib.suppress(BlockingIOError):
            os.read(self.notify_fd, 8)
            os.eventfd_write(self.notify_fd, 1)

    def close(self) -> None:
        """Close both descriptors. Safe to call twice."""
        for name in ("notify_fd", "wait_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)


def wait_readable(fds: list[int], timeout_ns: int | None) -> bool:
    """Block until one of `fds` is readable, a signal arrives or the time is up (None: no limit).

    True if one is.
    """
    entries = np.zeros(len(fds), _POLLFD)
    entries["fd"] = fds
    entries["events"] = select.POLLIN
    if timeout_ns is None:
        return int(_ppoll(entries.ctypes.data, len(fds), None, None)) > 0
    timeout = np.array(divmod(max(timeout_ns, 0), 1_000_000_000), np.int64)
    return int(_ppoll(entries.ctypes.data, len(fds), timeout.ctypes.data, None)) > 0


class EdgeWaiter:
    """Waits for events on descriptors without ever reading them: each write to an eventfd is a new edge
    (epoll(7)).

    Reading one that a guest shares could block for ever, because the guest can clear O_NONBLOCK from its own
    end.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)

    def add(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout_ns: int | None) -> list[int]:
        """The descriptors on which something happened since the last call; waits for the first, at most
        `timeout_ns`.
        """
        if not wait_readable([self._epoll.fileno()], timeout_ns):
            return []
        return [fd for fd, _ in self._epoll.poll(0)]

    def close(self) -> None:
        self._epoll.close()
