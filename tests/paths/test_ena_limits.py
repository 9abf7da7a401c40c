"""As much as an ENA offers, with frames: 32 queue pairs, and an MTU of 9,216."""

import time
from typing import Any

import numpy as np
import pytest
from card_kit import enas

from vfwire.datapath import port
from vfwire.datapath.state import Drop
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import burst

SECONDS = 20.0
PAIRS = 32
FLOWS = 16 * PAIRS
MTU = 9216
ETHERNET, TAG = 14, 4


def udp(one: Ena, two: Ena, flow: int) -> bytes:
    """A frame of a flow of its own. Their numbers differ in many bits, so that any random key spreads them."""
    mixed = (flow * 0x9E3779B1 & 0xFFFF_FFFF).to_bytes(4, "big")
    ip = bytes.fromhex("4500002e00004000401100000a0000010a00") + mixed[:2]
    headers = two.mac + one.mac + b"\x08\x00" + ip + mixed[2:] + bytes.fromhex("0050001a0000")
    return headers + flow.to_bytes(4, "big") + bytes(14)


def send(nic: Ena, data: list[bytes], queue: int = 0, *, joined: bool = False) -> None:
    """Frames, or one frame in several buffers."""
    frames = burst(len(data))
    assert nic.pool.take(frames, 60) == len(data)
    frames.length = [len(entry) for entry in data]
    if joined:
        frames["flags"][:-1] = port.TX_MORE
    for view, entry in zip(nic.pool.views(frames), data, strict=True):
        view[:] = np.frombuffer(entry, np.uint8)
    assert nic.transmit(frames, len(data), queue) == len(data)


def poll(nic: Ena, queue: int, found: list[bytes]) -> None:
    """Add what has come on a queue: entries as they are."""
    frames: Any = burst(64)
    taken = frames[: nic.receive(frames, queue=queue)]
    found += [view.tobytes() for view in nic.pool.views(taken)]
    nic.pool.give(taken)


def test_32_queue_pairs_carry_traffic() -> None:
    """Each transmit queue sends; each receive queue has flows of its own, and no flow is on two."""
    with enas(2, queues=PAIRS, ring_size=64) as (_, (one, two)):
        found: list[list[bytes]] = [[] for _ in range(PAIRS)]
        deadline = time.monotonic() + SECONDS
        for turn in range(2):
            for flow in range(FLOWS):
                send(one, [udp(one, two, flow)], flow % PAIRS)
            while sum(map(len, found)) < (turn + 1) * FLOWS:
                assert time.monotonic() < deadline, [len(frames) for frames in found]
                for queue, frames in enumerate(found):
                    poll(two, queue, frames)
        one.wait_sent()
        assert all(found), [len(frames) for frames in found]
        everything = sorted(frame for frames in found for frame in frames)
        assert everything == sorted(udp(one, two, flow) for flow in [*range(FLOWS)] * 2)
        assert sum(len(set(frames)) for frames in found) == FLOWS
        sent, received = one.stats(), two.stats()
        assert [sent[f"queue_{queue}_tx_cnt"] for queue in range(PAIRS)] == [2 * FLOWS // PAIRS] * PAIRS
        assert [received[f"queue_{queue}_rx_cnt"] for queue in range(PAIRS)] == [*map(len, found)]


@pytest.mark.parametrize("llq", [0, 128])
@pytest.mark.parametrize("tagged", [False, True])
def test_a_frame_of_the_full_mtu_arrives_and_a_longer_one_is_a_counted_drop(llq: int, tagged: bool) -> None:
    with enas(2, mtu=MTU, llq=llq) as (card, (one, two)):
        full = ETHERNET + MTU + (TAG if tagged else 0)
        front = two.mac + one.mac + (b"\x81\0\0\7" if tagged else b"") + b"\x88\xb5"
        for size in (full, full + 1, full):
            frame = (front + bytes(range(256)) * 40)[:size]
            send(one, [frame[at : at + 2000] for at in range(0, size, 2000)], joined=True)
        wanted = (front + bytes(range(256)) * 40)[:full]
        deadline, parts = time.monotonic() + SECONDS, list[bytes]()
        while sum(map(len, parts)) < 2 * full:
            assert time.monotonic() < deadline, [len(part) for part in parts]
            poll(two, 0, parts)
        one.wait_sent()
        assert b"".join(parts) == 2 * wanted
        assert card.engine.state.drops.sum(axis=0)[Drop.TOO_LONG] == card.engine.state.drops.sum() == 1
