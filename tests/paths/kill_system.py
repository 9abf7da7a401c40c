"""A system as a process of its own: `kill_system.py SOCKET`. Prints its MAC, reads its peer's, then exchanges frames.

Prints how many frames have come, line by line; a card that goes away ends it with one line and exit code 7.
"""

import sys
from pathlib import Path

import numpy as np

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool, burst
from vfwire.errors import VfwireError


def exchange(function: VfioUserFunction, nic: FunctionDriver, peer: bytes) -> None:
    frames, words, stack = burst(32), nic.pool.words[0], nic.pool.stack
    data = np.frombuffer(peer + nic.mac + b"\x88\xb5" + bytes(46), np.uint8)
    received = 0
    while True:
        function.check_peer()
        for _ in range(50):
            count = min(8, int(words.free))
            for place in range(count):
                words.free -= 1
                address = int(stack[words.free])
                nic.pool.view(address, len(data))[:] = data
                frames[place].address, frames[place].length, frames[place].flags = address, len(data), 0
            for place in range(nic.transmit(frames, count), count):
                stack[words.free] = frames[place].address
                words.free += 1
            for place in range(nic.receive(frames)):
                received += 1
                stack[words.free] = frames[place].address
                words.free += 1
        print(received, flush=True)


def main(socket: str) -> int:
    try:
        with Pool(1024) as pool:
            function = VfioUserFunction(Path(socket), timeout=20.0, wait=20.0)
            with open_driver(function, pool, ring_size=256) as nic:
                nic.wait_link_up(20.0)
                print(nic.mac.hex(), flush=True)
                exchange(function, nic, bytes.fromhex(sys.stdin.readline()))
    except VfwireError as error:
        print(f"vfwire: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
