"""Runs in the guest, as its root: our ixgbevf on the guest's VF, through the kernel's VFIO. Prints a JSON object.

usage: own_driver.py FRAMES EVENTS. The host sends each frame back to its sender, so all of them come in again: so
many by polling, then so many by interrupts.
"""

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from vfwire.bus.vfio.binding import PciDevice
from vfwire.bus.vfio.function import VfioFunction
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import Pool, burst
from vfwire.errors import VfwireError

VF = "0x10ed"
ETHERTYPE = b"\x88\xb5"
HEADER = 14
PAYLOAD = 46
AT_A_TIME = 200
SECONDS = 20.0


def the_function() -> PciDevice:
    (found,) = (
        entry.name
        for entry in Path("/sys/bus/pci/devices").iterdir()
        if (entry / "device").read_text().strip() == VF
    )
    return PciDevice(found)


def refusal(attempt: Any, *arguments: Any) -> str:
    """What an attempt that has to fail says, with the name of its error."""
    try:
        attempt(*arguments)
    except VfwireError as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def refusal_of_a_user(address: str) -> str:
    """The same for somebody without rights, in a process of his own."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setuid(65534)
        os.write(writing, refusal(VfioFunction, address).encode())
        os._exit(0)
    os.wait()
    return os.read(reading, 4096).decode()


def send_all(nic: Ixgbevf, numbers: list[int]) -> None:
    """A broadcast frame for each number, which is its payload."""
    frames = burst(32)
    while numbers:
        count = nic.pool.take(frames[: min(32, len(numbers))], HEADER + PAYLOAD)
        for view, number in zip(nic.pool.views(frames[:count]), numbers, strict=False):
            view[:HEADER] = list(b"\xff" * 6 + nic.mac + ETHERTYPE)
            view[HEADER:] = list(number.to_bytes(PAYLOAD, "big"))
        sent = nic.transmit(frames, count)
        nic.pool.give(frames[sent:count])
        del numbers[:sent]
    nic.wait_sent(SECONDS)


def receive(nic: Ixgbevf, seen: set[int]) -> None:
    """Look once: numbers that came back to our MAC go into `seen`."""
    frames = burst(32)
    got = nic.receive(frames)
    for view in nic.pool.views(frames[:got]):
        data = view.tobytes()
        if data[:6] == nic.mac and data[12:HEADER] == ETHERTYPE:
            seen.add(int.from_bytes(data[HEADER : HEADER + PAYLOAD], "big"))
    nic.pool.give(frames[:got])


def receive_all(nic: Ixgbevf, seen: set[int], count: int) -> None:
    """Until `seen` has `count` numbers, or the time is over."""
    deadline = time.monotonic() + SECONDS
    while len(seen) < count and time.monotonic() < deadline:
        receive(nic, seen)


def exchange(nic: Ixgbevf, count: int) -> dict[str, int]:
    """All numbers from 1 on, as many at a time as the receive ring surely takes."""
    seen = set[int]()
    for first in range(1, count + 1, AT_A_TIME):
        last = min(first + AT_A_TIME - 1, count)
        send_all(nic, list(range(first, last + 1)))
        receive_all(nic, seen, last)
    return {"received": len(seen), "sum": sum(seen)}


def events(nic: Ixgbevf, first: int, count: int) -> dict[str, int]:
    """One number after the other, looked for only when the descriptor that the interrupt writes says so."""
    poller = select.poll()
    poller.register(nic.enable_receive_events(), select.POLLIN)
    seen = set[int]()
    signals = 0
    for number in range(first, first + count):
        nic.arm()
        send_all(nic, [number])
        while number not in seen and poller.poll(SECONDS * 1000):
            signals += 1
            nic.arm()  # before the look at the ring: what comes after it is told of again
            receive(nic, seen)
    return {"told": len(seen & {*range(first, first + count)}), "signals": signals}


def tell(text: str) -> None:
    print(f"{time.monotonic():.1f} {text}", file=sys.stderr, flush=True)


def main() -> None:
    tell("imported")
    device, count = the_function(), int(sys.argv[1])
    said: dict[str, Any] = {"group": device.group is not None, "before": device.driver}
    said["unbound"] = refusal(VfioFunction, device.address)
    said["up"] = refusal(device.bind)
    os.system("ip link set eth0 down")
    said["had"], said["bound"] = device.bind(), device.driver
    said["again"] = device.bind()
    said["user"] = refusal_of_a_user(device.address)
    tell("bound")
    with Pool(2048) as pool, Ixgbevf.open(VfioFunction(device.address), pool, ring_size=512) as nic:
        said["mac"], said["link"] = nic.mac.hex(":"), nic.wait_link_up(SECONDS)
        said["own_addresses"] = int(nic.tx[0].delta) == 0
        said["pages"] = pool.memory.size // 4096
        said["second"] = refusal(VfioFunction, device.address)
        tell("open")
        said |= exchange(nic, count)
        said["stats"] = nic.stats()
        tell("exchanged")
        said["events"] = events(nic, count + 1, int(sys.argv[2]))
        tell("told")
        said["info"] = [nic.info.driver, nic.info.bus_info == device.address]
    tell("closed")
    said["back"] = device.give_back()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
