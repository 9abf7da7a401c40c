"""Send frames from a VF as fast as it takes them, and say how many went.

vfwire card --vfs 2                       # in another terminal; it prints the sockets
python examples/generator.py SOCKET --to 02:00:00:00:00:01 --seconds 5
"""

import argparse
import time
from pathlib import Path

import numpy as np

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool, burst


def main() -> None:
    parser = argparse.ArgumentParser(description="Send frames from a VF.")
    parser.add_argument("socket", type=Path)
    parser.add_argument("--to", default="ff:ff:ff:ff:ff:ff", help="destination MAC")
    parser.add_argument("--bytes", type=int, default=60, help="of a frame, without FCS")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()

    # Compiles, the first time on a machine; the driver is chosen by the function's PCI IDs.
    with Pool() as pool, open_driver(VfioUserFunction(options.socket), pool) as nic:
        nic.wait_link_up()
        # The sender's address has to be the VF's own: the card drops what comes from another one.
        header = bytes.fromhex(options.to.replace(":", "")) + nic.mac + b"\x88\xb5"
        template = np.frombuffer(header.ljust(options.bytes, b"\0"), np.uint8)
        frames = burst(32)
        sequence, sent = 0, 0
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            count = pool.take(frames, options.bytes)
            for view in pool.views(frames[:count]):
                view[:] = template
                view[14:22] = np.frombuffer(sequence.to_bytes(8, "big"), np.uint8)
                sequence += 1
            taken = nic.transmit(frames, count)  # also takes back what has been sent
            sequence -= count - taken
            pool.give(frames[taken:count])  # the ring was full: these are still ours
            sent += taken
        nic.wait_sent()  # what still lies in the ring would be lost when the driver stops
        print(f"{sent} frames sent from {nic.mac.hex(':')}, {sent / options.seconds:,.0f} a second")


if __name__ == "__main__":
    main()
