"""xenbus between two ends: states, descriptors, and what a hostile end can and cannot do."""

import array
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.bus.xen.backend import Listener, XenbusBackend
from vfwire.bus.xen.events import EdgeWaiter, EventChannel, wait_readable
from vfwire.bus.xen.frontend import XenbusFrontend
from vfwire.bus.xen.xenbus import Channel, number, parse
from vfwire.errors import (
    BadAccess,
    PeerGone,
    PermissionDenied,
    ProtocolError,
    ResourceBusy,
    UsageError,
    WaitTimeout,
)
from vfwire.layouts.xenbus import XenbusState
from vfwire.memory.shared import SharedMemory


class Pair:
    """Both ends of a connection; `raw` is the frontend's socket for tests that write what they like."""

    def __init__(self) -> None:
        self.raw, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.states: list[XenbusState] = []
        self.backend = XenbusBackend(Channel(other), lambda _, state: self.states.append(state))
        self.frontend = XenbusFrontend(Channel(self.raw), "test")

    def send(self, packet: bytes, fds: list[int] | None = None) -> None:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.raw.sendmsg([packet], control)

    def close(self) -> None:
        self.frontend.disconnect(0.0)
        self.backend.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def write(**keys: str) -> bytes:
    return json.dumps({"write": {key.replace("_", "-"): value for key, value in keys.items()}}).encode()


def test_a_whole_connection(pair: Pair) -> None:
    front, back = pair.frontend, pair.backend
    front.switch(XenbusState.INITIALISING, {"mac": "00:16:3e:00:00:01"})
    back.take()
    assert back.frontend["mac"] == "00:16:3e:00:00:01"
    back.switch(XenbusState.INIT_WAIT, {"feature-rx-copy": "1"})
    front.wait_backend_state(XenbusState.INIT_WAIT, 1.0)
    assert front.backend["feature-rx-copy"] == "1"
    with SharedMemory.create("test", 8 * 4096) as memory:
        front.share(memory, 6, 2)
        back.take()
        assert back.memory is not None
        back.memory.array[5] = 7
        assert memory.array[5] == 7
        assert (back.grant_frame, back.grant_frames, back.memory.size) == (6, 2, 8 * 4096)
    front.switch(XenbusState.INITIALISED, {"tx-ring-ref": "8"})
    back.take()
    back.switch(XenbusState.CONNECTED)
    front.wait_backend_state(XenbusState.CONNECTED, 1.0)
    front.switch(XenbusState.CONNECTED)
    back.take()
    front.check()
    assert pair.states == [XenbusState.INITIALISING, XenbusState.INITIALISED, XenbusState.CONNECTED]
    assert number(back.frontend, "tx-ring-ref") == 8


def test_event_channels_wake_the_other_side(pair: Pair) -> None:
    front, back = pair.frontend, pair.backend
    front._channel.send("alloc-event-channel", 2)
    back.take()
    first, second = _offered(front)
    assert [first.port, second.port] == [1, 2] == list(back.channels)
    assert not wait_readable([back.channels[1].wait_fd], 0)
    os.eventfd_write(first.notify_fd, 1)
    assert back.channels[1].drain() and not back.channels[1].drain()
    assert not back.channels[2].drain()
    os.eventfd_write(back.channels[2].notify_fd, 1)
    assert second.drain() and not first.drain()
    first.close()
    second.close()
    first.close()


def _offered(front: XenbusFrontend) -> list[EventChannel]:
    while front._take():
        pass
    taken, front._offered = front._offered, []
    return taken


def test_the_backend_says_why(pair: Pair) -> None:
    pair.backend.fail("no vif left")
    with pytest.raises(ProtocolError, match="no vif left"):
        pair.frontend.wait_backend_state(XenbusState.CONNECTED, 1.0)
    with pytest.raises(PeerGone, match="no vif left"):
        pair.frontend.check()


def test_silence_ends_the_wait_and_says_what_was_seen(pair: Pair) -> None:
    pair.backend.switch(XenbusState.INIT_WAIT)
    with pytest.raises(WaitTimeout, match="INIT_WAIT, not CONNECTED"):
        pair.frontend.wait_backend_state(XenbusState.CONNECTED, 0.02)
    with pytest.raises(WaitTimeout, match="0 of 2 event channels"):
        pair.frontend.allocate_channels(2, 0.0)


def test_a_backend_that_goes(pair: Pair) -> None:
    pair.backend.close()
    with pytest.raises(PeerGone):
        pair.frontend.wait_backend_state(XenbusState.INIT_WAIT, 5.0)
    with pytest.raises(PeerGone):
        pair.frontend.switch(XenbusState.INITIALISING)
    pair.frontend.disconnect(1.0)
    assert pair.frontend.state == XenbusState.CLOSED


@pytest.mark.parametrize(
    "states",
    [[3], [1, 1], [1, 4], [1, 3, 1], [5, 1], [6, 5], [1, 3, 4, 3], [0], [2], [7], [8], [9], [4294967295]],
)
def test_states_that_do_not_follow(pair: Pair, states: list[int]) -> None:
    for state in states[:-1]:
        pair.send(write(state=str(state)))
        pair.backend.take()
    pair.send(write(state=str(states[-1])))
    with pytest.raises(ProtocolError):
        pair.backend.take()


BAD_PACKETS = [
    b"\xff\xfe",
    b"{",
    b"[]",
    b"1",
    b"{}",
    b'{"write": {}}',
    b'{"write": 3}',
    b'{"write": {"state": 1}}',
    b'{"write": {"state": "x"}}',
    b'{"write": {"state": "-1"}}',
    b'{"write": {"state": "\xd9\xa1"}}',  # a digit, but not one of ours
    b'{"write": {"state": ""}}',
    b'{"write": {"state": "99999999999"}}',
    b'{"write": {"a": "1"}, "domain": 3}',
    json.dumps({"write": {"k" * 65: "1"}}).encode(),
    json.dumps({"write": {"k": "v" * 257}}).encode(),
    json.dumps({"write": {str(i): "" for i in range(65)}}).encode(),
    b'{"domain": {"pages": 1}}',
    b'{"domain": {"pages": 1, "grant-frame": 0, "grant-frames": 1}}',  # without its descriptor
    b'{"alloc-event-channel": 0}',
    b'{"alloc-event-channel": 3}',
    b'{"alloc-event-channel": true}',
    b'{"alloc-event-channel": 1.0}',
    b'{"alloc-event-channel": "1"}',
    b'{"alloc-event-channel": -1}',
    b'{"event-channel": 1}',
    b'{"unknown": 1}',
    b'{"write": ' + b"[" * 3000,
    b'{"write": {"a": "' + b"x" * 5000 + b'"}}',
]


@pytest.mark.parametrize("packet", BAD_PACKETS, ids=range(len(BAD_PACKETS)))
def test_bad_packets(pair: Pair, packet: bytes) -> None:
    pair.send(packet)
    with pytest.raises(ProtocolError):
        pair.backend.take()


def test_too_many_keys_over_time(pair: Pair) -> None:
    pair.send(json.dumps({"write": {f"a{i}": "" for i in range(40)}}).encode())
    pair.backend.take()
    pair.send(json.dumps({"write": {f"b{i}": "" for i in range(40)}}).encode())
    with pytest.raises(ProtocolError, match="too many keys"):
        pair.backend.take()


def domain(pages: int, frame: int, frames: int) -> bytes:
    body = {"pages": pages, "grant-frame": frame, "grant-frames": frames}
    return json.dumps({"domain": body}).encode()


@pytest.mark.parametrize(
    ("pages", "frame", "frames"),
    [(0, 0, 0), (4, 0, 0), (4, 4, 1), (4, 3, 2), (4, 0, 5), (9, 0, 1), (1 << 21, 0, 1), (4, 2**32 - 1, 1)],
)
def test_memory_that_is_not_what_is_said(pair: Pair, pages: int, frame: int, frames: int) -> None:
    with SharedMemory.create("test", 8 * 4096) as memory:
        pair.send(domain(pages, frame, frames), [memory.fd])
        with pytest.raises(ProtocolError):
            pair.backend.take()
    assert pair.backend.memory is None


def test_memory_that_can_shrink_is_refused(pair: Pair) -> None:
    fd = os.memfd_create("shrinks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8 * 4096)
    pair.send(domain(8, 0, 1), [fd])
    os.close(fd)
    with pytest.raises(BadAccess, match="shrink"):
        pair.backend.take()


def test_memory_that_is_no_memfd_is_refused(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(8 * 4096))
    with file.open("r+b") as opened:
        pair.send(domain(8, 0, 1), [opened.fileno()])
        with pytest.raises(BadAccess):
            pair.backend.take()


def test_memory_comes_once(pair: Pair) -> None:
    with SharedMemory.create("test", 8 * 4096) as memory:
        pair.send(domain(8, 0, 1), [memory.fd])
        pair.backend.take()
        pair.send(domain(8, 0, 1), [memory.fd])
        with pytest.raises(ProtocolError, match="twice"):
            pair.backend.take()


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_descriptors_that_were_not_asked_for_are_closed(pair: Pair, count: int) -> None:
    """What stays open would be seen by the check after every test."""
    fds = [os.eventfd(0) for _ in range(count)]
    pair.send(write(state="1"), fds)
    with pytest.raises(ProtocolError):
        pair.backend.take()
    pair.send(b'{"event-channel": 1}', fds)
    with pytest.raises(ProtocolError):
        pair.backend.take()
    for fd in fds:
        os.close(fd)


def test_a_backend_that_sends_what_only_frontends_send(pair: Pair) -> None:
    pair.backend._channel.send("alloc-event-channel", 1)
    with pytest.raises(ProtocolError):
        pair.frontend.check()


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["write", "domain", "event-channel", "pages", "x"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_packet(packet: bytes) -> None:
    try:
        kind, body = parse(packet)
    except ProtocolError:
        return
    again: dict[str, Any] = json.loads(packet)
    assert again == {kind: body}
    if kind == "write":
        assert all(isinstance(value, str) for value in body.values()) and body


def test_the_socket_is_private_and_goes_away(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "layer")
    assert listener.path.stat().st_mode & 0o777 == 0o600
    front = XenbusFrontend.connect(listener.path)
    channel = listener.accept()
    assert channel is not None and listener.accept() is None
    channel.close()
    front.disconnect(0.0)
    listener.close()
    assert not listener.path.exists()


def test_a_socket_in_use_and_one_left_over(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    listener = Listener(path)
    with pytest.raises(ResourceBusy, match="in use"):
        Listener(path)
    listener._socket.close()  # as if the layer had been killed
    assert path.exists()
    second = Listener(path)
    listener.close()
    assert path.exists()  # it is the second one's now
    second.close()
    assert not path.exists()


def test_places_where_no_socket_can_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="directory that exists"):
        Listener(tmp_path / "missing" / "layer")
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ResourceBusy):
        Listener(file)
    assert file.read_text() == "mine"
    with pytest.raises(UsageError):
        Listener(tmp_path / ("x" * 200))
    with pytest.raises((PermissionDenied, UsageError)):
        Listener(Path("/proc/self/layer"))


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(PeerGone, match="start a virtualization layer"):
        XenbusFrontend.connect(tmp_path / "layer")


def test_a_layer_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue of callers is full: the next one is told so after a while, and does not hang."""
    monkeypatch.setattr("vfwire.bus.xen.frontend.CONNECT_SECONDS", 1)
    listener = Listener(tmp_path / "layer")
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        for _ in range(17):
            front = XenbusFrontend.connect(listener.path)
            stack.callback(front.disconnect, 0.0)
        with pytest.raises(PeerGone):
            XenbusFrontend.connect(listener.path)


def test_edges_are_seen_without_reading() -> None:
    """Each write is news, also while the eventfd has not been read: nobody has to read what a guest shares."""
    waiter = EdgeWaiter()
    with contextlib.closing(waiter):
        channel = EventChannel.allocate(1)
        waiter.add(channel.wait_fd)
        assert waiter.wait(0) == []
        for _ in range(3):
            os.eventfd_write(channel.wait_fd, 1)
            assert waiter.wait(1_000_000_000) == [channel.wait_fd]
            assert waiter.wait(1000) == []
        waiter.remove(channel.wait_fd)
        os.eventfd_write(channel.wait_fd, 1)
        assert waiter.wait(0) == []
        channel.close()
