"""Tags of the guests' own between ENAs, which ask nobody for a VLAN, and an 82599, which asks its PF, over a link."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.devices.hosting import HostedCard
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool, burst

SECONDS = 20.0
MARK = b"\x88\xb5"


class Wire:
    """An ENA's card with two VFs and an 82599's with one, linked; a driver on each, in this order."""

    def __init__(self, cards: list[Card], nics: list[FunctionDriver]) -> None:
        self.cards = cards
        self.nics = nics


@pytest.fixture
def wire() -> Iterator[Wire]:
    Engine.warm_up()
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="vfw"))
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(2), functions_of(1)])
        stack.callback(engine.close)
        made = Wire([], [])
        stack.callback(made.nics.clear)  # a driver's views keep its pool's memory
        for number, (name, vfs) in enumerate((("ena", 2), ("82599", 1))):
            card = Card(engine, number, name, vfs, line_rate_bps=None, model=name)
            stack.callback(card.close)
            made.cards.append(card)
        made.cards[0].join(made.cards[1])
        engine.start()
        for card in made.cards:
            (directory / card.name).mkdir()
            hosted = HostedCard(card, directory / card.name)
            stack.callback(hosted.close)
            for vf in range(len(card.vfs)):
                pool = stack.enter_context(Pool(1024))
                nic = open_driver(VfioUserFunction(hosted.socket(vf)), pool, ring_size=256, vlan_strip=False)
                made.nics.append(stack.enter_context(nic))
                nic.wait_link_up()
        yield made


def tagged(to: bytes, source: bytes, vlan: int, text: bytes) -> bytes:
    tag = b"\x81\x00" + vlan.to_bytes(2, "big") if vlan else b""
    return (to + source + tag + MARK + text).ljust(64, b".")


def send(nic: FunctionDriver, data: bytes) -> None:
    frames = burst(1)
    assert nic.pool.take(frames, len(data)) == 1
    nic.pool.views(frames)[0][:] = np.frombuffer(data, np.uint8)
    assert nic.transmit(frames, 1) == 1


def arrives(nic: FunctionDriver, data: bytes) -> None:
    """The next frame is this one."""
    frames, deadline = burst(1), time.monotonic() + SECONDS
    while not nic.receive(frames):
        assert time.monotonic() < deadline, "nothing came"
    assert nic.pool.views(frames)[0].tobytes() == data
    nic.pool.give(frames)


@pytest.mark.parametrize("vlan", [1, 100, 0x6005, 4094])
def test_a_tag_passes_between_two_enas_and_an_82599_that_asked(wire: Wire, vlan: int) -> None:
    one, two, intel = wire.nics
    intel.hear((), (vlan & 0xFFF,))
    for source, to in ((one, two), (two, one), (one, intel), (intel, two), (two, intel), (intel, one)):
        data = tagged(to.mac, source.mac, vlan, b"tagged")
        send(source, data)
        arrives(to, data)


def test_an_ena_in_a_port_vlan_is_out_of_all_others(wire: Wire) -> None:
    """Until the operator takes it out again: then it has every VLAN as before."""
    one, two, intel = wire.nics
    intel.hear((), (5,))
    wire.cards[0].change(1, {"vlan": 9})
    for source in (one, intel):
        send(source, tagged(two.mac, source.mac, 5, b"not for it"))
    broadcast = tagged(b"\xff" * 6, one.mac, 5, b"for others")
    send(one, broadcast)
    arrives(intel, broadcast)
    wire.cards[0].change(1, {"vlan": 0})
    wanted = tagged(two.mac, one.mac, 5, b"for it")
    send(one, wanted)
    arrives(two, wanted)
    assert wire.cards[0].counters()["vfs"]["1"]["rx_frames"] == 1
