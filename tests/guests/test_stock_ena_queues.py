"""A guest with four vCPUs and four queues: each flow comes to the queue that the guest's own key and table name.

The flows come from our driver on another VF, so that nothing else arrives and every frame can be told.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.guests.guest_kit import card
from tests.guests.stock_kit import (
    READY_SECONDS,
    content,
    interrupts,
    start,
    statistics,
    wait_link,
    wait_until,
)
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import Pool, burst
from vfwire.guests.guest import Guest

pytestmark = [pytest.mark.guests, pytest.mark.timeout(600)]

QUEUES = 4
CANDIDATES = [
    (f"10.0.0.{100 + number}", 1000 + 77 * number) for number in range(100)
]  # source address and port
FRAMES = 5
NOBODY = "10.0.0.77"  # the guest counts what comes for it, and answers nothing
PORT = 9
Flow = tuple[str, int]
ALL_FIELDS = range(12)  # bytes: source and destination address, source and destination port
SOURCE = range(4)
INITIAL = 0xFFFFFFFF  # what Linux's driver asks the hash to begin with (ena_com.c, ena_com_hash_key_fill_default_key)


@dataclass
class Bench:
    guest: Guest
    nic: Ena
    mac: bytes

    def send(self, source: str, port: int) -> None:
        """FRAMES frames of one UDP flow to the guest."""
        ip = bytes.fromhex("45000028000000004011") + b"\0\0" + address(source) + address(NOBODY)
        udp = port.to_bytes(2, "big") + PORT.to_bytes(2, "big") + b"\0\x14\0\0"
        data = (self.mac + self.nic.mac + b"\x08\x00" + with_checksum(ip) + udp).ljust(60, b"\0")
        frames = burst(FRAMES)
        assert self.nic.pool.take(frames, len(data)) == FRAMES
        for view in self.nic.pool.views(frames):
            view[:] = np.frombuffer(data, np.uint8)
        assert self.nic.transmit(frames, FRAMES) == FRAMES
        self.nic.wait_sent()

    def received(self) -> list[int]:
        shown = statistics(self.guest)
        return [shown[f"queue_{queue}_rx_cnt"] for queue in range(QUEUES)]

    def queue_of(self, source: str, port: int) -> int:
        """Where a flow arrives: the one queue that has counted its frames."""
        before = self.received()
        self.send(source, port)
        wait_until("the frames", lambda: sum(self.received()) >= sum(before) + FRAMES)
        grown = [after - count for after, count in zip(self.received(), before, strict=True)]
        assert sorted(grown) == [0] * (QUEUES - 1) + [FRAMES]
        return grown.index(FRAMES)

    def expected(self, flows: list[Flow], kept: range = ALL_FIELDS) -> list[int]:
        """The same of each of these flows, from `ethtool -x` and a Toeplitz of this test's own.

        kept: the bytes of addresses and ports that are hashed; the others are zeros.
        """
        shown = self.guest.check("ethtool -x eth0")
        rows = re.findall(r"^\s*\d+:((?:\s+\d+)+)$", shown, re.M)
        table = [int(entry) for row in rows for entry in row.split()]
        (key,) = re.findall(r"(?:[0-9a-f]{2}:){39}[0-9a-f]{2}", shown)
        assert len(table) == 128
        reverse = bytes.fromhex(key.replace(":", ""))[::-1]  # the device takes it in this order
        queues = []
        for source, port in flows:
            data = address(source) + address(NOBODY) + port.to_bytes(2, "big") + PORT.to_bytes(2, "big")
            zeroed = bytes(byte if place in kept else 0 for place, byte in enumerate(data))
            queues.append(table[(toeplitz(reverse, zeroed) ^ INITIAL) % 128])
        return queues

    def flows(self, kept: range = ALL_FIELDS) -> list[Flow]:
        """Two for each queue, as the guest has its key and table now."""
        chosen: dict[int, list[Flow]] = {queue: [] for queue in range(QUEUES)}
        for flow, queue in zip(CANDIDATES, self.expected(CANDIDATES, kept), strict=True):
            chosen[queue].append(flow)
        return [flow for found in chosen.values() for flow in found[:2]]


def address(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def with_checksum(header: bytes) -> bytes:
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big") + header[12:]


def toeplitz(key: bytes, data: bytes) -> int:
    """Microsoft's "RSS hashing functions": for every 1 in the input, the 32 bits of the key that begin at its place."""
    window, width, value = int.from_bytes(key, "big"), 8 * len(key), 0
    for place, bit in enumerate(bit for byte in data for bit in f"{byte:08b}"):
        if bit == "1":
            value ^= window >> (width - 32 - place) & 0xFFFFFFFF
    return value


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    Ena.warm_up()
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(
            card(tmp_path_factory.mktemp("c"), "--vfs", "2", "--model", "ena", "--guests")
        )
        guest = stack.enter_context(start(made, 0, vcpus=QUEUES))
        pool = stack.enter_context(Pool(2048))
        function = VfioUserFunction(Path(made.sockets[1]))
        nic = stack.enter_context(Ena.open(function, pool))
        guest.wait_ready(READY_SECONDS)
        wait_link(guest)
        yield Bench(guest, nic, bytes.fromhex(made.described["vfs"][0]["mac"].replace(":", "")))
        del nic


@pytest.fixture(autouse=True)
def driver_is_content(bench: Bench) -> Iterator[None]:
    with content(bench.guest):
        yield


def test_a_queue_and_a_vector_for_each_of_four_cpus(bench: Bench) -> None:
    assert bench.guest.check("ethtool -l eth0").count(f"Combined:\t{QUEUES}\n") == 2
    assert len([name for name in interrupts(bench.guest) if "Tx-Rx" in name]) == QUEUES


def test_each_flow_comes_to_the_queue_that_the_guests_key_and_table_name(bench: Bench) -> None:
    before = interrupts(bench.guest)
    flows = bench.flows()
    wanted = bench.expected(flows)
    assert set(wanted) == set(range(QUEUES))
    assert [bench.queue_of(*flow) for flow in flows] == wanted
    after = interrupts(bench.guest)
    assert all(after[name] > before[name] for name in after if "Tx-Rx" in name)


def test_another_table_moves_the_flows(bench: Bench) -> None:
    flows = bench.flows()
    bench.guest.check("ethtool -X eth0 weight 0 0 1 3")
    wanted = bench.expected(flows)
    assert set(wanted) <= {2, 3}
    assert [bench.queue_of(*flow) for flow in flows] == wanted
    bench.guest.check("ethtool -X eth0 default")


def test_a_field_that_is_chosen_by_itself_names_the_queue(bench: Bench) -> None:
    """Linux's driver tells nobody when its device refuses such a choice, so the flows have to show it."""
    bench.guest.check("ethtool -N eth0 rx-flow-hash udp4 s")
    shown = bench.guest.check("ethtool -n eth0 rx-flow-hash udp4")
    assert "IP SA" in shown and "IP DA" not in shown and "L4" not in shown
    flows = bench.flows(SOURCE)
    wanted = bench.expected(flows, SOURCE)
    assert set(wanted) == set(range(QUEUES)) and wanted != bench.expected(flows)
    assert [bench.queue_of(*flow) for flow in flows] == wanted
    bench.guest.check("ethtool -N eth0 rx-flow-hash udp4 sdfn")
    assert [bench.queue_of(*flow) for flow in flows] == bench.expected(flows)


def test_the_guest_sends_from_every_queue(bench: Bench) -> None:
    """64 sockets, each on the queue that its hash chose."""
    before = statistics(bench.guest)
    bench.guest.check(
        f"ip neigh replace 10.0.0.2 lladdr {bench.nic.mac.hex(':')} dev eth0 nud permanent\n"
        "bash -c 'for port in $(seq 64); do echo x >/dev/udp/10.0.0.2/$port; done'"
    )
    frames, seen = burst(64), set[int]()
    deadline = time.monotonic() + 30
    while len(seen) < 64:
        assert time.monotonic() < deadline, f"{len(seen)} of 64"
        count = bench.nic.receive(frames)
        for view in bench.nic.pool.views(frames[:count]):
            if view[12:14].tobytes() == b"\x08\x00" and view[23] == 17:
                seen.add(int.from_bytes(view[36:38].tobytes(), "big"))
        bench.nic.pool.give(frames[:count])
    after = statistics(bench.guest)
    assert all(after[f"queue_{queue}_tx_cnt"] > before[f"queue_{queue}_tx_cnt"] for queue in range(QUEUES))
