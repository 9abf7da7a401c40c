"""Who talks to whom: the headers of probe frames, as the templates that compiled loops copy and compare."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.probe import MAGIC, MAGIC_OFFSET, TEMPLATE_BYTES
from vfwire.layouts.ethernet import (
    ETHERNET_BYTES,
    ETHERTYPE_IPV4,
    IPV4_BYTES,
    IPV4_DONT_FRAGMENT,
    PROTOCOL_UDP,
    UDP_BYTES,
)

FIRST_PORT = 49152  # IANA's dynamic range; flow n is sent from FIRST_PORT + n
DISCARD_PORT = 9  # RFC 863, as RFC 2544 appendix C.2.6.4 has it
_TTL = 64


@dataclass(frozen=True, slots=True)
class Station:
    """One end: MAC in six bytes, IPv4 address in four."""

    mac: bytes
    ip: bytes


def station(mac: bytes, number: int) -> Station:
    """The station with that MAC, its IPv4 address from RFC 2544's range for benchmarks: 198.18.0.number."""
    return Station(mac, bytes([198, 18, 0, number]))


def templates(source: Station, to: Station, frame_bytes: int, flows: int = 1) -> NDArray[np.uint8]:
    """(flows, TEMPLATE_BYTES): the first bytes of a probe of `frame_bytes` without FCS, for each flow.

    No UDP checksum (RFC 768 allows that), so that a sequence number can change alone.
    """
    made = np.zeros((flows, TEMPLATE_BYTES), np.uint8)
    for flow in range(flows):
        header = headers(source, to, frame_bytes - ETHERNET_BYTES, FIRST_PORT + flow, DISCARD_PORT)
        made[flow, : len(header)] = np.frombuffer(header, np.uint8)
        made[flow, MAGIC_OFFSET : MAGIC_OFFSET + 4] = np.frombuffer(struct.pack("<I", MAGIC), np.uint8)
    return made


def swapped(source: Station, to: Station, frame_bytes: int) -> NDArray[np.uint8]:
    """(1, TEMPLATE_BYTES): the probe of flow 0 from `source` as an echo at `to` sends it back."""
    made = templates(to, source, frame_bytes)
    header = headers(to, source, frame_bytes - ETHERNET_BYTES, DISCARD_PORT, FIRST_PORT)
    made[0, : len(header)] = np.frombuffer(header, np.uint8)
    return made


def headers(source: Station, to: Station, ip_bytes: int, source_port: int, to_port: int) -> bytes:
    """Ethernet, IPv4 and UDP headers of a packet that is `ip_bytes` long with its IPv4 header."""
    ethernet = to.mac + source.mac + struct.pack(">H", ETHERTYPE_IPV4)
    fields = (0x45, 0, ip_bytes, 0, IPV4_DONT_FRAGMENT, _TTL, PROTOCOL_UDP)
    start = struct.pack(">BBHHHBB", *fields)
    ends = source.ip + to.ip
    checksum = _internet_checksum(start + b"\0\0" + ends)
    udp = struct.pack(">HHHH", source_port, to_port, ip_bytes - IPV4_BYTES, 0)
    assert len(udp) == UDP_BYTES
    return ethernet + start + struct.pack(">H", checksum) + ends + udp


def _internet_checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
