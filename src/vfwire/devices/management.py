"""The management socket of a card: JSON lines, a request and its answer, from the user that runs the card
(0600).

    {"do": "show"}                                          -> {"ok": true, "result": {...}} {"do": "set",
    "vf": 0, "changes": {"vlan": 5}}          -> {"ok": true, "result": {...settings...}} {"do": "counters"} |
    {"do": "stop"} anything else                                           -> {"ok": false, "error": ...,
    "hint": ..., "kind": ...}
"""

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from vfwire import errors
from vfwire.errors import PeerGone, ProtocolError, ResourceBusy, UsageError, VfwireError, WaitTimeout

_log = logging.getLogger(__name__)

LONGEST_LINE = 65536
_CONNECTIONS = 8
_IDLE_SECONDS = 30.0
_PLACE_SECONDS = 1.0  # who has just gone may still hold one: its thread has to get a core to notice
_ASKED_SECONDS = 0.2  # for the request of one who is turned away
_STOP_SECONDS = 5.0

Verb = Callable[[dict[str, Any]], Any]


class ManagementServer:
    """Answers at `path` with `verbs`: a function for each name, called with the request, returning what JSON
    can say.

    Verbs run in threads of this server, one at a time. What they raise becomes an error answer.
    """

    def __init__(self, path: Path, verbs: dict[str, Verb]) -> None:
        self.path = path
        self._verbs = verbs
        self._one = threading.Lock()
        self._places = threading.Semaphore(_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._ended = False
        self._socket = _listen(path)
        self._thread = threading.Thread(target=self._accept, name="vfwire-manage", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._ended:
                connection.close()
                continue
            if not self._places.acquire(timeout=_PLACE_SECONDS):
                self._turn_away(connection)
                continue
            connection.settimeout(_IDLE_SECONDS)
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _turn_away(self, connection: socket.socket) -> None:
        error = {"ok": False, "error": f"{_CONNECTIONS} others are talking to this card already"}
        answer = {**error, "hint": "try again when one is done", "kind": "ResourceBusy"}
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_ASKED_SECONDS)
            connection.recv(LONGEST_LINE)  # a socket closed with a request unread takes the answer with it
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                while line := lines.readline(LONGEST_LINE + 1):
                    connection.sendall(json.dumps(self._answer(line)).encode() + b"\n")
                    if not line.endswith(b"\n"):
                        return  # too long, or cut off: what follows is not the start of a request
        except (OSError, ValueError):
            _log.debug("a management connection ended early", exc_info=True)
        finally:
            self._open.discard(connection)
            self._places.release()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = _parse(line)
            verb = self._verbs.get(str(request.get("do")))
            if verb is None:
                raise UsageError(f"no such request: {str(request.get('do'))[:40]!r}")
            with self._one:
                return {"ok": True, "result": verb(request)}
        except VfwireError as error:
            return {"ok": False, "error": error.message, "hint": error.hint, "kind": type(error).__name__}
        except Exception as error:
            _log.exception("a management request failed")
            return {"ok": False, "error": f"fault in the card: {error!r}", "hint": "", "kind": "VfwireError"}

    def close(self) -> None:
        """Stop answering and remove the socket. Safe to call twice."""
        if self._ended:
            return
        self._ended = True
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_STOP_SECONDS)
        self._socket.close()
        self.path.unlink(missing_ok=True)
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                continue


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise UsageError(f"a request has at most {LONGEST_LINE} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("a request is one line of JSON") from error
    if not isinstance(request, dict):
        raise UsageError("a request is a JSON object")
    return request


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))  # in a directory that is the user's own alone
        path.chmod(0o600)
        listener.listen(_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise ResourceBusy(f"cannot listen at {path}: {error.strerror}") from error
    return listener


class ManagementClient:
    """The other end, for `vfwire vf`. Raises PeerGone when no card answers at `path`."""

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise PeerGone(f"no card answers at {path}", "start one with vfwire card") from error
        self._lines = self._socket.makefile("rb")

    def ask(self, do: str, **arguments: Any) -> Any:
        """One request. Raises the error that the card answered with, PeerGone, WaitTimeout."""
        try:
            self._socket.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            line = self._lines.readline()
        except TimeoutError as error:
            raise WaitTimeout(f"the card at {self._path} does not answer") from error
        except OSError as error:
            raise PeerGone(f"the card at {self._path} went away") from error
        if not line:
            raise PeerGone(f"the card at {self._path} went away")
        return _unwrap(line)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unwrap(line: bytes) -> Any:
    try:
        answer = json.loads(line)
        if answer["ok"]:
            return answer["result"]
        kind = getattr(errors, str(answer["kind"]), VfwireError)
        error = kind(str(answer["error"]), str(answer["hint"]))
    except (ValueError, KeyError, TypeError) as fault:
        raise ProtocolError("the card's answer makes no sense") from fault
    raise error
