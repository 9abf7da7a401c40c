"""Frames between functions while their card is changed, reset, unmapped and pulled apart under them."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.devices.hosting import HostedCard
from vfwire.devices.link import Cable
from vfwire.devices.settings import format_mac
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import Pool, burst
from vfwire.layouts import ixgbevf as regs

BROADCAST = b"\xff" * 6
OTHER = bytes.fromhex("020000000077")


class Bench:
    """Cards of one or more engines, and drivers on their functions."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.directory = Path(tempfile.mkdtemp(prefix="vfw"))
        stack.callback(shutil.rmtree, self.directory)
        Engine.warm_up()

    def cards(self, *vfs: int, **options: object) -> list[Card]:
        """Cards of one engine, in sockets."""
        engine = Engine([functions_of(count) for count in vfs])
        self.stack.callback(engine.close)
        made = []
        for number, count in enumerate(vfs):
            name = f"card{len(list(self.directory.iterdir()))}"
            card = Card(engine, number, name, count, **options)  # type: ignore[arg-type]
            self.stack.callback(card.close)
            (self.directory / name).mkdir()
            made.append(card)
        engine.start()
        for card in made:
            self.stack.callback(HostedCard(card, self.directory / card.name).close)
        return made

    def nic(self, card: Card, vf: int, *, mtu: int = 1500) -> Ixgbevf:
        function = VfioUserFunction(self.directory / card.name / f"vf{vf}.sock")
        pool = self.stack.enter_context(Pool(1024))
        nic = self.stack.enter_context(Ixgbevf.open(function, pool, ring_size=256, mtu=mtu))
        nic.receive(burst(1))  # compiled outside of any bounded wait
        nic.transmit(burst(1), 0)
        return nic


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def frame(to: bytes, source: bytes, number: int, length: int = 60) -> bytes:
    return (to + source + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(length, b"\xa5")


def send(nic: Ixgbevf, frames: list[bytes]) -> None:
    """Hand frames to the card; waits for room in the ring, not for their arrival."""
    one, words = burst(1), nic.pool.words[0]
    for data in frames:
        wait_for(lambda: nic.transmit(one, 0) >= 0 and words.free > 0)
        words.free -= 1
        one[0].address = int(nic.pool.stack[words.free])
        one[0].length = len(data)
        one[0].flags = 0
        nic.pool.view(int(one[0].address), len(data))[:] = np.frombuffer(data, np.uint8)
        wait_for(lambda: nic.transmit(one, 1) == 1)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0)


def take(nic: Ixgbevf, count: int) -> list[bytes]:
    """`count` frames, in the order in which they came."""
    found: list[bytes] = []
    some = burst(32)

    def more() -> bool:
        for index in range(nic.receive(some, 32)):
            entry = some[index]
            found.append(nic.pool.view(int(entry.address), int(entry.length)).tobytes())
            words = nic.pool.words[0]
            nic.pool.stack[words.free] = entry.address
            words.free += 1
        return len(found) >= count

    wait_for(more)
    return found


def drops(card: Card, vf: int) -> dict[str, int]:
    counted: dict[str, int] = card.counters()["vfs"][str(vf)]["drops"]
    return counted


def passes(sender: Ixgbevf, receiver: Ixgbevf, count: int = 40) -> None:
    """All of `count` frames arrive, unchanged and in order."""
    frames = [frame(receiver.mac, sender.mac, number) for number in range(count)]
    send(sender, frames)
    assert take(receiver, count) == frames


def is_dropped(card: Card, vf: int, cause: str, sender: Ixgbevf, frames: list[bytes]) -> None:
    before = drops(card, vf).get(cause, 0)
    send(sender, frames)
    wait_for(lambda: drops(card, vf).get(cause, 0) == before + len(frames))


def test_between_functions_of_one_card_and_of_two(bench: Bench) -> None:
    first, second = bench.cards(2, 1)
    first.join(second)
    near, beside, far = bench.nic(first, 0), bench.nic(first, 1), bench.nic(second, 0)
    for sender, receiver in ((near, beside), (near, far), (far, beside), (beside, near)):
        passes(sender, receiver)
    everywhere = frame(BROADCAST, near.mac, 1)
    send(near, [everywhere])
    assert take(beside, 1) == take(far, 1) == [everywhere]
    first.part()
    is_dropped(first, 0, "link down", near, [frame(BROADCAST, near.mac, 2)])


def test_port_vlans_separate_and_join(bench: Bench) -> None:
    (card,) = bench.cards(3)
    one, two, three = (bench.nic(card, vf) for vf in range(3))
    card.change(0, {"vlan": 5})
    is_dropped(card, 0, "no such destination", one, [frame(two.mac, one.mac, 0)])
    card.change(1, {"vlan": 5, "qos": 3})
    passes(one, two)
    is_dropped(card, 2, "no such destination", three, [frame(two.mac, three.mac, 0)])
    card.change(0, {"vlan": 0})
    card.change(1, {"vlan": 0, "qos": 0})
    passes(three, two)
    passes(one, two)


def test_spoof_check_and_macs(bench: Bench) -> None:
    (card,) = bench.cards(2)
    one, two = bench.nic(card, 0), bench.nic(card, 1)
    forged = frame(two.mac, OTHER, 0)
    passes(one, two)
    is_dropped(card, 0, "spoof check", one, [forged])
    card.change(0, {"spoofchk": False})
    send(one, [forged])
    assert take(two, 1) == [forged]
    card.change(0, {"spoofchk": True, "mac": format_mac(OTHER)})
    send(one, [forged])
    assert take(two, 1) == [forged]
    is_dropped(card, 1, "no such destination", two, [frame(one.mac, two.mac, 0)])


def test_link_states_stop_both_ways(bench: Bench) -> None:
    (card,) = bench.cards(2)
    one, two = bench.nic(card, 0), bench.nic(card, 1)
    passes(one, two)
    card.change(1, {"state": "disable"})
    is_dropped(card, 1, "link down", one, [frame(two.mac, one.mac, 0)] * 3)
    is_dropped(card, 1, "link down", two, [frame(one.mac, two.mac, 0)] * 3)
    card.change(1, {"state": "enable"})
    passes(one, two)


def test_a_rate_is_kept(bench: Bench) -> None:
    (card,) = bench.cards(2)
    one, two = bench.nic(card, 0), bench.nic(card, 1)
    card.change(0, {"max_tx_rate": 20})
    frames = [frame(two.mac, one.mac, number, 1514) for number in range(200)]
    start = time.monotonic()
    send(one, frames)
    assert take(two, 200) == frames
    expected = 200 * (1514 + 24) * 8 / 20e6
    assert time.monotonic() - start > expected * 0.9
    assert card.counters()["vfs"]["0"]["throttled"] > 0


@pytest.mark.parametrize(("mtu", "length"), [(1500, 1514), (9000, 9014)])
def test_the_longest_frame_of_a_card(bench: Bench, mtu: int, length: int) -> None:
    (card,) = bench.cards(2, mtu=mtu)
    one, two = bench.nic(card, 0, mtu=mtu), bench.nic(card, 1)
    passes(one, two)
    is_dropped(card, 1, "longer than the receiver takes", one, [frame(two.mac, one.mac, 0, 1515)])
    three = [frame(one.mac, two.mac, number, 1514) for number in range(3)]
    send(two, three)
    assert take(one, 3) == three
    assert one.mtu + 14 == length


def test_a_neighbour_that_resets_without_end_costs_no_frame(bench: Bench) -> None:
    (card,) = bench.cards(3)
    one, two = bench.nic(card, 0), bench.nic(card, 1)
    hostile = VfioUserFunction(bench.directory / card.name / "vf2.sock")
    end = threading.Event()

    def resets() -> None:
        while not end.is_set():
            hostile.write32(0, regs.VFCTRL, regs.CTRL_RST)

    thread = threading.Thread(target=resets)
    thread.start()
    try:
        for _ in range(10):
            passes(one, two, 100)
    finally:
        end.set()
        thread.join()
        hostile.close()
    assert drops(card, 0) == drops(card, 1) == {}


def test_memory_that_goes_under_traffic_stops_its_own_function_only(bench: Bench) -> None:
    (card,) = bench.cards(3)
    one, two, three = (bench.nic(card, vf) for vf in range(3))
    passes(one, two)
    card.vfs[1].dma_unmap_all()
    wait_for(lambda: card.counters()["vfs"]["1"]["fault"] == "bad DMA address")
    is_dropped(card, 1, "receiver not enabled", one, [frame(two.mac, one.mac, 0)] * 5)
    passes(one, three)
    passes(three, one)
    card.vfs[1].region_write(0, regs.VFCTRL, regs.CTRL_RST.to_bytes(4, "little"))
    assert card.counters()["vfs"]["1"]["fault"] is None


def test_a_client_that_vanishes_takes_nothing_with_it(bench: Bench) -> None:
    (card,) = bench.cards(2)
    one, two = bench.nic(card, 0), bench.nic(card, 1)
    passes(one, two)
    mac = two.mac
    two.close()
    wait_for(lambda: not card.vfs[1].attached)
    is_dropped(card, 1, "receiver not enabled", one, [frame(mac, one.mac, 0)] * 2)
    passes(one, bench.nic(card, 1))


def test_a_cable_carries_frames_between_engines(bench: Bench, tmp_path: Path) -> None:
    (near,), (far,) = bench.cards(1), bench.cards(1)
    cables = [Cable(card, tmp_path / "cable") for card in (near, far)]
    wait_for(lambda: near.link_up and far.link_up)
    one, two = bench.nic(near, 0), bench.nic(far, 0)
    passes(one, two, 100)
    passes(two, one, 100)
    assert near.counters()["link_frames"] == far.counters()["link_in_frames"] == 100
    cables[1].close()
    wait_for(lambda: not near.link_up)
    is_dropped(near, 0, "link down", one, [frame(two.mac, one.mac, 0)] * 3)
    cables[0].close()
