"""A driver by itself: receive 32, transmit the same 32, on one core, with nobody at the other end.

    python -m bench.driver_alone [--driver ixgbevf|ena|ena-llq] [--json]

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

from vfwire.datapath.ena_driver import ena_start
from vfwire.datapath.ena_driver_frame import LLQ_SLOTS
from vfwire.datapath.ena_words import (
    RXC_FIRST,
    RXC_ID_SHIFT,
    RXC_LAST,
    RXC_LENGTH_SHIFT,
    RXC_PHASE_SHIFT,
    TXC_PHASE_SHIFT,
    phase_of,
)
from vfwire.datapath.ixgbevf_driver import ixgbevf_start
from vfwire.datapath.port import ENA, IXGBEVF, QUEUE
from vfwire.datapath.verbs import receive, transmit
from vfwire.drivers.verbs import Pool, burst
from vfwire.layouts.ixgbe_descriptors import RXD_STAT_DD, RXD_STAT_EOP, TXD_Q1_DD
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import clock_ns, load32, store64

BATCH = 32
RING = 1024
LENGTH = 60
DRIVERS = {
    "ixgbevf": (IXGBEVF, 0),
    "ena": (ENA, 0),
    "ena-llq": (ENA, 128),
}  # kind, bytes of a low-latency entry
ENA_DONE = RXC_FIRST | RXC_LAST


@inlined
def _complete_ena(rx, tx, received, sent):  # type: ignore[no-untyped-def]
    """`_complete` for an ENA's queue pairs: a completion for each descriptor, with its request ID."""
    for _ in range(BATCH):
        entry = rx.completions + (received & (RING - 1)) * 16
        store64(entry + 8, 0)
        phase = phase_of(received, RING) << RXC_PHASE_SHIFT
        store64(
            entry, ENA_DONE | phase | (LENGTH << RXC_LENGTH_SHIFT) | ((received & (RING - 1)) << RXC_ID_SHIFT)
        )
        received += 1
    while sent & 0xFFFF != load32(tx.doorbell):
        place = sent & (RING - 1)
        store64(tx.completions + place * 8, place | phase_of(sent, RING) << TXC_PHASE_SHIFT)
        sent += 1
    return received, sent


@inlined
def _complete(rx, tx, received, sent):  # type: ignore[no-untyped-def]
    """What a card does, without the frames: one batch received, everything queued sent. Returns both positions."""
    if rx.kind == ENA:
        return _complete_ena(rx, tx, received, sent)
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


def _queue(pool: Pool, slots: Any, doorbell: Any, kind: int, llq: int) -> Any:
    queue: Any = np.zeros(1, QUEUE).view(np.recarray)
    queue.kind, queue.size, queue.event = kind, RING, -1
    queue.ring = pool.reserve(RING * (llq or 16))
    queue.slots, queue.doorbell = slots.ctypes.data, doorbell.ctypes.data
    if kind == ENA:
        queue.completions, queue.completion_size = pool.reserve(RING * 16), RING
        queue.llq_bytes, queue.llq_header = llq, 32 if llq else 0
    return queue


def _run(driver: str, times: Any) -> None:
    """One run of as many batches as `times` has rows, with rings and buffers of its own."""
    kind, llq = DRIVERS[driver]
    slots, doorbells = np.zeros((2, RING * LLQ_SLOTS), np.int64), np.zeros((2, 8), np.int64)
    with Pool(4 * RING) as pool:
        rx = _queue(pool, slots[0], doorbells[0], kind, 0)
        tx = _queue(pool, slots[1], doorbells[1], kind, llq)
        if kind == ENA:
            ena_start(rx, pool.words, pool.stack)
        else:
            ixgbevf_start(rx, tx[:0], pool.words, pool.stack)
        forward(rx, tx, pool.words, pool.stack, burst(BATCH), times)


def measure(runs: int, batches: int = 50_000, driver: str = "ixgbevf") -> list[dict[str, float]]:
    """One record a run: ns a packet for receive, transmit, and both; of each the median over the batches."""
    results = []
    times = np.zeros((batches, 3), np.int64)
    _run(driver, times[: RING // BATCH])
    for _ in range(runs):
        _run(driver, times)
        r, t, clock = np.median(times, axis=0)
        results.append({"receive": float(r - clock) / BATCH, "transmit": float(t - clock) / BATCH})
        results[-1]["both"] = results[-1]["receive"] + results[-1]["transmit"]
    return results


@click.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--driver", type=click.Choice(tuple(DRIVERS)), default="ixgbevf", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(runs: int, driver: str, as_json: bool) -> None:
    """ns a packet of the driver alone, medians over the runs; one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = measure(runs, driver=driver)
    medians = {key: round(statistics.median(run[key] for run in results), 2) for key in results[0]}
    if as_json:
        click.echo(json.dumps({"driver": driver, "batch": BATCH, "cores": 1, "ns_per_packet": medians}))
        return
    parts = ", ".join(f"{key} {value:.1f}" for key, value in medians.items())
    click.echo(f"{driver} alone, bursts of {BATCH}, 1 core, ns a packet, median of {runs}: {parts}")


if __name__ == "__main__":
    main()
