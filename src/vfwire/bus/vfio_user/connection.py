"""A driver's end of the wire, below registers: connect, negotiate, ask, and be answered in bounded time."""

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfwire.bus.vfio_user import version
from vfwire.bus.vfio_user.wire import EndOfStream, Message, Receiver, close_all, pack, send_all
from vfwire.errors import PeerGone, PermissionDenied, ProtocolError, ResourceBusy, UsageError, VfwireError
from vfwire.layouts import vfio_user as layout
from vfwire.layouts.vfio_user import Command

_RETRY_SECONDS = 0.005
_START = "start the card first (vfwire card)"


@dataclass(slots=True)
class Reply:
    """What came back. fds are the caller's to close."""

    payload: bytes
    fds: list[int]


class Connection:
    """One negotiated connection; requests from several threads take turns.

    path: the card's socket. timeout: seconds that the peer may take for one answer. wait: seconds for the
    socket to appear. Raises UsageError (no such socket), PermissionDenied, ResourceBusy (it serves somebody
    else), PeerGone, ProtocolError.
    """

    def __init__(self, path: Path, timeout: float, wait: float) -> None:
        self.path = path
        self.max_msg_fds = layout.DEFAULT_MAX_MSG_FDS
        self.max_data_xfer = layout.DEFAULT_MAX_DATA_XFER
        self._timeout = timeout
        self._lock = threading.Lock()
        self._number = 0
        self._lost = ""
        self._sock = wait_connected(path, timeout, wait)
        self._receiver = Receiver(self._sock)
        try:
            self._negotiate()
        except BaseException:
            self.close()
            raise

    def request(
        self, command: int, payload: bytes = b"", fds: Sequence[int] = (), *, no_reply: bool = False
    ) -> Reply:
        """Send one message (`fds` stay the caller's) and wait for its answer, which is empty with no_reply.

        Raises ProtocolError with the errno of an error reply, PeerGone when no answer comes any more.
        """
        with self._lock:
            if self._lost:
                raise self._gone()
            self._number = (self._number + 1) & 0xFFFF
            flags = layout.TYPE_COMMAND | (layout.NO_REPLY if no_reply else 0)
            deadline = time.monotonic() + self._timeout
            try:
                send_all(self._sock, pack(self._number, command, flags, payload), fds, deadline=deadline)
                if no_reply:
                    return Reply(b"", [])
                return self._reply(command, deadline)
            except (TimeoutError, BlockingIOError) as error:
                raise self._lose(f"gave no answer within {self._timeout:g} s") from error
            except (EndOfStream, OSError) as error:
                raise self._lose("went away") from error

    def check_peer(self) -> None:
        """Raise PeerGone if the peer has closed its end; for loops that only touch mapped pages."""
        if not self._lost:
            poller = select.poll()
            poller.register(self._sock, 0)
            if poller.poll(0):
                self._lost = "went away"
        if self._lost:
            raise self._gone()

    def close(self) -> None:
        """Give the connection back. Safe to call twice."""
        with self._lock:
            if self._sock.fileno() >= 0:
                self._lost = self._lost or "was closed here"
                self._receiver.close()
                self._sock.close()

    def _reply(self, command: int, deadline: float) -> Reply:
        while True:
            message = self._receiver.step(deadline)
            if message is None:
                raise TimeoutError("no answer within the socket's own timeout")
            with message:
                if message.broken:
                    raise self._lose(f"broke the protocol: {message.fault}")
                if message.flags & layout.TYPE_MASK == layout.TYPE_COMMAND:
                    self._decline(message, deadline)
                    continue
                if message.id != self._number or message.command != command:
                    raise self._lose("answered what was not asked")
                if message.flags & layout.ERROR:
                    raise _refusal(self.path, command, message.error)
                if message.fault:
                    raise ProtocolError(f"{self.path}: {message.fault}")
                return Reply(message.payload, message.take_fds())

    def _decline(self, message: Message, deadline: float) -> None:
        """A device that asks for DMA by message: all memory of ours comes with its descriptor, so it need
        not.
        """
        if not message.flags & layout.NO_REPLY:
            flags = layout.TYPE_REPLY | layout.ERROR
            data = pack(message.id, message.command, flags, error=errno.EOPNOTSUPP)
            send_all(self._sock, data, deadline=deadline)

    def _negotiate(self) -> None:
        busy = "another system may hold it: end that one first, or take another VF"
        try:
            reply = self.request(Command.VERSION, version.pack(layout.MAJOR, layout.MINOR, version.OURS))
        except PeerGone as error:
            if isinstance(error.__cause__, TimeoutError | BlockingIOError):
                raise
            raise ResourceBusy(f"{self.path} closed the connection at once", busy) from error
        close_all(reply.fds)
        major, minor, peer = version.parse(reply.payload)
        if major != layout.MAJOR or minor > layout.MINOR:
            raise ProtocolError(f"{self.path} speaks vfio-user {major}.{minor}")
        self.max_msg_fds = min(peer.max_msg_fds, layout.MAX_MSG_FDS)
        self.max_data_xfer = min(peer.max_data_xfer_size, layout.MAX_DATA_XFER)

    def _lose(self, what: str) -> PeerGone:
        """After this nothing on the stream can be trusted: every later request says so at once."""
        self._lost = what
        return self._gone()

    def _gone(self) -> PeerGone:
        return PeerGone(f"the card behind {self.path} {self._lost}", "start it again, then this system")


def wait_connected(path: Path, timeout: float, wait: float) -> socket.socket:
    """A connected socket, waiting at most `wait` seconds for somebody to listen at `path`. Raises as
    Connection does.
    """
    deadline = time.monotonic() + wait
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bound(sock, timeout)
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
            sock.close()
            if time.monotonic() >= deadline:
                raise _explain(error, path) from error
            time.sleep(_RETRY_SECONDS)
        except OSError as error:
            sock.close()
            raise _explain(error, path) from error
        else:
            return sock


def _bound(sock: socket.socket, timeout: float) -> None:
    """Let the kernel bound each wait: Python's own timeouts cost a poll(2) before every read and write."""
    seconds = int(timeout)
    value = struct.pack("@ll", seconds, int((timeout - seconds) * 1e6) or (not seconds))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def check_socket(path: Path) -> None:
    """Whether something is there to connect to, without connecting. Raises what connecting would."""
    try:
        path.stat()
    except OSError as error:
        raise _explain(error, path) from error


def _explain(error: OSError, path: Path) -> VfwireError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UsageError(f"there is no socket {path}", _START)
    if isinstance(error, ConnectionRefusedError):
        return PeerGone(f"nobody serves {path} (it is left over, or no socket)", _START)
    if isinstance(error, PermissionError):
        return PermissionDenied(f"no permission to use {path}", "run as the user that runs the card")
    if isinstance(error, BlockingIOError | TimeoutError):
        return ResourceBusy(f"{path} takes no connections", "end the system that holds it")
    if error.errno is None:
        return UsageError(f"socket path of {len(str(path))} characters is too long", "107 is the most")
    return VfwireError(f"cannot connect to {path}: {error.strerror}")


def _refusal(path: Path, command: int, number: int) -> ProtocolError:
    reason = errno.errorcode.get(number, str(number))
    name = Command(command).name if command in Command.__members__.values() else f"command {command}"
    return ProtocolError(f"{path} refused {name} ({reason})", errno=number)
