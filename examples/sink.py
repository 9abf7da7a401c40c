"""Receive on a VF, count frames and bytes, and show the first bytes of the first one. Sleeps while nothing comes.

python examples/sink.py SOCKET --seconds 5
"""

import argparse
import select
import time
from pathlib import Path

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool, burst


def main() -> None:
    parser = argparse.ArgumentParser(description="Receive on a VF.")
    parser.add_argument("socket", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=0, help="end after so many frames")
    options = parser.parse_args()

    # Compiles, the first time on a machine; the driver is chosen by the function's PCI IDs.
    with Pool() as pool, open_driver(VfioUserFunction(options.socket), pool) as nic:
        print(f"listening as {nic.mac.hex(':')}", flush=True)
        frames = burst(32)
        received, received_bytes = 0, 0
        poller = select.poll()
        for fd in nic.event_fds:
            poller.register(fd, select.POLLIN)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end and not 0 < options.count <= received:
            count = nic.receive(frames)
            if count == 0:
                # Ask for an interrupt, look once more, and only then sleep: so none is missed.
                nic.arm()
                count = nic.receive(frames)
                if count == 0:
                    poller.poll(max(0.0, end - time.monotonic()) * 1000)
                    nic.check()  # raises PeerGone when the card has gone
                    continue
            if received == 0:
                print(f"first frame: {pool.views(frames[:1])[0][:22].tobytes().hex(' ')}")
            received += count
            received_bytes += int(frames.length[:count].sum())
            pool.give(frames[:count])  # a received frame is ours until we send it or give it back
        print(f"{received} frames, {received_bytes} bytes")
        for name, value in nic.stats().items():
            print(f"  {name:24} {value}")


if __name__ == "__main__":
    main()
