"""A virtualization layer with real netfronts on its socket: come, go, sleep, misbehave, die."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from layer_kit import BROADCAST, Running, crosses, receive, send, wait_until

from vfwire.drivers.netfront import Netfront
from vfwire.drivers.verbs import Pool, burst
from vfwire.errors import PeerGone, ProtocolError, ResourceBusy, UsageError
from vfwire.paths.layer import VirtualizationLayer


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "layer")
    yield made
    made.close()


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
    wait_until(lambda: running.layer.stats()["vifs"] == 2, "the last vif to go")
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
