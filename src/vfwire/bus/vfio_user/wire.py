"""One vfio-user message over a UNIX stream socket, with its descriptors: whole in, whole out.

A stream knows no message borders, so a message is read as its header, then exactly the rest: descriptors
that come with any byte of it are its own. Every descriptor has one owner at each moment: the `Receiver`
until the message is whole, the `Message` until somebody takes it out of `fds`, and what is left there is
closed with the message.
"""

import array
import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from vfwire.layouts import vfio_user as layout

_ANCILLARY = socket.CMSG_SPACE(layout.MAX_MSG_FDS * 4)
_CHUNK = (
    1 << 16
)  # what one read asks for at most: a peer that drips bytes must not cost a large buffer for each
# Plain ints: arithmetic on the enum members costs microseconds for each message.
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CTRUNC = int(socket.MSG_CTRUNC)
_NOSIGNAL = int(socket.MSG_NOSIGNAL)
_INT = array.array("i").itemsize


@dataclass(slots=True)
class Message:
    """A message that arrived. Use it as a context manager: descriptors nobody took are closed at the end.

    fault: why the message cannot be understood ("" when it can). Where `broken` is set, the stream is lost
    with it.
    """

    id: int
    command: int
    flags: int
    error: int
    payload: bytes = b""
    fds: list[int] = field(default_factory=list)
    fault: str = ""
    broken: bool = False

    def take_fds(self) -> list[int]:
        """The descriptors, owned by the caller from now on."""
        fds, self.fds = self.fds, []
        return fds

    def close(self) -> None:
        close_all(self.take_fds())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fds:
            self.close()


class EndOfStream(Exception):  # a fact about a stream, which its reader turns into an error or not
    """The peer closed. inside: it did so in the middle of a message."""

    def __init__(self, inside: bool) -> None:
        super().__init__("the peer closed the connection" + (" inside a message" if inside else ""))
        self.inside = inside


class Receiver:
    """Reads messages from a socket, blocking or not, and keeps what is not whole yet."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data: bytes | bytearray = b""
        self._want = layout.HEADER.size
        self._header: tuple[int, int, int, int, int] | None = None
        self._fds: list[int] = []
        self._surplus = False

    @property
    def empty(self) -> bool:
        """Nothing is read of the next message."""
        return self._header is None and not self._data

    def step(self, deadline: float | None = None) -> Message | None:
        """Read what there is of one message. None: it is not whole yet (only from a socket that does not
        block).

        deadline: time.monotonic() after which a blocking read gives up, however busily the peer drips
        bytes. Raises EndOfStream, OSError (TimeoutError at the deadline or the socket's own timeout).
        """
        while True:
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    min(self._want - len(self._data), _CHUNK), _ANCILLARY, _CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return None
            if ancillary or flags & _CTRUNC:
                self._collect(ancillary, flags)
            if not data:
                raise EndOfStream(inside=bool(self._data) or self._header is not None)
            self._append(data)
            if len(self._data) == self._want:
                message = self._advance()
                if message is not None:
                    return message
            elif deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("a message did not arrive whole in time")

    def close(self) -> None:
        """Close the descriptors of a message that never became whole. The socket is the caller's."""
        fds, self._fds = self._fds, []
        close_all(fds)

    def _append(self, data: bytes) -> None:
        """Most messages come in two reads, uncopied; for those that drip, what is appended is all that is
        copied.
        """
        if not self._data:
            self._data = data
        elif isinstance(self._data, bytearray):
            self._data += data
        else:
            self._data = bytearray(self._data) + data

    def _collect(self, ancillary: Iterable[tuple[int, int, bytes]], flags: int) -> None:
        """Take over descriptors; what the kernel had no room for it has closed itself, and says so
        (MSG_CTRUNC).
        """
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds += array.array("i", data[: len(data) - len(data) % _INT])
        if len(self._fds) > layout.MAX_MSG_FDS or flags & _CTRUNC:
            self._surplus = True
            close_all(self._fds[layout.MAX_MSG_FDS :])
            del self._fds[layout.MAX_MSG_FDS :]

    def _advance(self) -> Message | None:
        """`_data` is full: it was the header, or the payload."""
        if self._header is not None:
            return self._finish(bytes(self._data))
        self._header = layout.HEADER.unpack(self._data)
        size = self._header[2]
        if not layout.HEADER.size <= size <= layout.MAX_MESSAGE:
            message = self._finish(b"")
            message.fault = f"message size {size} is not one"
            message.broken = True
            return message
        if size == layout.HEADER.size:
            return self._finish(b"")
        self._data = b""
        self._want = size - layout.HEADER.size
        return None

    def _finish(self, payload: bytes) -> Message:
        assert self._header is not None
        number, command, _, flags, error = self._header
        message = Message(number, command, flags, error, payload, self._fds)
        if self._surplus:
            message.fault = f"more than {layout.MAX_MSG_FDS} descriptors"
        self._data, self._want = b"", layout.HEADER.size
        self._header, self._fds, self._surplus = None, [], False
        return message


def pack(number: int, command: int, flags: int, payload: bytes = b"", error: int = 0) -> bytes:
    """A whole message. number: its id, 16 bits. error: an errno, with flags ERROR."""
    return layout.HEADER.pack(number, command, layout.HEADER.size + len(payload), flags, error) + payload


def send_part(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> int:
    """Send what the socket takes; the descriptors (still the caller's) go with the first byte. Returns the
    count.

    Raises OSError; never a signal, whatever SIGPIPE is set to.
    """
    if not fds:
        return sock.send(data, _NOSIGNAL)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    return sock.sendmsg([data], rights, _NOSIGNAL)


def send_all(sock: socket.socket, data: bytes, fds: Sequence[int] = (), *, deadline: float) -> None:
    """Send a whole message on a blocking socket. Raises OSError (TimeoutError when nobody reads)."""
    sent = send_part(sock, data, fds)
    while sent < len(data):
        if time.monotonic() > deadline:
            raise TimeoutError("the peer does not read")
        sent += send_part(sock, memoryview(data)[sent:])


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that came from a peer; one that closes with an error is closed all the same."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            continue
