"""The layer's end of xenbus: listens, and holds each frontend to the states.

It decides nothing about frames.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from vfwire.bus.xen.events import EventChannel
from vfwire.bus.xen.xenbus import MAX_KEYS, Channel, Message, close_all, number
from vfwire.errors import PermissionDenied, ProtocolError, ResourceBusy, UsageError, VfwireError
from vfwire.layouts.xen_netif import KEY_STATE
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.layouts.xenbus import XenbusState
from vfwire.memory.shared import SharedMemory

MAX_CHANNELS = 2
MAX_PAGES = 1 << 20  # 4 GiB of a frontend's memory

_BEFORE_CLOSING = tuple(state for state in XenbusState if state < XenbusState.CLOSING)
_FROM: dict[XenbusState, tuple[XenbusState, ...]] = {
    XenbusState.INITIALISING: (XenbusState.UNKNOWN,),
    XenbusState.INITIALISED: (XenbusState.INITIALISING,),
    XenbusState.CONNECTED: (XenbusState.INITIALISED,),
    XenbusState.CLOSING: _BEFORE_CLOSING,
    XenbusState.CLOSED: (*_BEFORE_CLOSING, XenbusState.CLOSING),
}


class Listener:
    """A listening socket, private to its owner (0600).

    A socket that nobody listens on any more is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._bind()
            self._identity = _identity(path)
        except OSError as error:
            self._socket.close()
            raise _cause(path, error) from error
        self._socket.setblocking(False)

    def _bind(self) -> None:
        mask = os.umask(0o177)
        try:
            try:
                self._socket.bind(str(self.path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not self._is_stale():
                    raise
                self.path.unlink()
                self._socket.bind(str(self.path))
        finally:
            os.umask(mask)
        self._socket.listen(16)

    def _is_stale(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                return self.path.is_socket()
            except OSError:
                return False
        return False

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> Channel | None:
        """A new frontend, or None when there is none (any more), or no descriptor for one."""
        try:
            return Channel(self._socket.accept()[0])
        except OSError:
            return None

    def close(self) -> None:
        """Stop listening and take the path away, if it is still ours."""
        self._socket.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    """Tells a socket from its successor at the same path: inode numbers are used again at once, times are not."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _cause(path: Path, error: OSError) -> VfwireError:
    if error.errno == errno.EADDRINUSE:
        return ResourceBusy(f"{path} is in use", "stop what listens there, or name another socket")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(f"no permission to make {path}", "name a socket in a directory of your own")
    return UsageError(f"cannot listen on {path}: {error}", "name a socket in a directory that exists")


class XenbusBackend:
    """One frontend's device.

    `frontend`: its keys; `memory`, `grant_frame`, `grant_frames`: what it handed over.

    `on_state` is called with each new state of the frontend, after the keys written with it are there.
    """

    def __init__(self, channel: Channel, on_state: Callable[["XenbusBackend", XenbusState], None]) -> None:
        self.frontend: dict[str, str] = {}
        self.state = XenbusState.INITIALISING
        self.frontend_state = XenbusState.UNKNOWN
        self.memory: SharedMemory | None = None
        self.grant_frame = 0
        self.grant_frames = 0
        self.channels: dict[int, EventChannel] = {}
        self._channel = channel
        self._on_state = on_state

    def fileno(self) -> int:
        return self._channel.fileno()

    def switch(self, state: XenbusState, keys: dict[str, str] | None = None) -> None:
        """Write our keys and our state in one transaction."""
        self._channel.send("write", {**(keys or {}), KEY_STATE: str(int(state))})
        self.state = state

    def take(self) -> None:
        """Take one message, if there is one.

        Raises ProtocolError or PeerGone: then the device is to be closed.
        """
        message = self._channel.receive()
        if message is None:
            return
        if message.kind == "write":
            self._write(message.body)
        elif message.kind == "domain":
            self._domain(message)
        elif message.kind == "alloc-event-channel":
            self._allocate(message.body)
        else:
            close_all(message.fds)
            raise ProtocolError(f"a frontend sent a {message.kind} message")

    def _write(self, keys: dict[str, str]) -> None:
        if len(self.frontend | keys) > MAX_KEYS:
            raise ProtocolError("a frontend wrote too many keys")
        self.frontend.update(keys)
        if KEY_STATE not in keys:
            return
        value = number(keys, KEY_STATE)
        state = XenbusState(value) if value <= XenbusState.RECONFIGURED else XenbusState.UNKNOWN
        if self.frontend_state not in _FROM.get(state, ()):
            raise ProtocolError(f"a frontend went from state {self.frontend_state.name} to {value}")
        self.frontend_state = state
        self._on_state(self, state)

    def _domain(self, message: Message) -> None:
        fd = message.fds[0]
        pages, frame, frames = (message.body[key] for key in ("pages", "grant-frame", "grant-frames"))
        fits = 0 < pages <= MAX_PAGES and 0 < frames <= pages and frame <= pages - frames
        if self.memory is not None or not fits:
            close_all([fd])
            raise ProtocolError("a frontend's memory came twice, or its grant table lies outside")
        self.memory = SharedMemory.adopt(fd, 0, pages * PAGE_BYTES)
        self.grant_frame = frame
        self.grant_frames = frames

    def _allocate(self, count: int) -> None:
        if not 0 < count <= MAX_CHANNELS - len(self.channels):
            raise ProtocolError("a frontend asked for too many event channels")
        for _ in range(count):
            channel = EventChannel.allocate(len(self.channels) + 1)
            self.channels[channel.port] = channel
            self._channel.send("event-channel", channel.port, channel.other_end())

    def fail(self, reason: str) -> None:
        """Tell the frontend why it is closed, as xenbus_dev_fatal does."""
        with contextlib.suppress(VfwireError):
            self.switch(XenbusState.CLOSING, {"error": reason[:200]})

    def close(self) -> None:
        """Let go of everything that came from or for this frontend."""
        self._channel.close()
        for channel in self.channels.values():
            channel.close()
        self.channels.clear()
        if self.memory is not None:
            self.memory.close()
            self.memory = None
        self.state = XenbusState.CLOSED
