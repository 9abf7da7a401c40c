"""The ENA driver's offloads over vfio-user, IPv4 and IPv6: sums filled in, segments, what it tells of wrong sums."""

import struct
import time
from typing import Any

import numpy as np
import pytest
from card_kit import enas

from vfwire.datapath import port
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import burst

SECONDS = 20.0
IP4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
IP6 = bytes(15) + b"\1", bytes(15) + b"\2"
FAMILIES = pytest.mark.parametrize(("source", "to"), [IP4, IP6], ids=["ipv4", "ipv6"])
TCP, UDP = 6, 17
GOOD = port.RX_IP_GOOD | port.RX_L4_GOOD
SUMS = GOOD | port.RX_CHECKSUM_BAD


def ones_sum(data: bytes) -> int:
    """RFC 1071, not inverted."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def packet(source: bytes, to: bytes, protocol: int, payload: bytes, *, filled: bool = True) -> bytes:
    """An IP packet of TCP or UDP; filled: with its sums, else with fields of zeros."""
    if protocol == TCP:
        l4, at = struct.pack(">HHIIBBHHH", 1000, 80, 1, 0, 0x50, 0x18, 0xFFFF, 0, 0), 16
    else:
        l4, at = struct.pack(">HHHH", 1000, 53, 8 + len(payload), 0), 6
    l4 += payload
    if filled:
        pseudo = source + to + struct.pack(">II", len(l4), protocol)
        l4 = l4[:at] + struct.pack(">H", 0xFFFF - ones_sum(pseudo + l4)) + l4[at + 2 :]
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28, len(l4), protocol, 64) + source + to + l4
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0x4000, 64, protocol, 0) + source + to
    if filled:
        header = header[:10] + struct.pack(">H", 0xFFFF - ones_sum(header)) + header[12:]
    return header + l4


def in_frame(one: Ena, two: Ena, data: bytes) -> bytes:
    return two.mac + one.mac + (b"\x08\x00" if data[0] >> 4 == 4 else b"\x86\xdd") + data


def send(nic: Ena, entries: list[bytes], change: Any = None) -> None:
    frames = burst(len(entries))
    assert nic.pool.take(frames, 60) == len(entries)
    frames.length = [len(entry) for entry in entries]
    for view, entry in zip(nic.pool.views(frames), entries, strict=True):
        view[:] = np.frombuffer(entry, np.uint8)
    if change is not None:
        change(frames)
    assert nic.transmit(frames, len(entries)) == len(entries)


def receive(nic: Ena, count: int) -> list[tuple[bytes, int]]:
    """(frame, RX_* flags) of `count` frames, each of one buffer."""
    found: list[tuple[bytes, int]] = []
    frames, deadline = burst(64), time.monotonic() + SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} frames"
        taken = frames[: nic.receive(frames)]
        found += [
            (view.tobytes(), int(frame["flags"]))
            for frame, view in zip(taken, nic.pool.views(taken), strict=True)
        ]
        nic.pool.give(taken)
    return found


@FAMILIES
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_wrong_sums_are_told_by_the_driver(source: bytes, to: bytes, protocol: int) -> None:
    with enas(2) as (_, (one, two)):
        right = in_frame(one, two, packet(source, to, protocol, bytes(range(100))))
        wrong = right[:-1] + b"\xff"
        send(one, [wrong, right, wrong, right])
        is_ipv4 = len(source) == 4
        good, bad = (
            (port.RX_IP_GOOD if is_ipv4 else 0) | flag for flag in (port.RX_L4_GOOD, port.RX_CHECKSUM_BAD)
        )
        assert [(frame, flags & SUMS) for frame, flags in receive(two, 4)] == [
            (wrong, bad),
            (right, good),
            (wrong, bad),
            (right, good),
        ]


def test_a_wrong_ipv4_header_and_a_fragment_are_told_by_the_driver() -> None:
    """The sum of a fragment's L4 cannot be known: it is neither good nor bad."""
    with enas(2) as (_, (one, two)):
        whole = packet(*IP4, UDP, bytes(60))
        other_ttl = whole[:8] + b"\x11" + whole[9:]
        header = whole[:6] + b"\x20\0" + whole[8:10] + bytes(2) + whole[12:20]
        fragment = header[:10] + struct.pack(">H", 0xFFFF - ones_sum(header)) + header[12:] + whole[20:]
        send(one, [in_frame(one, two, data) for data in (other_ttl, fragment, whole)])
        assert [flags & SUMS for _, flags in receive(two, 3)] == [
            port.RX_CHECKSUM_BAD | port.RX_L4_GOOD,
            port.RX_IP_GOOD,
            GOOD,
        ]


@FAMILIES
@pytest.mark.parametrize("llq", [0, 128])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_sums_are_filled_in(source: bytes, to: bytes, protocol: int, llq: int) -> None:
    with enas(2, llq=llq) as (_, (one, two)):
        is_ipv6 = len(source) == 16
        payload = bytes(range(200))

        def ask(frames: Any) -> None:
            frames["flags"] = port.TX_TCP_CHECKSUM if protocol == TCP else port.TX_UDP_CHECKSUM
            frames["flags"] |= port.TX_IPV6 if is_ipv6 else port.TX_IP_CHECKSUM
            frames.header = 14 | (40 if is_ipv6 else 20) << 8 | (20 if protocol == TCP else 8) << 16

        send(one, [in_frame(one, two, packet(source, to, protocol, payload, filled=False))], ask)
        wanted = in_frame(one, two, packet(source, to, protocol, payload))
        assert receive(two, 1)[0][0] == wanted


@FAMILIES
@pytest.mark.parametrize("llq", [0, 128])
def test_segmentation(source: bytes, to: bytes, llq: int) -> None:
    """A frame in eight buffers: each segment arrives with right sums, at its place, the payload whole."""
    with enas(2, llq=llq) as (_, (one, two)):
        is_ipv6 = len(source) == 16
        payload = np.random.default_rng(1).bytes(14_000)
        whole = in_frame(one, two, packet(source, to, TCP, payload, filled=False))
        headers = 14 + (40 if is_ipv6 else 20) + 20

        def as_one(frames: Any) -> None:
            frames["flags"][:-1] = port.TX_MORE
            frames["flags"][0] |= port.TX_SEGMENT | port.TX_TCP_CHECKSUM
            frames["flags"][0] |= port.TX_IPV6 if is_ipv6 else port.TX_IP_CHECKSUM
            frames.header[0] = 14 | (headers - 34) << 8 | 20 << 16
            frames.segment[0] = 1400

        send(one, [whole[at : at + 1800] for at in range(0, len(whole), 1800)], as_one)
        got = b""
        for frame, flags in receive(two, 10):
            assert flags & SUMS == (port.RX_L4_GOOD if is_ipv6 else GOOD)
            l3 = frame[14 : headers - 20]
            assert ones_sum(l3) == 0xFFFF or is_ipv6
            pseudo = source + to + struct.pack(">II", len(frame) - headers + 20, TCP)
            assert ones_sum(pseudo + frame[headers - 20 :]) == 0xFFFF
            assert int.from_bytes(frame[headers - 16 : headers - 12], "big") == 1 + len(got)
            got += frame[headers:]
        assert got == payload
