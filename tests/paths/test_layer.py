"""A virtualization layer with real netfronts on its socket: come, go, sleep, misbehave, die."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vfwire.bus.xen.frontend import XenbusFrontend
from vfwire.drivers.netfront import TX_RING_REF, Netfront
from vfwire.drivers.verbs import Pool, burst
from vfwire.errors import PeerGone, ProtocolError, ResourceBusy, UsageError
from vfwire.layouts.xenbus import XenbusState
from vfwire.paths.layer import VirtualizationLayer

ETHERTYPE = b"\x88\xb5"
BROADCAST = bytes([255] * 6)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        os.sched_yield()


class Running:
    """A layer in a thread, and netfronts on it."""

    def __init__(self, listen: Path, uplink: Any = None, **options: Any) -> None:
        options.setdefault("cap_bps", None)
        self.layer = VirtualizationLayer(listen, uplink, **options)
        self.fronts: list[Netfront] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self.layer.run, args=(self._ready.set,))
        self._thread.start()
        assert self._ready.wait(120)

    def front(self, **options: Any) -> Netfront:
        pool = Netfront.new_pool(1024)
        try:
            driver = Netfront.open(self.layer.listen, pool, **options)
        except BaseException:
            pool.close()
            raise
        self.fronts.append(driver)
        return driver

    def close_front(self, driver: Netfront) -> None:
        self.fronts.remove(driver)
        driver.close()
        driver.pool.close()

    def stop(self) -> None:
        self.layer.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def close(self) -> None:
        for driver in list(self.fronts):
            self.close_front(driver)
        self.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "layer")
    yield made
    made.close()


def send(source: Netfront, to: bytes, payload: bytes = b"", size: int = 60) -> bytes:
    data = (to + source.mac + ETHERTYPE + payload).ljust(size, b"\0")
    frames = burst(1)
    words = source.pool.words[0]
    words.free -= 1
    frames[0].address = source.pool.stack[words.free]
    frames[0].length = len(data)
    source.pool.view(int(frames[0].address), size)[:] = np.frombuffer(data, np.uint8)
    wait_until(lambda: source.transmit(frames, 1) == 1, "room in the ring")
    return data


def receive(driver: Netfront) -> list[bytes]:
    frames = burst(64)
    found = []
    for frame in frames[: driver.receive(frames)]:
        address = int(frame.address)
        found.append(driver.pool.view(address, int(frame.length)).tobytes())
        words = driver.pool.words[0]
        driver.pool.stack[words.free] = address - (address - driver.pool.memory.address) % 4096
        words.free += 1
    return found


def crosses(source: Netfront, to: Netfront) -> None:
    data = send(source, to.mac, os.urandom(8))
    got: list[bytes] = []

    def arrived() -> bool:
        got.extend(receive(to))
        return data in got

    wait_until(arrived, "a frame to arrive")


def test_frames_cross_and_all_is_counted(running: Running) -> None:
    one, two = running.front(), running.front()
    assert one.info.driver == "netfront" and one.mtu == 1500
    assert one.mac[:3] == bytes.fromhex("00163e") and one.mac != two.mac
    send(two, BROADCAST)
    for _ in range(20):
        crosses(one, two)
    stats = running.layer.stats()
    assert stats["from_vifs_frames"] == stats["to_vifs_frames"] == 21
    assert stats["copied_bytes"] == 21 * (60 + 16)
    assert stats["drops"] == {} and stats["vifs"] == 2
    assert one.stats()["tx_packets"] == 20 and two.stats()["rx_packets"] == 20


def test_both_sides_sleep_and_wake(running: Running) -> None:
    """Request and answer where everybody sleeps in between: no event is missed."""
    one, two = running.front(), running.front()
    send(two, BROADCAST)
    assert one.wait_for_event(20) and receive(one)
    for _ in range(50):
        sleeps = running.layer.stats()["sleeps"]
        wait_until(
            lambda before=sleeps: running.layer.asleep or running.layer.stats()["sleeps"] > before, "sleep"
        )
        send(one, two.mac)
        assert two.wait_for_event(20)
        assert len(receive(two)) == 1
    stats = running.layer.stats()
    assert stats["notifications_received"] >= 40 and stats["sleeps"] >= 50
    assert stats["notifications_sent"] <= 2 * 52
    assert not two.wait_for_event(0.001)


def test_an_idle_layer_does_not_burn_its_core(running: Running) -> None:
    running.front()
    wait_until(lambda: running.layer.asleep, "sleep")
    rounds = running.layer.rounds
    before = time.process_time()
    running.front().wait_for_event(0.3)
    assert time.process_time() - before < 0.2
    assert running.layer.rounds - rounds < 20_000


def test_a_sent_frame_can_be_waited_for(running: Running) -> None:
    one = running.front()
    free = int(one.pool.words[0].free)
    send(one, BROADCAST)
    assert one.wait_for_event(20, sent=True)
    one.transmit(burst(1), 0)
    assert int(one.pool.words[0].free) == free


def test_the_mac_that_was_asked_for(running: Running) -> None:
    wish = bytes.fromhex("02aabbccddee")
    one, two = running.front(mac=wish), running.front(mac=wish)
    assert one.mac == wish != two.mac
    assert sorted(running.layer.macs) == sorted([wish, two.mac])
    with pytest.raises(ProtocolError, match="not a MAC"):
        running.front(mac=bytes.fromhex("010000000000"))


def test_netfronts_come_and_go_under_traffic(running: Running) -> None:
    one, two = running.front(), running.front()
    send(two, BROADCAST)
    free = running.layer._host.pool[0].free
    for _ in range(15):
        guest = running.front()
        send(guest, BROADCAST)
        crosses(one, two)
        running.close_front(guest)
        crosses(one, two)
    assert running.layer.stats()["vifs"] == 2
    assert running.layer._host.pool[0].free == free


def test_a_closed_netfront_has_all_its_buffers(running: Running) -> None:
    one, two = running.front(), running.front()
    send(two, BROADCAST)
    for _ in range(10):
        crosses(one, two)
    two.stop()
    receive(two)
    assert int(two.pool.words[0].free) == 1024
    two.stop()


def test_the_layer_stops(tmp_path: Path) -> None:
    running = Running(tmp_path / "layer")
    one = running.front()
    running.stop()
    with pytest.raises(PeerGone, match="stopped"):
        one.wait_for_event(20)
    with pytest.raises(PeerGone):
        one.check()
    running.fronts.clear()
    one.close()
    one.pool.close()
    assert not (tmp_path / "layer").exists()
    with pytest.raises(PeerGone, match="no virtualization layer"):
        running.front()


def test_two_layers_want_two_sockets(running: Running) -> None:
    second = VirtualizationLayer(running.layer.listen, None)
    with pytest.raises(ResourceBusy):
        second.run()
    running.front()


@pytest.mark.parametrize("cap", [0, -1.0, 1e13, float("nan")])
def test_caps_that_make_no_sense(tmp_path: Path, cap: float) -> None:
    with pytest.raises(UsageError):
        VirtualizationLayer(tmp_path / "layer", None, cap)


def test_a_pool_of_small_buffers_is_refused(running: Running) -> None:
    with Pool(16) as pool, pytest.raises(UsageError, match="new_pool"):
        Netfront.open(running.layer.listen, pool)


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
    assert running.layer.stats()["vifs"] == 0
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
    assert running.layer.stats()["vifs"] == 2


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


VICTIM = """
import sys
from pathlib import Path
from vfwire.drivers.netfront import Netfront
from vfwire.drivers.verbs import burst
driver = Netfront.open(Path(sys.argv[1]), Netfront.new_pool(1024), timeout=60)
frames = burst(32)
print("up", flush=True)
while True:
    words = driver.pool.words[0]
    count = min(32, int(words.free))
    for i in range(count):
        words.free -= 1
        frames[i].address = driver.pool.stack[words.free]
        frames[i].length = 60
        driver.pool.view(int(frames[i].address), 12)[:] = [255] * 6 + list(driver.mac)
    taken = driver.transmit(frames, count)
    for i in range(taken, count):
        driver.pool.stack[words.free] = frames[i].address
        words.free += 1
    for frame in frames[: driver.receive(frames)]:
        driver.pool.stack[words.free] = int(frame.address) & ~4095
        words.free += 1
"""


def test_kill_9_of_netfronts_under_traffic(running: Running, soaking: bool) -> None:
    """At any moment: the layer takes the vif out, lets its memory go, and serves the others and the next one."""
    one, two = running.front(), running.front()
    send(two, BROADCAST)
    maps = memfds()
    for _ in range(100 if soaking else 4):
        command = [sys.executable, "-c", VICTIM, str(running.layer.listen)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None and victim.stdout.readline() == b"up\n"
            crosses(one, two)
            victim.send_signal(signal.SIGKILL)
        crosses(two, one)
        wait_until(lambda: running.layer.stats()["vifs"] == 2, "the dead vif to go")
    wait_until(lambda: memfds() == maps, "the dead netfronts' memory to go")
    crosses(one, two)


def memfds() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:vfwire-pool")


def test_two_layers_with_a_wire_between(tmp_path: Path) -> None:
    """The uplink of one is a netfront of the other, without an interrupt of its own: sleeps are short, nothing is
    lost."""
    far = Running(tmp_path / "far")
    uplink = far.front()
    near = Running(tmp_path / "near", uplink)
    one, there = near.front(), far.front()
    send(there, BROADCAST)
    wait_until(lambda: bool(receive(one)), "the first frame")
    for _ in range(30):
        crosses(one, there)
        crosses(there, one)
    stats = near.layer.stats()
    assert stats["to_uplink_frames"] == 30 and stats["from_uplink_frames"] == 31
    assert stats["drops"] == {}
    near.close()
    far.close()


def test_an_uplink_with_an_interrupt(tmp_path: Path) -> None:
    """Armed before each sleep; its event wakes the layer, which without one would sleep on."""
    far = Running(tmp_path / "far")
    uplink = far.front()
    armed: list[bool] = []

    def arm() -> None:
        armed.append(uplink.arm())

    near = Running(tmp_path / "near", uplink, uplink_event=uplink.event_fds[0], uplink_arm=arm)
    one, there = near.front(), far.front()
    send(there, BROADCAST)
    wait_until(lambda: bool(receive(one)), "the first frame")
    for _ in range(10):
        wait_until(lambda: near.layer.asleep, "sleep")
        crosses(there, one)
    assert armed and near.layer.stats()["uplink_interrupts"] >= 5
    near.close()
    far.close()
