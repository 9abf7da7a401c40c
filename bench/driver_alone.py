"""The 82599 driver by itself: receive 32, transmit the same 32, on one core, with nobody at the other end.

    python -m bench.driver_alone [--json]

A loop standing for the card completes every descriptor between the timed parts: it writes back what a card would
and copies nothing. What is timed is the driver's two verbs, less the two readings of the clock; the frames come
from and go to the caches of this one core, as in ixy's figures for its C driver (12.7 cycles to transmit and 16.4 to
receive at batch 32, "User Space Network Drivers", ANCS 2019, table 3).
"""

import json
import os
import statistics
from typing import Any

import click
import numpy as np

from vfwire.datapath.ixgbevf_driver import ixgbevf_start
from vfwire.datapath.port import IXGBEVF, QUEUE
from vfwire.datapath.verbs import receive, transmit
from vfwire.drivers.verbs import Pool, burst
from vfwire.layouts.ixgbe_descriptors import RXD_STAT_DD, RXD_STAT_EOP, TXD_Q1_DD
from vfwire.memory.compiled import compiled
from vfwire.memory.words import clock_ns, load32, store64

BATCH = 32
RING = 1024
LENGTH = 60


@compiled
def _complete(rx, tx, received, sent):  # type: ignore[no-untyped-def]
    """What a card does, without the frames: one batch received, everything queued sent. Returns both positions."""
    for _ in range(BATCH):
        entry = rx.ring + (received & (RING - 1)) * 16
        store64(entry, 0)
        store64(entry + 8, RXD_STAT_DD | RXD_STAT_EOP | (LENGTH << 32))
        received += 1
    while sent & (RING - 1) != load32(tx.doorbell):
        store64(tx.ring + (sent & (RING - 1)) * 16 + 8, TXD_Q1_DD)
        sent += 1
    return received, sent


@compiled
def forward(rx, tx, pool, stack, frames, times):  # type: ignore[no-untyped-def]
    """One batch through the driver for each row of `times`: ns in receive, in transmit, and to read the clock."""
    received, sent = 0, 0
    for at in range(times.shape[0]):
        received, sent = _complete(rx[0], tx[0], received, sent)
        start = clock_ns()
        empty = clock_ns()
        got = receive(rx[0], pool[0], stack, frames, BATCH)
        middle = clock_ns()
        transmit(tx[0], pool[0], stack, frames, 0, got)
        times[at, 1] = clock_ns() - middle
        times[at, 0] = middle - empty
        times[at, 2] = empty - start


def _queue(pool: Pool, slots: Any, doorbell: Any) -> Any:
    queue: Any = np.zeros(1, QUEUE).view(np.recarray)
    queue.kind, queue.size, queue.event = IXGBEVF, RING, -1
    queue.ring = pool.reserve(RING * 16)
    queue.slots, queue.doorbell = slots.ctypes.data, doorbell.ctypes.data
    return queue


def measure(runs: int, batches: int = 50_000) -> list[dict[str, float]]:
    """One record a run: ns a packet for receive, transmit, and both; of each the median over the batches."""
    results = []
    times = np.zeros((batches, 3), np.int64)
    with Pool(4 * RING) as pool:
        slots = np.zeros((2, RING), np.int64)
        doorbells = np.zeros((2, 8), np.int64)
        rx, tx = (_queue(pool, slots[side], doorbells[side]) for side in (0, 1))
        ixgbevf_start(rx, tx[:0], pool.words, pool.stack)
        frames = burst(BATCH)
        forward(rx, tx, pool.words, pool.stack, frames, times[: RING // BATCH])
    for _ in range(runs):
        with Pool(4 * RING) as pool:
            slots[:], doorbells[:] = 0, 0
            rx, tx = (_queue(pool, slots[side], doorbells[side]) for side in (0, 1))
            ixgbevf_start(rx, tx[:0], pool.words, pool.stack)
            forward(rx, tx, pool.words, pool.stack, frames, times)
        r, t, clock = np.median(times, axis=0)
        results.append({"receive": float(r - clock) / BATCH, "transmit": float(t - clock) / BATCH})
        results[-1]["both"] = results[-1]["receive"] + results[-1]["transmit"]
    return results


@click.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(runs: int, as_json: bool) -> None:
    """ns a packet of the driver alone, medians over the runs; one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = measure(runs)
    medians = {key: round(statistics.median(run[key] for run in results), 2) for key in results[0]}
    if as_json:
        click.echo(json.dumps({"driver": "ixgbevf", "batch": BATCH, "cores": 1, "ns_per_packet": medians}))
        return
    parts = ", ".join(f"{key} {value:.1f}" for key, value in medians.items())
    click.echo(f"ixgbevf alone, bursts of {BATCH}, 1 core, ns a packet, median of {runs}: {parts}")


if __name__ == "__main__":
    main()
