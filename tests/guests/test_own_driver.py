"""Our own driver in a guest: an emulated IOMMU, the kernel's VFIO, and a peer on the same card."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guests.guest_kit import READY_SECONDS, RunningCard, card, machine
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import Pool, burst
from vfwire.guests.cache import cache_directory, held
from vfwire.guests.guest import Guest
from vfwire.guests.image import Image
from vfwire.guests.python import build_with_python

pytestmark = [pytest.mark.guests, pytest.mark.timeout(420)]

FRAMES = 700  # more than either ring holds
EVENTS = 20
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
        with Pool() as pool, Ixgbevf.open(VfioUserFunction(self._socket), pool) as nic:
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


@pytest.fixture(scope="module")
def running_card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCard]:
    with card(tmp_path_factory.mktemp("c"), "--vfs", "2") as made:
        yield made


@pytest.fixture(scope="module")
def run(running_card: RunningCard) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any], int]]:
    """What the script in the guest said; the function's counters before and after; frames that the peer saw."""
    guest = machine(
        image=python_image(),
        functions=(running_card.sockets[0],),
        addresses=("eth0:10.9.0.1/24",),
        memory_mib=1536,
        machine_type="q35,kernel-irqchip=split",
        extra=("-device", IOMMU),
        append="intel_iommu=on",
        files={"/opt/own_driver.py": SCRIPT},
    )
    Ixgbevf.warm_up()
    with Guest(guest) as started, Echo(running_card.sockets[1]) as echo:
        started.wait_ready(2 * READY_SECONDS)
        before = running_card.counters()["0"]
        started.check("modprobe -a vfio-pci vfio_iommu_type1")
        command = f"NUMBA_DISABLE_JIT=1 python3 /opt/own_driver.py {FRAMES} {EVENTS}"
        said = json.loads(started.check(command, timeout=SECONDS).splitlines()[-1])
        said["driver"] = started.check("ethtool -i eth0")
        yield said, before, running_card.counters()["0"], echo.frames


def test_every_frame_goes_out_and_comes_back(run: Any) -> None:
    said, _, after, echoed = run
    assert said["received"] == FRAMES and said["sum"] == FRAMES * (FRAMES + 1) // 2
    assert echoed >= FRAMES
    assert said["stats"]["tx_packets"] == FRAMES and said["stats"]["rx_packets"] >= FRAMES
    assert said["stats"]["rx_errors"] == said["stats"]["tx_busy"] == 0
    assert after["fault"] is None and after["bad_dma"] == 0


def test_interrupts_come_by_eventfd(run: Any) -> None:
    """Through the kernel's VFIO: each frame is looked for only when its interrupt has been told of."""
    said, before, after, _ = run
    assert said["events"]["told"] == EVENTS <= said["events"]["signals"]
    assert after["interrupts"] - before["interrupts"] >= EVENTS


def test_the_same_driver_sees_the_same_function(run: Any) -> None:
    said, *_ = run
    assert said["info"] == ["ixgbevf", True]
    assert said["link"] == 10_000_000_000
    assert said["mac"].count(":") == 5


def test_a_pool_of_scattered_pages_at_other_addresses(run: Any) -> None:
    """More pages than a function has rows, each mapped by itself; addresses that a 39-bit IOMMU has."""
    said, *_ = run
    assert said["pages"] > 500
    assert not said["own_addresses"]


def test_the_function_is_handed_over_and_back(run: Any) -> None:
    said, *_ = run
    assert said["group"]
    assert (said["before"], said["had"], said["bound"], said["again"]) == (
        "ixgbevf", "ixgbevf", "vfio-pci", "vfio-pci",
    )  # fmt: skip
    assert said["back"] == "ixgbevf" and "driver: ixgbevf\n" in said["driver"]


def test_what_cannot_be_says_why(run: Any) -> None:
    said, *_ = run
    assert "is bound to ixgbevf, not to vfio-pci" in said["unbound"]
    assert said["up"].startswith("ResourceBusy") and "ip link set eth0 down" in said["up"]
    assert said["user"].startswith("PermissionDenied") and "/dev/vfio/" in said["user"]
    assert said["second"].startswith("ResourceBusy")
