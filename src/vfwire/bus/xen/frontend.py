"""Netfront's end of xenbus: it connects, says what it has, and goes through the states with its backend."""

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import Self

from vfwire.bus.xen.events import EventChannel, wait_readable
from vfwire.bus.xen.xenbus import MAX_KEYS, Channel, close_all, number
from vfwire.errors import PeerGone, PermissionDenied, ProtocolError, VfwireError, WaitTimeout
from vfwire.layouts.xen_netif import KEY_STATE
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.layouts.xenbus import XenbusState
from vfwire.memory.shared import SharedMemory

CONNECT_SECONDS = 5


class XenbusFrontend:
    """`backend`: the keys that the backend has written so far; `state`: our own."""

    def __init__(self, channel: Channel, name: str) -> None:
        self.name = name
        self.backend: dict[str, str] = {}
        self.state = XenbusState.UNKNOWN
        self._channel = channel
        self._offered: list[EventChannel] = []

    @classmethod
    def connect(cls, path: Path) -> Self:
        """Connect to a layer's socket. Raises PeerGone when no layer is there or answers, PermissionDenied."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # A layer that stands still accepts nobody, and its queue of callers may be full.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CONNECT_SECONDS, 0))
        try:
            sock.connect(str(path))
        except PermissionError as error:
            sock.close()
            raise PermissionDenied(f"no permission for {path}", "run as the owner of the socket") from error
        except OSError as error:
            sock.close()
            hint = "start a virtualization layer there first"
            raise PeerGone(f"no virtualization layer at {path}: {error.strerror or error}", hint) from error
        return cls(Channel(sock), str(path))

    def switch(self, state: XenbusState, keys: dict[str, str] | None = None) -> None:
        """Write our keys and our state in one transaction."""
        self._channel.send("write", {**(keys or {}), KEY_STATE: str(int(state))})
        self.state = state

    def share(self, memory: SharedMemory, grant_frame: int, grant_frames: int) -> None:
        """Hand over the one descriptor of our memory, and say where in it the grant table lies."""
        pages = memory.size // PAGE_BYTES
        body = {"pages": pages, "grant-frame": grant_frame, "grant-frames": grant_frames}
        self._channel.send("domain", body, [memory.fd])

    def allocate_channels(self, count: int, timeout: float) -> list[EventChannel]:
        """New event channels, the caller's to close. Waits at most `timeout` seconds for them."""
        self._channel.send("alloc-event-channel", count)
        deadline = time.monotonic() + timeout
        while len(self._offered) < count:
            self._step(deadline, f"{len(self._offered)} of {count} event channels came")
        taken, self._offered = self._offered[:count], self._offered[count:]
        return taken

    def wait_backend_state(self, state: XenbusState, timeout: float) -> None:
        """Wait at most `timeout` seconds until the backend is in `state`, or past it.

        Raises ProtocolError with the backend's own words when it closes instead, WaitTimeout, PeerGone.
        """
        deadline = time.monotonic() + timeout
        while self.backend_state < state:
            self._step(deadline, f"the backend is in state {self.backend_state.name}, not {state.name}")
        if state < XenbusState.CLOSING <= self.backend_state:
            raise ProtocolError(self.backend.get("error", "the layer closed the connection"))

    @property
    def backend_state(self) -> XenbusState:
        value = number(self.backend, KEY_STATE, 0)
        return XenbusState(value) if value <= XenbusState.RECONFIGURED else XenbusState.UNKNOWN

    def check(self) -> None:
        """Take what has come. Raises PeerGone when the layer is gone, or closes on us."""
        gone: PeerGone | None = None
        try:
            while self._take():
                pass
        except PeerGone as error:
            gone = error
        if self.backend_state in (XenbusState.CLOSING, XenbusState.CLOSED):
            raise PeerGone(self.backend.get("error", f"the layer at {self.name} closes the connection"))
        if gone is not None:
            raise gone

    def fileno(self) -> int:
        return self._channel.fileno()

    def _step(self, deadline: float, seen: str) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"no answer from the layer at {self.name}: {seen}")
        wait_readable([self._channel.fileno()], int(left * 1e9))
        self._take()

    def _take(self) -> bool:
        message = self._channel.receive()
        if message is None:
            return False
        if message.kind == "write" and len(self.backend | message.body) <= MAX_KEYS:
            self.backend.update(message.body)
        elif message.kind == "event-channel":
            self._offered.append(EventChannel(message.body, *message.fds))
        else:
            close_all(message.fds)
            raise ProtocolError(f"the layer sent a {message.kind} message out of place")
        return True

    def disconnect(self, timeout: float) -> None:
        """Go through Closing to Closed with the backend, as far as it still plays along; then close. Never
        raises.
        """
        with contextlib.suppress(VfwireError):
            self.switch(XenbusState.CLOSING)
            self.wait_backend_state(XenbusState.CLOSING, timeout)
            self.switch(XenbusState.CLOSED)
            self.wait_backend_state(XenbusState.CLOSED, timeout)
        self.state = XenbusState.CLOSED
        for channel in self._offered:
            channel.close()
        self._offered.clear()
        self._channel.close()
