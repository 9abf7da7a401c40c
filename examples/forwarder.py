"""Forward between two VFs, with the loop compiled: no frame is copied, for both drivers share one pool.

    python examples/forwarder.py SOCKET_A SOCKET_B --to-a 02:00:00:00:00:01 --to-b 02:00:00:00:00:02

What comes in on A leaves from B, addressed to --to-b, and the other way round.
"""

import argparse
import time
from pathlib import Path

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.datapath.port import give
from vfwire.datapath.verbs import receive, transmit
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool, burst
from vfwire.memory.compiled import compiled
from vfwire.memory.unaligned import write32, write64
from vfwire.memory.words import clock_ns, yield_core


@compiled
def forward(rx, tx, pools, stack, frames, macs, until_ns, limit):  # type: ignore[no-untyped-def]
    """Queues rx[i] to tx[i], `limit` frames; macs[i]: the 12 bytes of destination and source as two integers."""
    pool, moved = pools[0], 0
    while clock_ns() < until_ns and moved < limit:
        idle = True
        for way in range(len(rx)):
            count = receive(rx[way][0], pool, stack, frames, len(frames))
            for at in range(count):
                write64(frames[at].address, macs[way][0])
                write32(frames[at].address + 8, macs[way][1])
                frames[at].flags = 0
            sent = transmit(tx[way][0], pool, stack, frames, 0, count)
            for at in range(sent, count):
                give(pool, stack, frames[at].address)
            moved += sent
            idle = idle and count == 0
        if idle:
            yield_core()
    return moved


def addresses(to: str, sender: bytes) -> tuple[int, int]:
    both = bytes.fromhex(to.replace(":", "")) + sender
    return int.from_bytes(both[:8], "little", signed=True), int.from_bytes(both[8:], "little")


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward between two VFs.")
    parser.add_argument("socket_a", type=Path)
    parser.add_argument("socket_b", type=Path)
    parser.add_argument("--to-a", required=True, help="where frames that leave from A are sent")
    parser.add_argument("--to-b", required=True, help="where frames that leave from B are sent")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=0, help="end after so many frames")
    options = parser.parse_args()

    with (
        Pool() as pool,
        open_driver(VfioUserFunction(options.socket_a), pool) as a,
        open_driver(VfioUserFunction(options.socket_b), pool) as b,
    ):
        rx, tx = (a.rx, b.rx), (b.tx, a.tx)
        macs = (addresses(options.to_b, b.mac), addresses(options.to_a, a.mac))
        forward(rx, tx, pool.words, pool.stack, burst(64), macs, 0, 0)  # compiles, or loads from the cache
        print(f"forwarding between {a.mac.hex(':')} and {b.mac.hex(':')}", flush=True)
        limit = options.count or 1 << 62
        until = time.monotonic_ns() + int(options.seconds * 1e9)
        moved = forward(rx, tx, pool.words, pool.stack, burst(64), macs, until, limit)
        a.wait_sent()
        b.wait_sent()
        print(f"{moved} frames forwarded")


if __name__ == "__main__":
    main()
