"""Serves one PCI function on one UNIX socket, one client at a time, from a thread that waits for none."""

import contextlib
import errno
import os
import select
import socket
import threading
import time
from pathlib import Path

from vfwire.bus.vfio_user.listener import Listener
from vfwire.bus.vfio_user.session import Session, Trouble, check_endpoint
from vfwire.bus.vfio_user.wire import EndOfStream, Receiver, send_part
from vfwire.errors import WaitTimeout
from vfwire.memory.scheduling import wake_promptly
from vfwire.memory.sockets import poll_entries
from vfwire.pci.endpoint import AnswersQuickly, Endpoint

NEGOTIATION_SECONDS = 5.0  # after which a client that has not said VERSION makes room for another
STOP_SECONDS = 10.0
_PAUSE_MS = 100
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Server:
    """Offers `endpoint` at `path`. All calls of the endpoint come from this server's thread.

    path: the socket file. mode: its permissions. `errors` counts what clients did wrong, over all of them.
    """

    def __init__(self, endpoint: Endpoint, path: Path, *, mode: int = 0o600) -> None:
        check_endpoint(endpoint)
        self.path = path
        self._mode = mode
        self._endpoint = endpoint
        self._quick = endpoint if isinstance(endpoint, AnswersQuickly) else None
        self._trouble = Trouble(endpoint.name)
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._client: _Client | None = None
        self._wake = -1
        self._entries = poll_entries()
        self._stopping = False
        self._poll = select.poll()

    @property
    def client_connected(self) -> bool:
        """True from a client's negotiation to its detach."""
        client = self._client
        return client is not None and client.session.attached

    @property
    def errors(self) -> int:
        return self._trouble.count

    def start(self) -> None:
        """Bind, listen and serve. Raises ResourceBusy, PermissionDenied, UsageError."""
        if self._thread is not None:
            return
        self._listener = Listener(self.path, self._mode)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._listener.socket, select.POLLIN)
        self._thread = threading.Thread(
            target=self._run, name=f"vfio-user {self._endpoint.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Disconnect the client, detach the endpoint, remove the socket. Safe to call twice.

        Raises WaitTimeout when the endpoint holds the thread for longer than 10 s; the socket is gone even
        then.
        """
        thread, listener = self._thread, self._listener
        if thread is None or listener is None:
            return
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        thread.join(STOP_SECONDS)
        listener.close()
        if thread.is_alive():
            raise WaitTimeout(
                f"{self._endpoint.name} did not end within {STOP_SECONDS:.0f} s: a call of it hangs"
            )
        self._thread = None
        os.close(self._wake)

    def _run(self) -> None:
        listener = self._listener
        assert listener is not None
        wake_promptly()  # whoever trapped is waiting
        try:
            while not self._stopping:
                try:
                    self._turn(listener)
                except (
                    Exception
                ) as error:  # a fault of ours costs this client its connection, not the card its socket
                    self._trouble.note("server", f"fault in the server: {error!r}", fault=error)
                    self._end_client()
        finally:
            self._end_client()

    def _turn(self, listener: Listener) -> None:
        """Wait for something, and do one step of it: at most one message, so that nobody is kept waiting
        long.
        """
        if self._quick is not None and self._client is not None and self._client.between_messages:
            self._quick.answer_quickly(self._client.fd, self._entries)
        ready = dict(self._poll.poll(self._timeout_ms()))
        client, hung_up = self._client, False
        if client is not None:
            events = ready.get(client.fd, 0)
            hung_up = bool(events & _GONE)
            if not (client.turn() if events else client.in_time()):
                self._end_client()
            elif client.interest != client.polled:
                client.polled = client.interest
                self._poll.modify(client.fd, client.interest)
        if listener.socket.fileno() in ready and (self._client is None or not hung_up):
            self._accept(listener)

    def _timeout_ms(self) -> int | None:
        client = self._client
        if client is None or client.session.attached:
            return None
        return max(0, int((client.deadline - time.monotonic()) * 1000) + 1)

    def _accept(self, listener: Listener) -> None:
        try:
            sock, _ = listener.socket.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._trouble.note("accept", f"cannot take a connection: {error.strerror}")
                select.poll().poll(
                    _PAUSE_MS
                )  # the connection stays in the queue: do not ask for it all the time
            return
        if self._client is not None:
            self._trouble.note("second client", "a second client was refused: the function is in use")
            sock.close()
            return
        self._trouble.forget()
        try:
            client = _Client(sock, Session(self._endpoint, self._trouble), self._trouble)
        except Exception as error:  # the model's own fault, again
            self._trouble.note("session", f"fault in the device: {error!r}", fault=error)
            sock.close()
            return
        self._client = client
        self._poll.register(client.fd, client.polled)
        self._entries = poll_entries(client.fd, self._wake, listener.socket.fileno())

    def _end_client(self) -> None:
        client = self._client
        if client is not None:
            self._poll.unregister(client.fd)
            client.close()
            self._client = None


class _Client:
    """One connection: what is half read and half sent of it, and its session.

    A client that does not read its replies is not read from either: at most one reply waits.
    """

    def __init__(self, sock: socket.socket, session: Session, trouble: Trouble) -> None:
        sock.setblocking(False)
        self.fd = sock.fileno()
        self.session = session
        self.deadline = time.monotonic() + NEGOTIATION_SECONDS
        self.interest = self.polled = select.POLLIN
        self._trouble = trouble
        self._sock = sock
        self._receiver = Receiver(sock)
        self._reply = b""
        self._reply_fds: tuple[int, ...] = ()

    @property
    def between_messages(self) -> bool:
        """It has negotiated, and nothing is half read or half sent."""
        return self.session.attached and not self._reply and self._receiver.empty

    def in_time(self) -> bool:
        """False: it has not negotiated for too long."""
        if self.session.attached or time.monotonic() < self.deadline:
            return True
        self._trouble.note("silent", "a client connected and did not negotiate: closed")
        return False

    def turn(self) -> bool:
        """Do what can be done without waiting. False: the connection is over."""
        try:
            if self._reply:
                return self._send(self._reply, self._reply_fds)
            message = self._receiver.step()
            if message is None:
                return self.in_time()
            answer = self.session.handle(message)
            return self._send(*answer) if answer is not None else not self.session.finished
        except EndOfStream as end:
            if end.inside:
                self._trouble.note("cut off", "the client disconnected in the middle of a message")
            return False
        except OSError:
            return False  # it went away while we wrote or read: a disconnect, not an error of ours

    def _send(self, data: bytes, fds: tuple[int, ...]) -> bool:
        try:
            sent = send_part(self._sock, data, fds)
        except BlockingIOError:
            sent = 0
        self._reply = data[sent:]
        self._reply_fds = () if sent else fds
        self.interest = select.POLLOUT if self._reply else select.POLLIN
        return bool(self._reply) or not self.session.finished

    def close(self) -> None:
        self.session.close()
        self._receiver.close()
        with contextlib.suppress(OSError):
            self._sock.close()
