"""ENAs that are other than by default, in one guest: what its own driver makes of each, and that it moves frames.

Each card has two VFs; the guest has all of them, the second of each in a network namespace of its own.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guests.guest_kit import RunningCard, card, guest_image, machine
from tests.guests.stock_kit import READY_SECONDS, TROUBLE, ping
from vfwire.guests.guest import Guest

pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]

WITHOUT = (
    *("CUSTOMER_METRICS", "ENI_STATS", "HOST_ATTR_CONFIG", "HW_HINTS", "INTERRUPT_MODERATION", "KEEP_ALIVE"),
    *("LINK_CONFIG", "LLQ", "MAX_QUEUES_EXT", "MTU"),
    *("RSS_HASH_FUNCTION", "RSS_HASH_INPUT", "RSS_INDIRECTION_TABLE_CONFIG"),
)
CARDS = {  # a second VF, where there is one, is the first one's peer
    "other": "--vfs 2 --ena-device ec21 --ena-version 1.2 --ena-controller 3.4.5 --ena-queues 1",
    "readable": "--vfs 2 --ena-readable --ena-burst 256",
    "bare": "--vfs 2 " + " ".join(f"--ena-without {name}" for name in WITHOUT),
    "too old": "--vfs 1 --ena-controller 0.0.0",
}
PEERS = ("other", "readable", "bare")


@dataclass
class Options:
    guest: Guest
    cards: dict[str, RunningCard]
    trace: Path

    def slot(self, name: str) -> str:
        """The PCI address of a card's first VF in the guest: a bus for each function, in order."""
        return f"0000:{1 + 2 * list(CARDS).index(name):02x}:00.0"

    def device(self, name: str, file: str) -> str:
        return self.guest.check(f"cat /sys/bus/pci/devices/{self.slot(name)}/{file}").strip()

    def said(self, name: str) -> str:
        """What the driver has logged of a card's first VF."""
        lines = self.guest.check("dmesg").splitlines()
        return "\n".join(line for line in lines if f" {self.slot(name)}" in line)

    def interface(self, name: str) -> str:
        """The interface of a card's first VF: its second one's number is one higher."""
        return f"eth{2 * PEERS.index(name)}"

    def ethtool(self, name: str, option: str) -> str:
        return self.guest.check(f"ethtool {option} {self.interface(name)}")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Options]:
    directory = tmp_path_factory.mktemp("c")
    trace = directory / "trace"
    with contextlib.ExitStack() as stack:
        cards = {}
        for number, (name, given) in enumerate(CARDS.items()):
            more = ("--trace", str(trace)) if name == "readable" else ()
            ours = (*given.split(), "--model", "ena", "--guests", "--name", f"card{number}", *more)
            cards[name] = stack.enter_context(card(directory / str(number), *ours))
        sockets = tuple(socket for made in cards.values() for socket in made.sockets)
        image = guest_image("iputils-ping")
        guest = stack.enter_context(Guest(machine("options", image=image, functions=sockets, vcpus=2)))
        guest.wait_ready(READY_SECONDS)
        for number in range(len(PEERS)):
            ours, theirs, there = f"eth{2 * number}", f"eth{2 * number + 1}", f"ip netns exec n{number}"
            guest.check(
                f"ip netns add n{number}; ip link set {theirs} netns n{number}\n"
                f"ip addr add 10.{number}.0.1/24 dev {ours}; {there} ip addr add 10.{number}.0.2/24 dev {theirs}\n"
                f"ip link set {ours} up; {there} ip link set {theirs} up"
            )
        yield Options(guest, cards, trace)


@pytest.mark.parametrize("name", PEERS)
def test_frames_go_to_and_fro(options: Options, name: str) -> None:
    to = f"10.{PEERS.index(name)}.0.2"
    options.guest.check(f"until ping -n -c 1 -W 1 {to} >/dev/null; do :; done", 30)
    assert ping(options.guest, to, 50)
    options.guest.check(f"ping -n -q -c 10 -i 0.05 -s 1400 -M do {to}")
    shown = options.cards[name].counters()
    assert min(shown[vf]["rx_frames"] for vf in ("0", "1")) >= 60


def test_another_device_id_and_other_versions(options: Options) -> None:
    assert options.device("other", "device") == "0xec21" and options.device("readable", "device") == "0xec20"
    said = options.said("other")
    assert "ENA device version: 1.2\n" in said
    assert "ENA controller version: 3.4.5 implementation version 1\n" in said
    assert not TROUBLE.search(said)
    assert "Combined:\t1\n" in options.ethtool("other", "-l")
    assert "Combined:\t2\n" in options.ethtool("readable", "-l")


def test_a_device_without_readless_registers_is_asked_by_reading(options: Options) -> None:
    assert options.device("readable", "revision") == "0x01" and options.device("other", "revision") == "0x00"
    said = options.said("readable")
    assert "ENA device version: 0.10\n" in said and not TROUBLE.search(said)
    trace = options.trace.read_text()
    assert "  read       CONTROLLER_VERSION" in trace and "  read       DEV_STS" in trace
    assert "MMIO_REG_READ" not in trace


def test_a_device_with_the_least_that_a_driver_needs(options: Options) -> None:
    said = options.said("bare")
    for line in (
        "Cannot set host attributes",
        "LLQ is not supported Fallback to host mode policy.",
        "Cannot init indirect table",
        "Failed to set MTU to 1500",
    ):
        assert line in said and line not in options.said("other") + options.said("readable")
    assert "push buff len:\t0\n" in options.ethtool("bare", "-g")
    assert "push buff len:\t96\n" in options.ethtool("readable", "-g")
    assert "allowance_exceeded" not in options.ethtool("bare", "-S")
    assert "pps_allowance_exceeded" in options.ethtool("other", "-S")
    for option in ("-c", "-x"):
        assert options.guest.run(f"ethtool {option} {options.interface('bare')}").code != 0
        assert options.ethtool("other", option)
    assert options.cards["bare"].vf("show", "card2").count("driven by") == 0
    assert "driven by Linux" in options.cards["other"].vf("show", "card0")


def test_a_controller_that_is_too_old_is_refused(options: Options) -> None:
    said = options.said("too old")
    assert "ENA controller version: 0.0.0 implementation version 1\n" in said
    assert "ENA ctrl version is lower than the minimal ctrl version the driver supports" in said
    assert "net" not in options.guest.check(f"ls /sys/bus/pci/devices/{options.slot('too old')}").split()
