"""An ENA's guest that fills its rings with noise: its neighbours lose nothing, and a reset heals it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from ena_guest_kit import DEVICE, MEMORY, MEMORY_BYTES, RINGS, RX, TX, EnaGuest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_ena_admin import llq_choice

from tests.waiting import wait_until
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.datapath.state import Drop
from vfwire.devices import ena_pages as pages
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import Pool, burst
from vfwire.layouts import ena_admin as admin

SECONDS = 20.0
_RING = RINGS + 0x8000  # where EnaGuest.queue puts the first transmit ring


class Scene:
    """A running card: two drivers that exchange frames, and a hostile guest on VF 2."""

    def __init__(self, card: Card, nics: list[Ena], hostile: EnaGuest) -> None:
        self.card, self.nics, self.hostile = card, nics, hostile

    def exchange(self, rounds: int = 20) -> None:
        """Each sends 8 frames to the other in each round; all arrive, in order, unchanged."""
        for number in range(rounds):
            for source, to in (self.nics, self.nics[::-1]):
                sent = [to.mac + source.mac + b"\x88\xb5" + bytes([number, place]) * 40 for place in range(8)]
                frames = burst(8)
                assert source.pool.take(frames, 100) == 8
                for frame, data in zip(frames, sent, strict=True):
                    frame.length = len(data)
                    source.pool.view(int(frame.address), len(data))[:] = np.frombuffer(data, np.uint8)
                assert source.transmit(frames, 8) == 8
                assert self._receive(to, source, 8) == sent

    def _receive(self, nic: Ena, source: Ena, count: int) -> list[bytes]:
        found: list[bytes] = []
        frames = burst(32)

        def all_here() -> bool:
            taken = frames[: nic.receive(frames)]
            found.extend(view.tobytes() for view in nic.pool.views(taken))
            nic.pool.give(taken)
            found[:] = [
                frame for frame in found if frame[6:12] == source.mac
            ]  # the hostile one may send, too
            return len(found) >= count

        wait_until(all_here, f"{count} frames")
        return found

    def heals(self) -> None:
        """After a reset the hostile guest's function works as any other."""
        self.hostile.bring_up()
        assert self.hostile.queue(TX)[0] == self.hostile.queue(RX)[0] == 0
        assert self.hostile.record.fault == -1


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    Engine.warm_up()
    Ena.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(3)])
        stack.callback(engine.close)
        card = Card(engine, 0, "card", 3, line_rate_bps=None, model="ena")
        stack.callback(card.close)
        engine.start()
        nics = []
        for vf in range(2):
            server = Server(card.vfs[vf], directory / str(vf))
            server.start()
            stack.callback(server.stop)
            pool = stack.enter_context(Pool(2048))
            nics.append(stack.enter_context(Ena.open(VfioUserFunction(directory / str(vf)), pool)))
            nics[-1].wait_link_up()
        hostile = EnaGuest(card.vfs[2])
        stack.callback(hostile.close)
        yield Scene(card, nics, hostile)


@pytest.mark.parametrize("direction", [TX, RX])
def test_doorbells_far_ahead_stop_their_own_function(scene: Scene, direction: int) -> None:
    guest = scene.hostile
    guest.bring_up()
    guest.queue(TX)
    guest.queue(RX)
    guest.write(pages.tx_doorbell(0) if direction == TX else pages.rx_doorbell(0), 0x8000)
    if direction == RX:  # looked at when a frame comes
        send_to(scene, guest)
    wait_until(lambda: guest.record.fault == int(Drop.BAD_DESCRIPTOR), "the fault")
    guest.function.tick()
    events = []
    while (event := guest.event()) is not None:
        events.append(event[0])
    assert admin.FATAL_ERROR in events
    scene.exchange()
    scene.heals()


def send_to(scene: Scene, guest: EnaGuest) -> None:
    """A neighbour sends one frame to the hostile guest."""
    source = scene.nics[0]
    frames = burst(1)
    assert source.pool.take(frames, 60) == 1
    data = guest.function.port.mac + source.mac + b"\x88\xb5" + bytes(46)
    frames[0].length = len(data)
    source.pool.view(int(frames[0].address), len(data))[:] = np.frombuffer(data, np.uint8)
    assert source.transmit(frames, 1) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(noise=st.binary(min_size=16, max_size=4096), tail=st.integers(1, 256), seed=st.integers(0, 2**32 - 1))
def test_noise_in_a_transmit_ring(scene: Scene, noise: bytes, tail: int, seed: int) -> None:
    guest = scene.hostile
    guest.bring_up()
    guest.queue(TX)
    guest.queue(RX)
    guest.poke(_RING, (noise * 256)[:4096] if seed % 2 else np.random.default_rng(seed).bytes(4096))
    guest.write(pages.tx_doorbell(0), tail)
    scene.exchange(2)
    scene.heals()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    tail=st.integers(1, 256),
    shape=st.sampled_from([(1, 1, 2, 2), (1, 4, 8, 2)]),
)
def test_noise_in_a_low_latency_queue(
    scene: Scene, seed: int, tail: int, shape: tuple[int, int, int, int]
) -> None:
    guest = scene.hostile
    guest.bring_up()
    assert guest.set_feature(admin.LLQ, llq_choice(*shape))[0] == 0
    guest.queue(TX, placement=DEVICE)
    guest.function._bar2.array[:0x20000] = np.random.default_rng(seed).integers(
        0, 256, 0x20000, dtype=np.uint8
    )
    guest.write(pages.tx_doorbell(0), tail)
    scene.exchange(2)
    scene.heals()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), tail=st.integers(1, 256))
def test_noise_in_a_receive_ring_and_the_interrupt_words(scene: Scene, seed: int, tail: int) -> None:
    guest = scene.hostile
    guest.bring_up()
    guest.queue(TX)
    guest.queue(RX)
    noise = np.random.default_rng(seed)
    guest.poke(RINGS + 0x18000, noise.bytes(4096))
    guest.write(pages.rx_doorbell(0), tail)
    for vector in range(pages.MSIX_VECTORS):
        guest.write(pages.interrupt_register(vector), int(noise.integers(0, 1 << 32)))
    for _ in range(4):
        send_to(scene, guest)
    scene.exchange(2)
    scene.heals()


def test_queues_that_go_under_traffic(scene: Scene) -> None:
    guest = scene.hostile
    for step in ("destroy", "reset", "unmap", "no bus master"):
        guest.bring_up()
        index, _ = guest.queue(TX)
        guest.queue(RX)
        guest.write(pages.tx_doorbell(0), 256)
        guest.write(pages.rx_doorbell(0), 256)
        send_to(scene, guest)
        if step == "destroy":
            assert guest.destroy_sq(TX, index) == 0
        elif step == "reset":
            guest.reset()
        elif step == "unmap":
            guest.function.dma_unmap(MEMORY, MEMORY_BYTES)
            guest.map_memory()
        else:
            guest.bus_master(on=False)
            guest.bus_master()
        scene.exchange(5)
        scene.heals()
