"""A cable between the cards of two processes: two rings in shared memory, agreed on over a UNIX socket.

Both ends are given the same path. Whoever holds the lock beside it listens there and makes the memory, the
other one connects; an end that goes away takes the link down at the other, which waits for a new one. The
socket carries nothing but the start, and its end.

    listener:  {"cable": 1, "card": "a", "bytes": LINK_MEMORY} + 2 descriptors: ring to the other, ring from
    the other other:     {"cable": 1, "card": "b"}
"""

import fcntl
import json
import logging
import os
import socket
import threading
from pathlib import Path

from vfwire.datapath.link import LINK_MEMORY
from vfwire.datapath.switch import forget_paths
from vfwire.devices.card import Card
from vfwire.errors import PermissionDenied, ProtocolError, UsageError, VfwireError
from vfwire.memory.shared import PAGE, SharedMemory

_log = logging.getLogger(__name__)

_VERSION = 1
_GREETING_BYTES = 4096
_GREETING_SECONDS = 5.0
_AGAIN_SECONDS = 0.2
_STOP_SECONDS = 5.0
_RING_BYTES = -(-LINK_MEMORY // PAGE) * PAGE


class Cable:
    """Plugs `card` into the cable at `path`, in a thread, until `close`. The card's link is up while both
    ends are in.

    Raises UsageError, PermissionDenied for a path that cannot be used.
    """

    def __init__(self, card: Card, path: Path) -> None:
        self.card = card
        self.path = path.absolute()
        self._lock_path = Path(f"{self.path}.lock")
        self._end = threading.Event()
        try:
            self._lock = self._open_lock()
        except PermissionError as error:
            raise PermissionDenied(f"cannot use {self.path}: {error.strerror}") from error
        except OSError as error:
            raise UsageError(
                f"cannot use {self.path}: {error.strerror}", "give another path to --link"
            ) from error
        card.set_link(False)
        self._thread = threading.Thread(target=self._run, name="vfwire-cable", daemon=True)
        self._thread.start()

    @property
    def plugged(self) -> bool:
        """True while the other end is in."""
        return bool(self.card.engine.state.cards[self.card.number].ring_in)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                if self._holds_lock():
                    self._listen()
                else:
                    self._connect()
            except (OSError, VfwireError) as error:
                _log.debug("cable %s: %s", self.path, error)
            self._end.wait(_AGAIN_SECONDS)

    def _holds_lock(self) -> bool:
        """Take the lock if it is free. One that was removed meanwhile, by the card that held it, is opened anew."""
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._lock), self._lock_path.stat()):
                    return True
            except BlockingIOError:
                return False
            except FileNotFoundError:
                pass
            os.close(self._lock)
            self._lock = self._open_lock()

    def _open_lock(self) -> int:
        return os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _listen(self) -> None:
        """Be the listening end for as long as the card lives, for one other end after the other."""
        self.path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(1)
            listener.settimeout(_AGAIN_SECONDS)
            while not self._end.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    self._greet_as_listener(connection)

    def _greet_as_listener(self, connection: socket.socket) -> None:
        connection.settimeout(_GREETING_SECONDS)
        rings = [SharedMemory.create("vfwire-cable", _RING_BYTES) for _ in range(2)]
        try:
            hello = {"cable": _VERSION, "card": self.card.name, "bytes": LINK_MEMORY}
            socket.send_fds(connection, [json.dumps(hello).encode()], [ring.fd for ring in rings])
            other = _read_greeting(connection.recv(_GREETING_BYTES))
            self._serve(connection, rings[0], rings[1], str(other.get("card")))
        except (OSError, VfwireError) as error:
            _log.warning("cable %s: the other end could not be plugged in: %s", self.path, error)
        finally:
            for ring in rings:
                ring.close()

    def _connect(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_GREETING_SECONDS)
            connection.connect(str(self.path))
            data, fds, _, _ = socket.recv_fds(connection, _GREETING_BYTES, 2)
            rings = self._adopt(data, fds)
            try:
                hello = {"cable": _VERSION, "card": self.card.name}
                connection.sendall(json.dumps(hello).encode())
                self._serve(connection, rings[1], rings[0], str(_read_greeting(data).get("card")))
            finally:
                for ring in rings:
                    ring.close()

    def _adopt(self, data: bytes, fds: list[int]) -> list[SharedMemory]:
        """The two rings that came with a greeting, checked; their descriptors are closed otherwise."""
        try:
            if _read_greeting(data).get("bytes") != LINK_MEMORY or len(fds) != 2:
                raise ProtocolError("the cable's other end is of another version")
        except ProtocolError:
            for fd in fds:
                os.close(fd)
            raise
        rings = [SharedMemory.adopt(fds[0], 0, _RING_BYTES)]
        try:
            rings.append(SharedMemory.adopt(fds[1], 0, _RING_BYTES))
        except VfwireError:
            rings[0].close()
            raise
        return rings

    def _serve(self, connection: socket.socket, out: SharedMemory, into: SharedMemory, other: str) -> None:
        """The link is up until the other end goes, its ring makes no sense, or this card ends."""
        with self.card.engine.parked() as state:
            record = state.cards[self.card.number]
            record.ring_out, record.ring_in = out.address, into.address
        self.card.set_link(True)
        _log.info("cable %s: %s is linked to %s", self.path, self.card.name, other[:40])
        connection.settimeout(_AGAIN_SECONDS)
        try:
            while not self._end.is_set() and self.plugged:
                try:
                    if not connection.recv(1):
                        break
                except TimeoutError:
                    continue
        finally:
            with self.card.engine.parked() as state:
                record = state.cards[self.card.number]
                record.ring_out = record.ring_in = 0
                forget_paths(state)
            self.card.set_link(False)
            _log.info("cable %s: %s is linked no more", self.path, self.card.name)

    def close(self) -> None:
        """Pull the cable out; the last one takes the path away. Safe to call twice."""
        if self._lock < 0:
            return
        self._end.set()
        self._thread.join(_STOP_SECONDS)
        if self._holds_lock():
            self.path.unlink(missing_ok=True)
            self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1


def _read_greeting(data: bytes) -> dict[str, object]:
    try:
        greeting = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("what answers there is no cable's end") from error
    if not isinstance(greeting, dict) or greeting.get("cable") != _VERSION:
        raise ProtocolError("what answers there is no cable's end of this version")
    return greeting
