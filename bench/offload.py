"""What the card's offload engine costs: CPU nanoseconds for one operation, median (and least) of five runs on one core.

    python bench/offload.py [--json]

Thread CPU time, not wall time, so that other work on the machine counts as little as it can. Data is in the first-level
cache, as it is for a card that has just copied it.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vfwire.datapath.checksum import fold, sum_words
from vfwire.datapath.checksum_status import checksum_status
from vfwire.datapath.packet import parse, parse_full
from vfwire.datapath.rss import RSS_DEFAULT, build_toeplitz_table, rss_hash
from vfwire.datapath.segment import (
    fill_checksums,
    gather_copy,
    segment_fields,
    segment_header,
    segment_seed,
)
from vfwire.memory.compiled import compiled

RUNS = 5
ROUND_NS = 50_000_000  # of each run, about
HEADERS = 54
MSS = 1460
PAYLOAD = 44 * MSS


@compiled
def sum_20(loops, address):  # type: ignore[no-untyped-def]
    total = 0
    for step in range(loops):
        total += fold(sum_words(address + (step & 1), 20, 0))
    return total


@compiled
def sum_many(loops, address, count):  # type: ignore[no-untyped-def]
    total = 0
    for step in range(loops):
        total += fold(sum_words(address + (step & 1), count, 0))
    return total


@compiled
def parse_frame(loops, address, length):  # type: ignore[no-untyped-def]
    total = 0
    for step in range(loops):
        kind, l2, l3, l4, protocol = parse(address, length - (step & 1))
        total += kind + l2 + l3 + l4 + protocol
    return total


@compiled
def check_frame(loops, address, length, nothing):  # type: ignore[no-untyped-def]
    total = 0
    for _ in range(loops):
        kind, l2, l3, _, protocol, l4_bytes = parse_full(address, length)
        total += checksum_status(address, length, kind, l2, l3, protocol, l4_bytes, nothing, nothing, 0, 0)
    return total


@compiled
def hash_frame(loops, table, address, length):  # type: ignore[no-untyped-def]
    kind, l2, l3, _, _ = parse(address, length)
    total = 0
    for _ in range(loops):
        value, _ = rss_hash(table, address, kind, l2, l3, RSS_DEFAULT)
        total += value
    return total


@compiled
def fill_frame(loops, header, addresses, lengths):  # type: ignore[no-untyped-def]
    for _ in range(loops):
        fill_checksums(
            header, HEADERS, 14, 20, False, 6, True, True, False, addresses, lengths, 1, HEADERS, MSS
        )
    return 0


@compiled
def segment_frame(loops, header, to, addresses, lengths, with_copy):  # type: ignore[no-untyped-def]
    """One segment of 1,460 bytes for each loop, through a payload of 44 of them."""
    fields = segment_fields(header, 14, 20, False)
    seed, _ = segment_seed(header, 14, 20, fields, False)
    number = 0
    for _ in range(loops):
        sent = number * MSS
        segment_header(
            header,
            14,
            20,
            20,
            fields,
            seed,
            number,
            sent,
            MSS,
            PAYLOAD,
            addresses,
            lengths,
            len(addresses),
            HEADERS,
        )
        if with_copy:
            gather_copy(to, addresses, lengths, len(addresses), HEADERS + sent, MSS)
        number = number + 1 if number < 43 else 0
    return 0


def nanoseconds(function: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """(median, least) CPU nanoseconds of one loop."""
    function(1, *arguments)
    loops = 1000
    while (spent := _run(function, loops, arguments)) < ROUND_NS // 4:
        loops *= 2
    loops = max(1, loops * ROUND_NS // max(spent, 1))
    costs = sorted(_run(function, loops, arguments) / loops for _ in range(RUNS))
    return costs[RUNS // 2], costs[0]


def _run(function: Callable[..., Any], loops: int, arguments: tuple[Any, ...]) -> int:
    start = time.thread_time_ns()
    function(loops, *arguments)
    return time.thread_time_ns() - start


def tcp_frame(ipv6: bool, payload: int) -> np.ndarray:
    """A TCP frame with that many payload bytes; its checksums are not right, which costs the same to find out."""
    if ipv6:
        ip = bytes([0x60, 0, 0, 0]) + (20 + payload).to_bytes(2, "big") + bytes([6, 64]) + bytes(range(32))
    else:
        ip = bytes([0x45, 0]) + (40 + payload).to_bytes(2, "big") + bytes([0, 1, 0, 0, 64, 6, 0, 0])
        ip += bytes([10, 0, 0, 1, 10, 0, 0, 2])
    tcp = bytes([0, 80, 4, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 2, 0, 0, 0, 0, 0])
    kind = b"\x86\xdd" if ipv6 else b"\x08\x00"
    frame = bytes(12) + kind + ip + tcp + bytes(i & 0xFF for i in range(payload))
    return np.frombuffer(bytearray(frame), np.uint8)


def measure() -> dict[str, tuple[float, float]]:
    """Each operation by name, with (median, least) nanoseconds."""
    memory = np.zeros(1 << 17, np.uint8)
    data = memory.ctypes.data + 14
    table = build_toeplitz_table(np.arange(40, dtype=np.uint8))
    frames = {
        f"IPv{4 + 2 * six}, {size} B": tcp_frame(bool(six), size) for six in (0, 1) for size in (6, MSS)
    }
    big = np.concatenate([tcp_frame(False, PAYLOAD % 65_000), np.zeros(PAYLOAD, np.uint8)])
    pieces = np.arange(0, HEADERS + PAYLOAD, 16_384, dtype=np.int64)
    lengths = np.minimum(16_384, HEADERS + PAYLOAD - pieces)
    addresses = pieces + big.ctypes.data
    header = memory.ctypes.data + 100_000
    memory[100_000 : 100_000 + HEADERS] = big[:HEADERS]
    results = {"checksum, 20 B": nanoseconds(sum_20, data)}
    for count in (64, MSS, 65_536):
        results[f"checksum, {count:,} B"] = nanoseconds(sum_many, data, count)
    for name, frame in frames.items():
        results[f"parse TCP/{name}"] = nanoseconds(parse_frame, frame.ctypes.data, len(frame))
        results[f"receive checksums TCP/{name}"] = nanoseconds(
            check_frame, frame.ctypes.data, len(frame), lengths[:0]
        )
        if name.endswith(" 6 B"):
            results[f"RSS hash TCP/{name[:4]}"] = nanoseconds(
                hash_frame, table, frame.ctypes.data, len(frame)
            )
    results["transmit checksums, 1,460 B"] = nanoseconds(fill_frame, header, addresses, lengths)
    results["segment of 1,460 B, header"] = nanoseconds(
        segment_frame, header, data, addresses, lengths, False
    )
    results["segment of 1,460 B, with copy"] = nanoseconds(
        segment_frame, header, data, addresses, lengths, True
    )
    return results


def main() -> None:
    results = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps({name: {"median_ns": m, "least_ns": least} for name, (m, least) in results.items()}))
        return
    for name, (median, least) in results.items():
        print(f"{name:40} {median:9.2f} ns  (least {least:.2f})")


if __name__ == "__main__":
    main()
