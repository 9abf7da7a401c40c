"""Runs in the guest, as its root: our drivers on its functions, through the kernel's VFIO. Prints a JSON object.

usage: own_driver.py FRAMES. The host sends each frame back to its sender, so all of them come in again.
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
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.table import DRIVERS, open_driver
from vfwire.drivers.verbs import Pool, burst
from vfwire.errors import VfwireError

ETHERTYPE = b"\x88\xb5"
HEADER = 14
PAYLOAD = 46
AT_A_TIME = 200
SECONDS = 20.0
QUIET_MS = 100


def the_function(driver: type[FunctionDriver]) -> PciDevice:
    """The one that this driver is for."""
    (found,) = (
        entry.name
        for entry in Path("/sys/bus/pci/devices").iterdir()
        if tuple(int((entry / name).read_text(), 16) for name in ("vendor", "device")) in driver.pci_ids
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


def send_all(nic: FunctionDriver, numbers: list[int]) -> None:
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


def receive_all(nic: FunctionDriver, seen: set[int], count: int) -> None:
    """Until `seen` has `count` numbers that came back to our MAC, or the time is over."""
    frames = burst(32)
    deadline = time.monotonic() + SECONDS
    while len(seen) < count and time.monotonic() < deadline:
        got = nic.receive(frames)
        for view in nic.pool.views(frames[:got]):
            data = view.tobytes()
            if data[:6] == nic.mac and data[12:HEADER] == ETHERTYPE:
                seen.add(int.from_bytes(data[HEADER : HEADER + PAYLOAD], "big"))
        nic.pool.give(frames[:got])


def exchange(nic: FunctionDriver, count: int) -> dict[str, int]:
    """All numbers from 1 on, as many at a time as the receive ring surely takes."""
    seen = set[int]()
    for first in range(1, count + 1, AT_A_TIME):
        last = min(first + AT_A_TIME - 1, count)
        send_all(nic, list(range(first, last + 1)))
        receive_all(nic, seen, last)
    return {"received": len(seen), "sum": sum(seen)}


def tell(text: str) -> None:
    print(f"{time.monotonic():.1f} {text}", file=sys.stderr, flush=True)


def wakes(nic: FunctionDriver, number: int) -> tuple[bool, bool]:
    """(an event without a frame, an event with one that came back while we slept)."""
    poller = select.poll()
    poller.register(nic.event_fds[0], select.POLLIN)
    nic.arm()
    poller.poll(QUIET_MS)  # frames that no event has told of count for the first one
    nic.arm()
    before = bool(poller.poll(QUIET_MS))
    send_all(nic, [number])
    after = bool(poller.poll(SECONDS * 1000))
    receive_all(nic, set(), 1)
    return before, after


def drive(driver: type[FunctionDriver], count: int) -> dict[str, Any]:
    device = the_function(driver)
    (interface,) = (entry.name for entry in Path(f"/sys/bus/pci/devices/{device.address}/net").iterdir())
    said: dict[str, Any] = {
        "group": device.group is not None,
        "before": device.driver,
        "interface": interface,
    }
    os.system(f"ip link set {interface} up")
    said["unbound"] = refusal(VfioFunction, device.address)
    said["up"] = refusal(device.bind)
    os.system(f"ip link set {interface} down")
    said["had"], said["bound"] = device.bind(), device.driver
    said["again"] = device.bind()
    said["user"] = refusal_of_a_user(device.address)
    tell("bound")
    with Pool(2048) as pool, open_driver(VfioFunction(device.address), pool, ring_size=512) as nic:
        said["mac"], said["link"] = nic.mac.hex(":"), nic.wait_link_up(SECONDS)
        said["own_addresses"] = int(nic.tx[0].delta) == 0
        said["pages"] = pool.memory.size // 4096
        said["second"] = refusal(VfioFunction, device.address)
        tell("open")
        said |= exchange(nic, count)
        said["stats"] = nic.stats()
        tell("exchanged")
        said["woken"] = [wakes(nic, number) for number in range(3)]
        said["info"] = [nic.info.driver, nic.info.bus_info == device.address]
    tell("closed")
    said["back"] = device.give_back()
    return said


def main() -> None:
    tell("imported")
    print(json.dumps({driver.name: drive(driver, int(sys.argv[1])) for driver in DRIVERS}))


if __name__ == "__main__":
    main()
