"""A virtualization layer whose netfronts and strangers break the rules: it sends them away, the others go on."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from layer_kit import BROADCAST, Running, crosses, send, wait_until

from vfwire.bus.xen.frontend import XenbusFrontend
from vfwire.drivers.netfront import TX_RING_REF, Netfront
from vfwire.drivers.verbs import Pool
from vfwire.errors import PeerGone, ProtocolError
from vfwire.layouts.xenbus import XenbusState


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "layer")
    yield made
    made.close()


def half_open(path: Path, pool: Pool, **changes: str) -> XenbusFrontend:
    """A frontend that says all that is wanted, but for `changes`, and has granted nothing."""
    front = XenbusFrontend.connect(path)
    front.switch(XenbusState.INITIALISING)
    front.wait_backend_state(XenbusState.INIT_WAIT, 20)
    for channel in front.allocate_channels(2, 20):
        channel.close()
    front.share(pool.memory, 0, 2)
    said = {
        "tx-ring-ref": "8",
        "rx-ring-ref": "9",
        "event-channel-tx": "1",
        "event-channel-rx": "2",
        "request-rx-copy": "1",
    }
    said |= {key.replace("_", "-"): value for key, value in changes.items()}
    front.switch(XenbusState.INITIALISED, said)
    return front


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "not granted"),
        ({"tx_ring_ref": "4294967295"}, "not granted"),
        ({"event_channel_tx": "3"}, "event channels"),
        ({"request_rx_copy": "0"}, "copying receive path"),
        ({"multi_queue_num_queues": "2"}, "one queue"),
        ({"xdp_headroom": "2000"}, "headroom"),
        ({"rx_ring_ref": "nine"}, "no number"),
    ],
)
def test_frontends_that_are_refused(running: Running, changes: dict[str, str], reason: str) -> None:
    with Netfront.new_pool(16) as pool:
        front = half_open(running.layer.listen, pool, **changes)
        with pytest.raises(ProtocolError, match=reason):
            front.wait_backend_state(XenbusState.CONNECTED, 20)
        front.disconnect(0.0)
    wait_until(lambda: running.layer.stats()["vifs"] == 0, "the vif to go")
    one, two = running.front(), running.front()
    send(two, BROADCAST)
    crosses(one, two)


def test_more_frontends_than_vifs(running: Running) -> None:
    fronts = [running.front() for _ in range(32)]
    with pytest.raises(ProtocolError, match="no vif left"):
        running.front()
    running.close_front(fronts[7])
    running.front()


def test_a_frontend_that_breaks_its_ring_is_sent_away_alone(running: Running) -> None:
    one, two, bad = (running.front() for _ in range(3))
    send(two, BROADCAST)
    ring = int(bad.tx[0].ring)
    offset = ring - bad.pool.memory.address
    bad.pool.memory.array[offset : offset + 4].view(np.uint32)[0] = 12345
    os.eventfd_write(int(bad.tx[0].event), 1)
    with pytest.raises(PeerGone, match="beyond the ring"):
        bad.wait_for_event(20)
        bad.wait_for_event(20)
    crosses(one, two)
    wait_until(lambda: running.layer.stats()["vifs"] == 2, "the vif to go: its frontend is told first")


def test_revoking_a_ring_page_harms_nobody(running: Running) -> None:
    one, two, bad = (running.front() for _ in range(3))
    send(two, BROADCAST)
    bad.pool.memory.array[bad._table - bad.pool.memory.address :][: 8 * 1024] = 0
    send(bad, one.mac)
    crosses(one, two)
    assert TX_RING_REF == 8


def test_a_guest_that_makes_its_eventfd_block(running: Running) -> None:
    """It shares the descriptor's flags: cleared O_NONBLOCK and a full counter hold up a writer. The layer gets free."""
    one, two, bad = (running.front() for _ in range(3))
    send(two, BROADCAST)
    for channel in (bad._rx_channel, bad._tx_channel):
        flags = fcntl.fcntl(channel.wait_fd, fcntl.F_GETFL)
        fcntl.fcntl(channel.wait_fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        os.eventfd_write(channel.wait_fd, (1 << 64) - 2)
    for queue in (bad.rx, bad.tx):
        offset = int(queue[0].ring) - bad.pool.memory.address + 12
        words = bad.pool.memory.array[offset : offset + 4].view(np.uint32)
        words[0] = int(queue[0].head) + 1  # rsp_event: wake me with the next one
    send(bad, BROADCAST)
    crosses(one, two)
    crosses(two, one)


def test_strangers_on_the_socket(running: Running) -> None:
    one, two = running.front(), running.front()
    send(two, BROADCAST)
    with contextlib.ExitStack() as stack:
        for packet in (b"GET / HTTP/1.1", b"{}", b"", b'{"write": {"state": "4"}}'):
            stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(stranger)
            stranger.connect(str(running.layer.listen))
            stranger.send(packet)
        for _ in range(80):  # more than are let in
            waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(waiting)
            waiting.connect(str(running.layer.listen))
        crosses(one, two)
    wait_until(lambda: _opens(running), "a place after the strangers have gone")
    crosses(one, two)


def _opens(running: Running) -> bool:
    try:
        running.close_front(running.front())
    except (PeerGone, ProtocolError):
        return False
    return True
