"""UDP over veth and a Linux bridge, between two processes in two network namespaces.

Throughput by sendmmsg and recvmmsg in bursts of 64; round trips blocking, and with both sides polling.
"""

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import click
import numpy as np
from pyroute2 import netns

from bench.common import (
    core_pair,
    describe_machine,
    die_with_parent,
    one_line_errors,
    percentiles_us,
    progress_line,
)
from bench.rivals import udp_loops
from bench.rivals.namespaces import ADDRESSES, BridgedPair, bridged_pair
from vfwire.errors import PeerGone, WaitTimeout

PORT = 9000
HEADERS = 14 + 20 + 8 + 4  # Ethernet, IPv4, UDP, FCS: what a frame size counts beside the payload
SETTLE_NS = 200_000_000
RECEIVE_TIMEOUT_S = 0.1
MOST_SAMPLES = 1_000_000
SOCKET_BUFFER = 8 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h; Python has no names for them

Role = Callable[[socket.socket, int, float], Any]


def connected_socket(mine: str, theirs: str) -> socket.socket:
    """A connected UDP socket with room for bursts, and a receive timeout so that no loop outlives its deadline."""
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
        end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    timeout = np.array([0, int(RECEIVE_TIMEOUT_S * 1e6)], np.int64).tobytes()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    end.bind((mine, PORT))
    end.connect((theirs, PORT))
    return end


def _receive(end: socket.socket, payload: int, seconds: float) -> float:
    """Packets/s received, after the sender had time to settle."""
    messages = udp_loops.Messages.make(payload)
    begin = time.monotonic_ns() + SETTLE_NS
    received, took = udp_loops.drain(end.fileno(), messages.address, begin, begin + int(seconds * 1e9))
    return received * 1e9 / took if took else 0.0


def _send(end: socket.socket, payload: int, seconds: float) -> int:
    messages = udp_loops.Messages.make(payload)
    deadline = time.monotonic_ns() + int(seconds * 1e9) + 2 * SETTLE_NS
    return int(udp_loops.blast(end.fileno(), messages.address, deadline))


def _answer(flags: int) -> Role:
    def role(end: socket.socket, payload: int, seconds: float) -> int:
        messages = udp_loops.Messages.make(payload)
        deadline = time.monotonic_ns() + int(seconds * 1e9) + SETTLE_NS
        return int(udp_loops.echo(end.fileno(), messages.data, payload, flags, deadline))

    return role


def _question(flags: int) -> Role:
    def role(end: socket.socket, payload: int, seconds: float) -> dict[str, float]:
        messages = udp_loops.Messages.make(payload)
        samples = np.zeros(MOST_SAMPLES, np.int64)
        deadline = time.monotonic_ns() + int(seconds * 1e9)
        count = udp_loops.ask(end.fileno(), messages.data, payload, flags, samples, deadline)
        return percentiles_us(samples[:count])

    return role


def _child(
    namespace: str,
    core: int,
    addresses: tuple[str, str],
    role: Role,
    payload: int,
    seconds: float,
    pipe: Connection,
) -> None:
    """A process of the pair: into its namespace, onto its core, says "ready", is told to go, sends its result."""
    die_with_parent()
    os.sched_setaffinity(0, {core})
    netns.setns(namespace)
    with connected_socket(*addresses) as end:
        pipe.send("ready")
        pipe.recv()
        pipe.send(role(end, payload, seconds))


def _take(pipe: Connection, limit_s: float, what: str) -> Any:
    if not pipe.poll(limit_s):
        raise WaitTimeout(f"{what} said nothing for {limit_s:g} s")
    try:
        return pipe.recv()
    except EOFError:
        raise PeerGone(f"{what} ended without a result") from None


def run_pair(
    pair: BridgedPair, cores: tuple[int, int], roles: tuple[Role, Role], payload: int, seconds: float
) -> Any:
    """Run two roles, one in each namespace, and give the first one's result. Both processes are gone on return."""
    context = multiprocessing.get_context("fork")  # after compiling: the children start with the machine code
    children, pipes = [], []
    for number, role in enumerate(roles):
        here, there = context.Pipe()
        addresses = (ADDRESSES[number], ADDRESSES[1 - number])
        arguments = (pair.ends[number], cores[number], addresses, role, payload, seconds, there)
        child = context.Process(target=_child, args=arguments, daemon=True)
        child.start()
        there.close()
        children.append(child)
        pipes.append(here)
    try:
        for pipe in pipes:
            _take(pipe, 10, "a process of the pair")
        for pipe in reversed(pipes):  # whoever answers or sends first is there before the measuring one asks
            pipe.send("go")
        return _take(pipes[0], seconds + 5, "the measuring process")
    finally:
        for child, pipe in zip(children, pipes, strict=True):
            child.join(2)
            if child.is_alive():
                child.kill()
                child.join()
            pipe.close()


def compile_loops() -> None:
    """Compile everything in this process before any clock runs."""
    messages = udp_loops.Messages.make(8)
    samples = np.zeros(1, np.int64)
    udp_loops.blast(-1, messages.address, 0)
    udp_loops.drain(-1, messages.address, 0, 0)
    udp_loops.echo(-1, messages.data, 8, 0, 0)
    udp_loops.ask(-1, messages.data, 8, 0, samples, 0)


def measure(frame_bytes: int, seconds: float, what: str = "both") -> dict[str, Any]:
    """One record for one frame size. what: "rate", "rtt" or "both"; what was not asked for is null.

    Raises PermissionDenied without root, UnsupportedMachine on one core, WaitTimeout when nothing comes across.
    """
    cores = core_pair()
    payload = frame_bytes - HEADERS
    compile_loops()
    rate: float | None = None
    round_trips: dict[str, Any] | None = None
    with bridged_pair() as pair:
        if what != "rtt":
            rate = run_pair(pair, cores, (_receive, _send), payload, seconds)
        if what != "rate":
            round_trips = {
                name: run_pair(pair, cores, (_question(flags), _answer(flags)), payload, seconds)
                for name, flags in (("blocking", 0), ("busy_polling", udp_loops.MSG_DONTWAIT))
            }
    return {
        "rival": "veth",
        "frame_bytes": frame_bytes,
        "packets_per_second": rate,
        "rtt_us": round_trips,
        "cores": {"receiver": cores[0], "sender": cores[1]},
    }


@click.command()
@click.option("--seconds", default=1.0, show_default=True, help="How long each measurement takes.")
@click.option(
    "--size", "sizes", multiple=True, default=(64, 1518), show_default=True, help="Frame size with FCS."
)
@click.option("--what", type=click.Choice(["rate", "rtt", "both"]), default="both", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(seconds: float, sizes: tuple[int, ...], what: str, as_json: bool) -> None:
    """UDP over veth and a Linux bridge: packets/s received, and round trips."""
    with one_line_errors():
        records = []
        for size in sizes:
            progress_line(f"veth: {size} B")
            records.append(measure(size, seconds, what))
        if as_json:
            click.echo(json.dumps({"machine": describe_machine(), "records": records}))
            return
        for record in records:
            click.echo(json.dumps(record))


if __name__ == "__main__":
    main()
