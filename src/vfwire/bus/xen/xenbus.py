"""The messages between netfront and netback beside the rings: what xenstore and three hypercalls are in Xen.

One UNIX socket of packets (SOCK_SEQPACKET) for a frontend. A packet is one JSON object with one member:
 {"write": {key: value, ...}}    the sender's xenstore keys change, all at once; values are strings
 {"domain": {"pages": n, "grant-frame": f, "grant-frames": m}} with one descriptor: the frontend's memory, and
                                 where its grant table lies in it (GNTTABOP_setup_table)
 {"alloc-event-channel": n}      the frontend asks for n channels (EVTCHNOP_alloc_unbound)
 {"event-channel": port} with two descriptors: its notify and wait ends, one answer for each channel
Both sides take what comes in as written by an enemy: sizes, types and descriptor counts are checked.
"""

import array
import contextlib
import json
import os
import socket
from typing import Any, NamedTuple

from vfwire.errors import PeerGone, ProtocolError

MAX_PACKET = 4096
MAX_DESCRIPTORS = 2
MAX_KEYS = 64
MAX_KEY = 64
MAX_VALUE = 256

_DESCRIPTORS = {"write": 0, "domain": 1, "alloc-event-channel": 0, "event-channel": 2}


class Message(NamedTuple):
    kind: str
    body: Any
    fds: list[int]


def close_all(fds: list[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def parse(packet: bytes) -> tuple[str, Any]:
    """(kind, body) of a packet. Raises ProtocolError for all that is not a message of ours."""
    try:
        value = json.loads(packet.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("xenbus packet is not JSON") from error
    if not isinstance(value, dict) or len(value) != 1:
        raise ProtocolError("xenbus packet is not an object with one member")
    kind, body = next(iter(value.items()))
    if kind not in _DESCRIPTORS:
        raise ProtocolError("xenbus packet of a kind that is not known")
    if kind == "write":
        _check_keys(body)
    elif kind == "domain":
        _check_domain(body)
    elif type(body) is not int or not 0 <= body < 1 << 31:
        raise ProtocolError(f"xenbus {kind} wants a number")
    return kind, body


def _check_keys(body: Any) -> None:
    if not isinstance(body, dict) or not 0 < len(body) <= MAX_KEYS:
        raise ProtocolError("xenbus write without keys, or with too many")
    for key, value in body.items():
        if len(key) > MAX_KEY or not isinstance(value, str) or len(value) > MAX_VALUE:
            raise ProtocolError("xenbus write with a key or value that is too long, or no string")


def _check_domain(body: Any) -> None:
    if not isinstance(body, dict) or set(body) != {"pages", "grant-frame", "grant-frames"}:
        raise ProtocolError("xenbus domain message without its three numbers")
    if any(type(value) is not int or not 0 <= value < 1 << 32 for value in body.values()):
        raise ProtocolError("xenbus domain message with a number out of range")


def number(keys: dict[str, str], key: str, default: int | None = None) -> int:
    """A key's value as a number from 0 to 2**32 - 1.

    Raises ProtocolError when it is none, or missing without default.
    """
    text = keys.get(key)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >> 32:
        raise ProtocolError(f"xenbus key {key} is missing or no number")
    return int(text)


class Channel:
    """One end of the socket. It never blocks; `fileno` is for select."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, kind: str, body: Any, fds: list[int] | None = None) -> None:
        """Raises PeerGone when nobody takes it: gone, or its queue is full, which an honest one never is."""
        packet = json.dumps({kind: body}).encode()
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([packet], control, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise PeerGone(f"the other end of xenbus is gone: {error.strerror}") from error

    def receive(self) -> Message | None:
        """The next message, whose descriptors are the caller's; None when there is none yet.

        Raises PeerGone at the end, ProtocolError (with all descriptors closed) for a bad packet.
        """
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        try:
            packet, control, flags, _ = self._socket.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise PeerGone(f"the other end of xenbus is gone: {error.strerror}") from error
        fds: list[int] = []
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                fds.extend(numbers)
        try:
            return Message(*_checked(packet, flags, len(fds)), fds)
        except (PeerGone, ProtocolError):
            close_all(fds)
            raise

    def close(self) -> None:
        self._socket.close()


def _checked(packet: bytes, flags: int, descriptors: int) -> tuple[str, Any]:
    if not packet:
        raise PeerGone("the other end of xenbus has closed")
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ProtocolError("xenbus packet is too long, or has too many descriptors")
    kind, body = parse(packet)
    if descriptors != _DESCRIPTORS[kind]:
        raise ProtocolError(f"xenbus {kind} with {descriptors} descriptors, not {_DESCRIPTORS[kind]}")
    return kind, body
