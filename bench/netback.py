"""The default path's own figures: netfront -> netback and bridge -> netfront, and where a packet's time goes.

Two systems and one virtualization layer, three processes on two cores: the layer on one, both systems on the other, and
for orientation all three unpinned. Run as a script; prints one line a figure. Medians of five runs.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vfwire.datapath.port import give, take
from vfwire.datapath.verbs import receive, transmit
from vfwire.drivers.netfront import Netfront
from vfwire.drivers.verbs import burst
from vfwire.memory.compiled import compiled
from vfwire.memory.words import clock_ns, copy, store64, yield_core
from vfwire.paths.layer import VirtualizationLayer

BURST = 32
CAUSES = ("no receive request",)


@compiled
def generate(queues, pools, stack, frames, template, length, until):  # type: ignore[no-untyped-def]
    """Send copies of the frame at `template` until the clock says `until`; a number in each. Returns how many."""
    pool = pools[0]
    sent = 0
    while clock_ns() < until:
        count = min(BURST, pool.free)
        for i in range(count):
            buffer = take(pool, stack)
            copy(buffer, template, length)
            store64(buffer + 16, sent + i)
            frames[i].address = buffer
            frames[i].length = length
            frames[i].flags = 0
        taken = transmit(queues[0], pool, stack, frames, 0, count)
        for i in range(taken, count):
            give(pool, stack, frames[i].address)
        sent += taken
        if taken < BURST:
            yield_core()
    return sent


@compiled
def sink(queues, pools, stack, frames, until):  # type: ignore[no-untyped-def]
    """Receive until the clock says `until`; returns how many came."""
    pool = pools[0]
    received = 0
    while clock_ns() < until:
        count = receive(queues[0], pool, stack, frames, BURST)
        for i in range(count):
            give(pool, stack, frames[i].address)
        received += count
        if count == 0:
            yield_core()
    return received


def _stop_when(told: Any, layer: VirtualizationLayer) -> None:
    told.wait()
    layer.stop()


def serve(path: Path, core: int | None, ready: Any, results: Any, stop: Any) -> None:
    import threading

    pin(core)
    layer = VirtualizationLayer(path, None, None)
    threading.Thread(target=_stop_when, args=(stop, layer), daemon=True).start()
    layer.run(ready.set)
    results.put(("layer", layer.stats()))


def system(
    role: str, path: Path, core: int | None, macs: list[bytes], gate: Any, results: Any, job: Any
) -> None:
    size, seconds = job
    pin(core)
    mine, other = macs if role == "sink" else macs[::-1]
    pool = Netfront.new_pool(1024)
    frames = burst(BURST)
    template = np.zeros(2048, np.uint8)
    template[:14] = np.frombuffer(other + mine + b"\x88\xb5", np.uint8)
    with Netfront.open(path, pool, mac=mine) as driver:
        args = (pool.words, pool.stack, frames)
        generate(driver.tx, *args, template.ctypes.data, size - 4, 0)
        sink(driver.rx, *args, 0)
        # The sink is heard once, so that the bridge knows its port.
        if role == "sink":
            generate(driver.tx, *args, template.ctypes.data, size - 4, time.monotonic_ns() + 1000)
        gate.wait()
        start, cpu = time.monotonic_ns(), time.process_time_ns()
        until = start + int(seconds * 1e9)
        if role == "sink":
            count = sink(driver.rx, *args, until)
        else:
            count = generate(driver.tx, *args, template.ctypes.data, size - 4, until)
        results.put((role, count, time.monotonic_ns() - start, time.process_time_ns() - cpu, driver.stats()))
        gate.wait()


def pin(core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})


def run_once(size: int, seconds: float, cores: tuple[int | None, int | None]) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer"
        ready, stop, results = context.Event(), context.Event(), context.Queue()
        gate = context.Barrier(2)
        macs = [bytes.fromhex("00163e000001"), bytes.fromhex("00163e000002")]
        host = context.Process(target=serve, args=(path, cores[0], ready, results, stop))
        host.start()
        ready.wait(180)
        systems = [
            context.Process(target=system, args=(role, path, cores[1], macs, gate, results, (size, seconds)))
            for role in ("sink", "generate")
        ]
        for process in systems:
            process.start()
        found = {}
        for _ in systems:
            role, *rest = results.get(timeout=180)
            found[role] = rest
        stop.set()
        found["layer"] = results.get(timeout=30)[1]
        for process in [host, *systems]:
            process.join()
    return found


def throughput(size: int, seconds: float, runs: int, cores: tuple[int | None, int | None]) -> None:
    rates, lost, cpu = [], [], []
    for _ in range(runs):
        found = run_once(size, seconds, cores)
        received, ns, sink_cpu, _ = found["sink"]
        sent, _, send_cpu, _ = found["generate"]
        rates.append(received / ns * 1e3)
        lost.append(1 - received / max(sent, 1))
        cpu.append((sink_cpu + send_cpu + found["layer"]["cpu_seconds"] * 1e9) / max(received, 1))
    layer = found["layer"]
    print(
        f"{size:5d} B  cores {cores}: {statistics.median(rates):6.2f} M packets/s received"
        f" ({min(rates):.2f} to {max(rates):.2f}), lost {statistics.median(lost):.2%},"
        f" CPU {statistics.median(cpu):.0f} ns a packet,"
        f" copied {layer['copied_bytes'] / max(layer['to_vifs_bytes'], 1):.2f} bytes a byte,"
        f" {layer['notifications_sent'] + layer['notifications_received']} notifications,"
        f" drops {layer['drops']}, rounds {layer['rounds']} idle {layer['idle_rounds']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for size in (64, 1518):
        for cores in ((1, 0), (None, None)):
            throughput(size, options.seconds, options.runs, cores)


if __name__ == "__main__":
    main()
