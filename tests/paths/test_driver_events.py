"""Drivers that one can sleep on: an armed function wakes for every frame, and starts again when it has to."""

import select
import time

import pytest
from card_kit import drivers, on_a_card

from vfwire.devices.models import MODELS
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.verbs import burst
from vfwire.errors import WaitTimeout

SECONDS = 20.0


def send(nic: FunctionDriver, to: bytes, count: int = 1) -> None:
    frames = burst(count)
    assert nic.pool.take(frames, 60) == count
    for view in nic.pool.views(frames):
        view[:] = bytearray((to + nic.mac + b"\x88\xb5").ljust(60, b"\0"))
    assert nic.transmit(frames, count) == count


def take(nic: FunctionDriver) -> int:
    frames = burst(64)
    count = nic.receive(frames)
    nic.pool.give(frames[:count])
    return count


def wait_frames(nic: FunctionDriver, count: int) -> int:
    """Sleep on the driver's events until `count` frames have come; returns how often it slept."""
    poller = select.poll()
    for fd in nic.event_fds:
        poller.register(fd, select.POLLIN)
    got, slept = 0, 0
    while got < count:
        came = take(nic)
        if came == 0:
            nic.arm()
            came = take(nic)
            if came == 0:
                slept += 1
                assert poller.poll(SECONDS * 1000), f"no event, {got} of {count} frames"
        got += came
    return slept


@pytest.mark.parametrize("model", MODELS)
def test_no_wake_up_is_lost(model: str) -> None:
    with on_a_card(2, model=model) as (_, (one, other)):
        other.enable_receive_events()
        for count in [*range(1, 40), *[1] * 60]:
            send(one, other.mac, count)
            wait_frames(other, count)


@pytest.mark.parametrize("model", MODELS)
def test_an_event_comes_once_and_only_when_armed(model: str) -> None:
    with on_a_card(2, model=model) as (_, (one, other)):
        fds = other.event_fds[:1]  # of frames: an ENA also has something to say each second
        other.disarm()
        send(one, other.mac)
        deadline = time.monotonic() + SECONDS
        while take(other) == 0:
            assert time.monotonic() < deadline
        assert not select.select(fds, [], [], 0)[0]
        other.arm()  # the frame that came meanwhile counts
        assert select.select(fds, [], [], SECONDS)[0]
        other.arm()
        assert not select.select(fds, [], [], 0.05)[0]
        before = one.traps + other.traps
        send(one, other.mac)
        assert select.select(fds, [], [], SECONDS)[0]
        assert one.traps + other.traps == before


@pytest.mark.parametrize("model", MODELS)
def test_all_queues_wake(model: str) -> None:
    with on_a_card(2, model=model, queues=2) as (_, (one, other)):
        other.enable_receive_events()
        assert len(other.event_fds) == 2
        send(one, other.mac)
        poller = select.poll()
        poller.register(other.event_fds[0], select.POLLIN)
        other.arm()
        assert poller.poll(SECONDS * 1000)


@pytest.mark.parametrize("model", MODELS)
def test_a_restart_takes_the_rings_again(model: str) -> None:
    with on_a_card(2, model=model) as (_, (one, other)):
        free = int(other.pool.words[0].free) + int(other.rx[0].tail)
        other.enable_receive_events()
        for _ in range(3):
            send(one, other.mac)
            wait_frames(other, 1)
            other.restart()
            other.wait_link_up()
        assert int(other.pool.words[0].free) + int(other.rx[0].tail) == free
        send(one, other.mac, 10)
        wait_frames(other, 10)
        assert not other.must_restart()


def test_what_was_sent_is_waited_for() -> None:
    with drivers(2) as (one, other):
        send(one, other.mac, 50)
        one.wait_sent()
        wait_frames(other, 50)
        one.tx[0].tail += 1  # a frame that no card was told of
        with pytest.raises(WaitTimeout, match="queue 0 is not sent"):
            one.wait_sent(0.05)
        one.tx[0].tail -= 1


def test_more_groups_than_a_vf_can_ask_for_need_trust() -> None:
    groups = [b"\x33\x33\xff\x00" + number.to_bytes(2, "big") for number in range(40)]
    with drivers(2, trust=True) as (one, other):
        other.listen(groups[:1])
        send(one, groups[5])
        send(one, groups[0])
        wait_frames(other, 1)
        assert take(other) == 0  # the group that it had not asked for came first, and was not for it
        other.listen(groups)
        send(one, b"\x33\x33\xff\x01\x99\x99")
        wait_frames(other, 1)
