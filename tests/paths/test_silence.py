"""A driver's end on a device that does not obey: no buffer that the device may write to goes back to the pool."""

from typing import Any

import numpy as np
import pytest
from card_kit import on_a_card

from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import burst
from vfwire.errors import WaitTimeout

MARK = 0x11


def taken(nic: Any) -> list[int]:
    """All buffers that its pool has free, taken by an application that writes into them."""
    frames = burst(int(nic.pool.words[0].free))
    count = nic.pool.take(frames, nic.pool.buffer_bytes)
    assert count == len(frames) > 0
    for address in frames.address.tolist():
        nic.pool.view(address, 256)[:] = MARK
    return [int(address) for address in frames.address]


def send(source: Any, to: Any, count: int = 40) -> None:
    frames = burst(count)
    assert source.pool.take(frames, 200) == count
    for frame in frames:
        data = source.pool.view(int(frame.address), 200)
        data[:] = 0x5A
        data[:14] = np.frombuffer(to.mac + source.mac + b"\x88\xb5", np.uint8)
        frame.length = 200
    assert source.transmit(frames, count) == count
    source.wait_sent()


def untouched(nic: Any, addresses: list[int]) -> bool:
    return all((nic.pool.view(address, 256) == MARK).all() for address in addresses)


def whole(nic: Any, out: int = 0) -> bool:
    """Every buffer but `out` is in its pool."""
    return int(nic.pool.words[0].free) + out == int(nic.pool.words[0].buffers)


@pytest.mark.parametrize("model", ["82599", "ena"])
def test_buffers_stay_in_the_rings_of_a_device_that_goes_on(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_a_card(2, model=model, pool_size=4096) as (_, (nic, other)):

        def refuse() -> None:
            raise WaitTimeout("the device does not obey")

        with monkeypatch.context() as patch:
            patch.setattr(nic, "_silence", refuse)
            with pytest.raises(WaitTimeout):
                nic.stop()
            assert not whole(nic)
            addresses = taken(nic)
            send(other, nic)
            assert untouched(nic, addresses)
            nic.close()
        assert whole(nic, out=len(addresses))
        send(other, nic)
        assert untouched(nic, addresses)


def test_an_ena_is_reset_though_its_admin_queue_does_not_answer() -> None:
    with on_a_card(2, model="ena", pool_size=4096) as (card, (nic, other)):
        assert isinstance(nic, Ena)
        nic.admin.seconds = 0.1
        card.vfs[0].fail("admin")
        nic.stop()
        assert whole(nic)
        addresses = taken(nic)
        send(other, nic)
        assert untouched(nic, addresses)


def test_an_ena_that_cannot_be_reset_keeps_its_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_a_card(2, model="ena", pool_size=4096) as (_, (nic, other)):
        assert isinstance(nic, Ena)

        def refuse(reason: int) -> None:
            raise WaitTimeout(f"no reset for reason {reason}")

        with monkeypatch.context() as patch:
            patch.setattr(nic.admin, "reset", refuse)
            with pytest.raises(WaitTimeout):
                nic.restart()
        addresses = taken(nic)
        send(other, nic)
        assert untouched(nic, addresses)
        nic.restart()
        assert nic.resets == 1
