"""The default path by itself: where a packet's time goes between two netfronts of one virtualization layer.

    python -m bench.netback [--json]

Stages: all on one core, in turn, a burst of 64 at a time, so that each can be timed: what the sender's netfront does,
each step of netback and its bridge, what the receiver's netfront does. Medians over the bursts; the frames stay in
the caches of that core, so this is what the instructions cost, not what moving cache lines between cores does.
Whole: two systems and the layer as processes, as fast as they go, the layer on one core and both systems on the
other; medians over the runs, to be read beside the time of a cache line to the other core and back.
"""

import json
import multiprocessing
import os
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np

from vfwire.bus.xen.events import EventChannel
from vfwire.datapath import netfront as loops
from vfwire.datapath.bridge import mac_at
from vfwire.datapath.grants import grant_copy
from vfwire.datapath.netback_move import decide, forward, make_moves, push_received
from vfwire.datapath.netback_requests import take_requests
from vfwire.datapath.netback_state import BURST, RUNNING, Host, count_vifs, new_host, request_of, vif_of
from vfwire.datapath.netback_vif import map_rings
from vfwire.datapath.port import give, take
from vfwire.datapath.verbs import receive, transmit
from vfwire.datapath.xen_rings import push_responses, requests_after, write_tx_response
from vfwire.drivers.netfront import GRANT_PAGES, RX_RING_REF, TX_RING_REF, Netfront
from vfwire.drivers.verbs import Pool, burst
from vfwire.layouts.ethernet import FCS_BYTES
from vfwire.layouts.xen_grant import ENTRIES_PER_PAGE
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.measure.machine import describe_machine
from vfwire.memory.compiled import compiled
from vfwire.memory.words import clock_ns, copy, store64, yield_core
from vfwire.paths.layer import VirtualizationLayer

BATCH = 32
SIZES = (64, 1518)
MACS = (bytes.fromhex("00163e000001"), bytes.fromhex("00163e000002"))
ETHERTYPE = b"\x88\xb5"  # IEEE 802: local experiments
STAGES = (
    "netfront: grant and request",
    "netback: take requests",
    "netback: fetch headers (grant copy)",
    "bridge: learn and look up",
    "netback: plan copies",
    "netback: copy to the other's page (grant copy), write responses",
    "netback: answer, publish",
    "netfront: take frames, end grants, refill",
)


@compiled
def fill(pools, stack, frames, template, length, number):  # type: ignore[no-untyped-def]
    """Up to BATCH copies of the frame at `template`, each with a number of its own. Returns how many."""
    pool = pools[0]
    count = min(BATCH, pool.free)
    for i in range(count):
        buffer = take(pool, stack)
        copy(buffer, template, length)
        store64(buffer + 16, number + i)
        frames[i].address = buffer
        frames[i].length = length
        frames[i].flags = 0
    return count


@compiled
def generate(queues, pools, stack, frames, template, length, until):  # type: ignore[no-untyped-def]
    """Send as fast as it goes until the clock says `until`. Returns how many frames were taken."""
    sent = 0
    while clock_ns() < until:
        count = fill(pools, stack, frames, template, length, sent)
        taken = transmit(queues[0], pools[0], stack, frames, 0, count)
        for i in range(taken, count):
            give(pools[0], stack, frames[i].address)
        sent += taken
        if taken < BATCH:
            yield_core()
    return sent


@compiled
def sink(queues, pools, stack, frames, until):  # type: ignore[no-untyped-def]
    """Receive until the clock says `until`; returns how many came."""
    received = 0
    while clock_ns() < until:
        count = receive(queues[0], pools[0], stack, frames, BATCH)
        for i in range(count):
            give(pools[0], stack, frames[i].address)
        received += count
        if count == 0:
            yield_core()
    return received


@compiled
def netback_by_stage(layers, row):  # type: ignore[no-untyped-def]
    """One burst of vif 0 for vif 1, step by step; when each step was done goes into `row`."""
    layer = layers[0]
    vif = vif_of(layer, 0)
    count = min(requests_after(vif.tx, vif.tx_cons), BURST)
    take_requests(layer, 0, count)
    row[0] = clock_ns()
    grant_copy(layer.domains, layer.fetches, count)
    row[1] = clock_ns()
    now = row[1]
    for i in range(count):
        request = request_of(layer, i)
        request.buffer = decide(layer, 1, mac_at(request.fetched), mac_at(request.fetched + 6), now)
    row[2] = clock_ns()
    for i in range(count):
        request = request_of(layer, i)
        port = request.buffer
        forward(layer, port, 1, 0, request.gref, request.offset, request.size, request.fetched, 0, i)
    row[3] = clock_ns()
    make_moves(layer)
    row[4] = clock_ns()
    for i in range(count):
        request = request_of(layer, i)
        write_tx_response(vif.tx, vif.tx_cons + i, request.id, request.status)
    push_responses(vif.tx, vif.tx_cons, vif.tx_cons + count)
    vif.tx_cons += count
    push_received(layer)
    row[5] = clock_ns()


@compiled
def by_stage(layers, tx, tx_pools, tx_stack, rx, rx_pools, rx_stack, frames, template, length, times):  # type: ignore[no-untyped-def]
    """One burst through all for each row of `times`: ns of each of STAGES. Returns how many frames arrived."""
    arrived = 0
    marks = np.zeros(6, np.int64)
    for at in range(times.shape[0]):
        spent = 0
        for _ in range(BURST // BATCH):
            count = fill(tx_pools, tx_stack, frames, template, length, at)
            start = clock_ns()
            transmit(tx[0], tx_pools[0], tx_stack, frames, 0, count)
            spent += clock_ns() - start
        times[at, 0] = spent
        start = clock_ns()
        netback_by_stage(layers, marks)
        for stage in range(6):
            times[at, 1 + stage] = marks[stage] - start
            start = marks[stage]
        spent = 0
        for _ in range(BURST // BATCH):
            start = clock_ns()
            count = receive(rx[0], rx_pools[0], rx_stack, frames, BATCH)
            spent += clock_ns() - start
            for i in range(count):
                give(rx_pools[0], rx_stack, frames[i].address)
            arrived += count
        times[at, 7] = spent
    return arrived


class Bare:
    """A netfront on a layer's arrays, without the sockets."""

    def __init__(self, host: Host, number: int) -> None:
        self.pool = Netfront.new_pool(1024)
        self.channels = [EventChannel.allocate(1), EventChannel.allocate(2)]
        xenbus: Any = SimpleNamespace(name="bench", backend={"mac": MACS[number].hex(":")})
        self.driver = Netfront(xenbus, self.pool, self.channels)
        words = (self.pool.words, self.pool.stack)
        table, memory = self.driver._table, self.pool.memory
        rings = (int(self.driver.tx[0].ring), TX_RING_REF, int(self.driver.rx[0].ring), RX_RING_REF)
        loops.open_rings(*rings, table, memory.address)
        loops.fill_receive_ring(self.driver.rx, 0, *words)
        domain, vif = host.domains[number], host.vifs[number]
        domain.arena, domain.pages = memory.address, memory.size // PAGE_BYTES
        domain.table, domain.entries = table, GRANT_PAGES * ENTRIES_PER_PAGE
        if map_rings(host.layer, number, TX_RING_REF, RX_RING_REF) != 0:
            raise RuntimeError("the rings could not be mapped")
        vif.tx_event, vif.rx_event = (channel.notify_fd for channel in self.channels)
        vif.state = RUNNING
        count_vifs(host)
        loops.disarm_responses(self.driver.rx, self.driver.tx)

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
        self.pool.close()


def template_for(to: bytes, source: bytes) -> Any:
    frame = np.zeros(2048, np.uint8)
    frame[:14] = np.frombuffer(to + source + ETHERTYPE, np.uint8)
    return frame


def stages(size: int, bursts: int = 20_000) -> dict[str, Any]:
    """Nanoseconds a packet of each stage."""
    times = np.zeros((bursts, len(STAGES)), np.int64)
    with Pool(256) as own:
        host = new_host(None, None, own.words, own.stack)
        host.layer[0].max_frame, host.layer[0].learning = 1518, 1
        one, two = Bare(host, 0), Bare(host, 1)
        frames, template = burst(BATCH), template_for(MACS[1], MACS[0])
        sender = (one.driver.tx, one.pool.words, one.pool.stack)
        receiver = (two.driver.rx, two.pool.words, two.pool.stack)
        _teach(host, MACS[1], 2)
        length = size - FCS_BYTES
        for rows in (times[:100], times):
            arrived = by_stage(host.layer, *sender, *receiver, frames, template.ctypes.data, length, rows)
            if arrived != len(rows) * BURST:
                raise RuntimeError(f"only {arrived} of {len(rows) * BURST} frames arrived")
        for front in (one, two):
            front.close()
    each = np.median(times, axis=0) / BURST
    found = {stage: round(float(ns), 1) for stage, ns in zip(STAGES, each, strict=True)}
    return {"frame_bytes": size, "ns_per_packet": found, "sum_ns": round(float(each.sum()), 1)}


@compiled
def _learn_at(layers, mac, port):  # type: ignore[no-untyped-def]
    decide(layers[0], port, 0xFFFFFFFFFFFF, mac, clock_ns())


def _teach(host: Host, mac: bytes, port: int) -> None:
    _learn_at(host.layer, int.from_bytes(mac, "little"), port)


def _pin(core: int) -> None:
    os.sched_setaffinity(0, {core})


def _serve(path: Path, core: int, ready: Any, stop: Any, results: Any) -> None:
    _pin(core)
    layer = VirtualizationLayer(path, None, None)

    def end() -> None:
        stop.wait()
        layer.stop()

    threading.Thread(target=end, daemon=True).start()
    layer.run(ready.set)
    results.put(("layer", layer.stats()))


def _system(role: str, path: Path, core: int, gate: Any, results: Any, size: int, seconds: float) -> None:
    _pin(core)
    mine, other = MACS[::-1] if role == "sink" else MACS
    frames, template = burst(BATCH), template_for(other, mine)
    with Netfront.new_pool(1024) as pool, Netfront.open(path, pool, mac=mine, timeout=60) as driver:
        memory = (pool.words, pool.stack, frames)
        sending = (driver.tx, *memory, template.ctypes.data, size - FCS_BYTES)
        sink(driver.rx, *memory, 0)
        # The sink says a word first, so that the bridge knows where it is.
        generate(*sending, time.monotonic_ns() + (1000 if role == "sink" else 0))
        gate.wait(120)
        start, cpu = time.monotonic_ns(), time.process_time_ns()
        until = start + int(seconds * 1e9)
        count = sink(driver.rx, *memory, until) if role == "sink" else generate(*sending, until)
        results.put((role, (int(count), time.monotonic_ns() - start, time.process_time_ns() - cpu)))
        gate.wait(120)


def whole(size: int, seconds: float, cores: tuple[int, int]) -> dict[str, Any]:
    """Two systems on cores[0] and a layer on cores[1]; what arrived, and what it cost."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer"
        ready, stop, results = context.Event(), context.Event(), context.Queue()
        gate = context.Barrier(2)
        processes = [context.Process(target=_serve, args=(path, cores[1], ready, stop, results))]
        processes[0].start()
        if not ready.wait(120):
            raise RuntimeError("the layer did not start")
        for role in ("sink", "generate"):
            args = (role, path, cores[0], gate, results, size, seconds)
            processes.append(context.Process(target=_system, args=args))
            processes[-1].start()
        found = dict(results.get(timeout=120) for _ in range(2))
        stop.set()
        found |= dict([results.get(timeout=60)])
        for process in processes:
            process.join()
    received, nanoseconds, sink_cpu = found["sink"]
    layer = found["layer"]
    return {
        "frame_bytes": size,
        "packets_per_second": received * 1e9 / nanoseconds,
        "lost_share": 1 - received / found["generate"][0],
        "cpu_ns_systems": (sink_cpu + found["generate"][2]) / received,
        "copied_bytes_a_byte": layer["copied_bytes"] / layer["to_vifs_bytes"],
        "notifications": layer["notifications_sent"] + layer["notifications_received"],
        "drops": layer["drops"],
    }


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--runs", default=5, show_default=True)
@click.option("--seconds", default=1.0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(runs: int, seconds: float, as_json: bool) -> None:
    usable = sorted(os.sched_getaffinity(0))
    cores = (usable[0], usable[-1])
    VirtualizationLayer.warm_up()
    report: dict[str, Any] = {"machine": describe_machine(), "cores": cores, "stages": [], "whole": []}
    for size in SIZES:
        report["stages"].append(stages(size))
        results = [whole(size, seconds, cores) for _ in range(runs)]
        results.sort(key=lambda result: float(result["packets_per_second"]))
        report["whole"].append(results[len(results) // 2])
    if as_json:
        click.echo(json.dumps(report))
        return
    for staged, run in zip(report["stages"], report["whole"], strict=True):
        click.echo(f"{staged['frame_bytes']} B, one core, ns a packet (bursts of {BURST}):")
        for stage, ns in staged["ns_per_packet"].items():
            click.echo(f"  {ns:6.1f}  {stage}")
        click.echo(f"  {staged['sum_ns']:6.1f}  together")
        rate = run["packets_per_second"] / 1e6
        click.echo(
            f"  three processes on cores {cores}: {rate:.2f} M packets/s, {run['lost_share']:.1%} lost"
        )
        click.echo(f"  {run['copied_bytes_a_byte']:.2f} bytes copied a byte, drops {run['drops']}")
    line = report["machine"]["cache_line_round_trip_ns"]
    click.echo(f"a cache line to the other core and back: {line} ns")


if __name__ == "__main__":
    main()
