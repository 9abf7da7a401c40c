"""Our own drivers in a guest: an emulated IOMMU, the kernel's VFIO, and a peer on the same card."""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.guests.guest_kit import READY_SECONDS, card, machine
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.table import DRIVERS, open_driver
from vfwire.drivers.verbs import Pool, burst
from vfwire.guests.cache import cache_directory, held
from vfwire.guests.guest import Guest
from vfwire.guests.image import Image
from vfwire.guests.python import build_with_python

pytestmark = [pytest.mark.guests, pytest.mark.timeout(420)]

FRAMES = 700  # more than either ring holds
SECONDS = 240.0
# 39 bits of I/O address, as small machines have: no room for a process's own addresses.
IOMMU = "intel-iommu,intremap=on,caching-mode=on,aw-bits=39"
SCRIPT = Path(__file__).parent / "own_driver.py"


def python_image() -> Image:
    """As `vfwire guest build --with-python` makes it; kept, and built again when this code is another."""
    place = cache_directory("guests", "with-python")
    with held(place):
        return build_with_python(place, progress=lambda text: print(f"guest image: {text}", file=sys.stderr))


class Echo:
    """A peer on the card that sends each frame back to its sender, until told to stop. Owns its thread."""

    def __init__(self, socket: Path) -> None:
        self.frames = 0
        self._socket = socket
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        frames = burst(32)
        with Pool() as pool, open_driver(VfioUserFunction(self._socket), pool) as nic:
            self._ready.set()
            while not self._stop.is_set():
                count = nic.receive(frames)
                for view in pool.views(frames[:count]):
                    view[:6] = view[6:12]
                    view[6:12] = list(nic.mac)
                self.frames += count
                sent = 0
                while sent < count and not self._stop.is_set():
                    sent += nic.transmit(frames[sent:count], count - sent)
                if not count:
                    self._stop.wait(0.001)  # TCG needs the core

    def __enter__(self) -> "Echo":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@dataclass
class Driven:
    """What the script in the guest said of one function; its counters afterwards; frames that its peer saw."""

    said: dict[str, Any]
    after: dict[str, Any]
    echoed: int


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Driven]]:
    """One guest for both drivers, one after the other: it takes a minute to boot and to import."""
    image = python_image()
    for driver in DRIVERS:
        driver.warm_up()
    with contextlib.ExitStack() as stack:
        cards = {
            "ixgbevf": stack.enter_context(card(tmp_path_factory.mktemp("i"), "--vfs", "2")),
            "ena": stack.enter_context(card(tmp_path_factory.mktemp("e"), "--vfs", "2", "--model", "ena")),
        }
        guest = machine(
            image=image,
            functions=tuple(made.sockets[0] for made in cards.values()),
            memory_mib=1536,
            machine_type="q35,kernel-irqchip=split",
            extra=("-device", IOMMU),
            append="intel_iommu=on no_timer_check",  # an emulator that waits for its core fails that check
            files={"/opt/own_driver.py": SCRIPT},
        )
        started = stack.enter_context(Guest(guest))
        echoes = {name: stack.enter_context(Echo(made.sockets[1])) for name, made in cards.items()}
        started.wait_ready(2 * READY_SECONDS)
        started.check("modprobe -a vfio-pci vfio_iommu_type1")
        command = f"NUMBA_DISABLE_JIT=1 python3 /opt/own_driver.py {FRAMES}"
        said = json.loads(started.check(command, timeout=SECONDS).splitlines()[-1])
        for name in said:
            said[name]["driver"] = started.check(f"ethtool -i {said[name]['interface']}")
        yield {
            name: Driven(said[name], made.counters()["0"], echoes[name].frames)
            for name, made in cards.items()
        }


@pytest.fixture(params=["ixgbevf", "ena"])
def run(request: pytest.FixtureRequest, runs: dict[str, Driven]) -> Driven:
    return runs[request.param]


def test_every_frame_goes_out_and_comes_back(run: Driven) -> None:
    said = run.said
    assert said["received"] == FRAMES and said["sum"] == FRAMES * (FRAMES + 1) // 2
    assert run.echoed >= FRAMES
    assert said["stats"]["tx_packets"] == FRAMES and said["stats"]["rx_packets"] >= FRAMES
    assert said["stats"]["rx_errors"] == said["stats"]["tx_busy"] == 0
    assert run.after["fault"] is None and run.after["bad_dma"] == 0


def test_an_interrupt_comes_with_a_frame_and_not_without(run: Driven) -> None:
    """By the eventfd that the kernel's VFIO was given for the vector."""
    assert run.said["woken"] == [[False, True]] * 3


def test_the_same_drivers_see_the_same_functions(runs: dict[str, Driven]) -> None:
    for name, rate in (("ixgbevf", 10_000_000_000), ("ena", 100_000_000_000)):
        said = runs[name].said
        assert (said["info"], said["link"]) == ([name, True], rate)
        assert said["mac"].count(":") == 5


def test_a_pool_of_scattered_pages_at_other_addresses(run: Driven) -> None:
    """More pages than a function has rows, each mapped by itself; addresses that a 39-bit IOMMU has."""
    assert run.said["pages"] > 500
    assert not run.said["own_addresses"]


def test_the_function_is_handed_over_and_back(runs: dict[str, Driven]) -> None:
    for name in runs:
        said = runs[name].said
        assert said["group"]
        assert (said["before"], said["had"], said["bound"], said["again"]) == (
            name, name, "vfio-pci", "vfio-pci",
        )  # fmt: skip
        assert said["back"] == name and f"driver: {name}\n" in said["driver"]


def test_what_cannot_be_says_why(runs: dict[str, Driven]) -> None:
    for name in runs:
        said = runs[name].said
        assert f"is bound to {name}, not to vfio-pci" in said["unbound"]
        assert said["up"].startswith("ResourceBusy") and f"ip link set {said['interface']} down" in said["up"]
        assert said["user"].startswith("PermissionDenied") and "/dev/vfio/" in said["user"]
        assert said["second"].startswith("ResourceBusy")
