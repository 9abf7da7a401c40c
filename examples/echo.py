"""Answer every frame: exchange its two MAC addresses where they lie, and send it back out of the same buffer.

python examples/echo.py SOCKET --seconds 5
"""

import argparse
import os
import time
from pathlib import Path

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool, burst


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer every frame that a VF receives.")
    parser.add_argument("socket", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=0, help="end after so many frames")
    options = parser.parse_args()

    # Compiles, the first time on a machine; the driver is chosen by the function's PCI IDs.
    with Pool() as pool, open_driver(VfioUserFunction(options.socket), pool) as nic:
        print(f"answering as {nic.mac.hex(':')}", flush=True)
        frames = burst(32)
        answered, dropped = 0, 0
        end = time.monotonic() + options.seconds
        while time.monotonic() < end and not 0 < options.count <= answered:
            count = nic.receive(frames)
            if count == 0:
                os.sched_yield()  # a polling loop that lets others have the core
                continue
            for view in pool.views(frames[:count]):  # views: what is written here is what is sent
                view[:6] = view[6:12]
                view[6:12] = memoryview(nic.mac)
            frames["flags"][:count] = 0  # what the card said of them is not what we ask of it
            sent = nic.transmit(frames, count)
            pool.give(frames[sent:count])
            answered += sent
            dropped += count - sent
        nic.wait_sent()
        print(f"{answered} frames answered, {dropped} dropped")


if __name__ == "__main__":
    main()
