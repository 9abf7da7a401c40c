"""Boot an image as EC2 would present itself, and watch from outside whether it becomes reachable.

The guest meets its root disk on NVMe, "Amazon EC2" in SMBIOS, and one VF of a card. That card's uplink is linked to a
second one, whose function the instance's network has (network.py). The image itself is never written to.
"""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from vfwire.checks.image.dhcp import Subnet
from vfwire.checks.image.network import InstanceNetwork
from vfwire.checks.image.steps import (
    HOST_INFO,
    LEASE,
    METADATA,
    NEGOTIATED,
    PING,
    QUEUES,
    RESET,
    Seen,
    Step,
    Steps,
)
from vfwire.checks.verdict import State, Verdict
from vfwire.devices.card import Card
from vfwire.devices.engine import Engine
from vfwire.devices.hosting import HostedCard
from vfwire.errors import PeerGone
from vfwire.guests.firmware import find_uefi
from vfwire.guests.guest import Guest
from vfwire.guests.machine import Machine
from vfwire.guests.qemu import Qemu, find_qemu
from vfwire.paths.process import Child, Family

SUBNET = Subnet(IPv4Network("172.31.16.0/20"), IPv4Address("172.31.25.10"))
INSTANCE_ID = "i-0123456789abcdef0"
INSTANCE_TYPES = {"ena": "m5.large", "82599": "c4.large"}
MAC_PREFIX = bytes.fromhex("02ec200000")
MTU = 9001
TAIL_LINES = 12
SETTLE_SECONDS = 60.0  # how long, once reachable, for what cloud-init still asks for
SOON_SECONDS = 3.0  # the same for an image that is known to have no cloud-init
_LOOK_SECONDS = 0.25
_PING_SECONDS = 0.5
_ESCAPES = re.compile(  # colours, questions to a terminal, and what is not ASCII
    r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)|[^\n\r\t -~]"
)
_UUID = "ec2a1b2c-3d4e-5f60-7182-93a4b5c6d7e8"  # an instance's begins with "ec2"


@dataclass(frozen=True)
class Options:
    """model: "ena" or "82599". firmware: "bios" or "uefi". seconds: how long the guest has to become reachable.
    settle: how long after that its question for metadata is waited for.
    """

    model: str = "ena"
    firmware: str = "bios"
    seconds: float = 300.0
    memory_mib: int = 1024
    vcpus: int = 2
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    settle: float = SETTLE_SECONDS


@dataclass
class Report:
    """How a boot went. console: its last lines."""

    options: Options
    steps: list[Step]
    verdict: Verdict
    accelerator: str = ""
    console: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.options.model,
            "firmware": self.options.firmware,
            "accelerator": self.accelerator,
            "steps": [step.to_json() for step in self.steps],
            "console": self.console,
            **self.verdict.as_json(),
        }


_CONSOLE = "look for the driver's complaint in the console"
_DHCP = "enable DHCP for the interface: does its name match what is configured?"

# What it means that a guest came this far and no further, and what to do.
_STOPPED = {
    RESET: (
        "its kernel never touched the network device",
        "the console tells how far it came: has the kernel the network driver, and the initramfs nvme for the disk?",
    ),
    NEGOTIATED: ("its driver reset the device and went no further", _CONSOLE),
    HOST_INFO: ("its driver did not say what it is", _CONSOLE),
    QUEUES: ("the interface was never brought up", _DHCP),
    LEASE: ("the interface is up and asks for no lease", _DHCP),
    METADATA: ("it asks for no metadata", "install cloud-init, or do without"),
    PING: ("it took a lease and does not answer", "look for a firewall, or a default route that is missing"),
}


def boot_image(
    image: Path | None,
    options: Options,
    key: str | None = None,
    on_step: Callable[[Step], None] = lambda _step: None,
    hand_on: Callable[[bytes], None] | None = None,
) -> Report:
    """Boot `image` (None: options.kernel alone) and watch. Raises as Guest, Card and InstanceNetwork do."""
    qemu = find_qemu()
    mac = (MAC_PREFIX + b"\0").hex(":")
    with ExitStack() as stack:
        family = stack.enter_context(Family())
        network = family.fork(
            "instance network", lambda: InstanceNetwork(SUBNET, mac, INSTANCE_TYPES[options.model], key)
        )
        card, sockets = _cards(stack, family, options.model)
        family.call(network, "open", path=str(sockets[1]), mtu=MTU)
        guest = stack.enter_context(
            Guest(_machine(image, options, sockets[0], qemu), qemu=qemu, hand_on=hand_on)
        )
        steps = Steps(options.model == "ena", on_step)
        _watch(guest, card, family, network, steps, options)
        plain = _ESCAPES.sub("", guest.console)
        console = [line.rstrip() for line in plain.splitlines() if line.strip()]
        return Report(
            options, steps.steps, _verdict(steps, guest, options), guest.accelerator, console[-TAIL_LINES:]
        )


def _cards(stack: ExitStack, family: Family, model: str) -> tuple[Card, list[Path]]:
    """(the guest's card, its socket and that of the network's card)."""
    Engine.warm_up()
    engine = Engine([1, 1])
    stack.callback(engine.close)
    ours = Card(engine, 0, "instance", 1, model=model, mtu=MTU, mac_prefix=MAC_PREFIX)
    stack.callback(ours.close)
    theirs = Card(engine, 1, "vpc", 1, mtu=MTU)
    stack.callback(theirs.close)
    ours.join(theirs)
    engine.start()
    sockets = []
    for card in (ours, theirs):
        directory = family.directory.path / card.name
        directory.mkdir()
        hosted = HostedCard(card, directory)
        stack.callback(hosted.close)
        sockets.append(hosted.socket(0))
    theirs.change(0, {"trust": True, "spoofchk": False})
    return ours, sockets


def _machine(image: Path | None, options: Options, socket: Path, qemu: Qemu) -> Machine:
    identity = (
        "type=0,vendor=Amazon EC2,version=1.0",
        f"type=1,manufacturer=Amazon EC2,product={INSTANCE_TYPES[options.model]},serial={_UUID},uuid={_UUID}",
        f"type=2,manufacturer=Amazon EC2,asset={INSTANCE_ID}",
        "type=3,manufacturer=Amazon EC2,asset=Amazon EC2",
    )
    return Machine(
        name="instance",
        kernel=options.kernel,
        initrds=(options.initrd,) if options.initrd else (),
        disk=image,
        disk_bus="nvme",
        disk_serial="vol0123456789abcdef0",
        keep_disk=True,
        firmware=find_uefi(qemu) if options.firmware == "uefi" else None,
        functions=(socket,),
        vcpus=options.vcpus,
        memory_mib=options.memory_mib,
        append=options.append,
        extra=tuple(word for text in identity for word in ("-smbios", text)),
    )


def _watch(guest: Guest, card: Card, family: Family, network: Child, steps: Steps, options: Options) -> None:
    """Until everything has happened, the guest has ended, or the time is up."""
    start, heard, reached = time.monotonic(), 0, 0.0
    (function,) = card.functions
    while ((now := time.monotonic() - start) < options.seconds or steps.reachable) and not steps.complete:
        if guest.wait_end(_LOOK_SECONDS):
            return
        steps.look(Seen(card.describe()["vfs"][0], card.function_counters(function)), now)
        told = family.call(network, "events", start=heard)
        if told["failure"]:  # ours, not the image's: no verdict may come of it
            raise PeerGone(f"the instance's network has failed: {told['failure']}", "run it again")
        for event in told["events"]:
            heard += 1
            steps.listen(event, event["at"] - start)
        if (
            steps[LEASE].seconds is not None
            and not steps.reachable
            and family.call(network, "ping", seconds=_PING_SECONDS)
        ):
            steps.happened(PING, time.monotonic() - start, str(SUBNET.instance))
            reached = now
        if steps.reachable and now - reached > options.settle:
            return


def _verdict(steps: Steps, guest: Guest, options: Options) -> Verdict:
    stopped = steps.stopped_at
    if steps.reachable:
        how = f"reachable on {'an ENA' if options.model == 'ena' else 'an 82599 VF'} after {steps[PING].seconds:g} s"
        if stopped is not None:
            reason, next_step = _STOPPED[stopped.name]
            return Verdict(State.ENHANCED, f"{how}; {reason}", next_step)
        return Verdict(State.ENHANCED, how)
    if guest.end is not None:
        return Verdict(State.NOT, guest.end.message, guest.end.hint)
    assert stopped is not None
    reason, next_step = _STOPPED[stopped.name]
    return Verdict(State.NOT, f"not reachable within {options.seconds:g} s: {reason}", next_step)
