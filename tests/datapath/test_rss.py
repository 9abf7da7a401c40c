import ipaddress
import struct

import numpy as np
import pytest
from frames import SCTP, TCP, UDP, Packet
from guarded_memory import Guarded
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath import rss
from vfwire.datapath.packet import parse
from vfwire.memory.compiled import compiled

MEMORY = Guarded()

# Microsoft, "Verifying the RSS hash calculation": the key, and (destination, source, hash, with ports).
KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
SUITE = [
    (("161.142.100.80", 1766), ("66.9.149.187", 2794), 0x323E8FC2, 0x51CCC178),
    (("65.69.140.83", 4739), ("199.92.111.2", 14230), 0xD718262A, 0xC626B0EA),
    (("12.22.207.184", 38024), ("24.19.198.95", 12898), 0xD2D0A5DE, 0x5C2B394A),
    (("209.142.163.6", 2217), ("38.27.205.30", 48228), 0x82989176, 0xAFC7327F),
    (("202.188.127.2", 1303), ("153.39.163.191", 44251), 0x5D1809C5, 0x10E828A2),
    (("3ffe:2501:200:3::1", 1766), ("3ffe:2501:200:1fff::7", 2794), 0x2CC18CD5, 0x40207D3D),
    (("ff02::1", 4739), ("3ffe:501:8::260:97ff:fe40:efab", 14230), 0x0F0C461C, 0xDDE51BBF),
    (
        ("fe80::200:f8ff:fe21:67cf", 38024),
        ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251),
        0x4B61E985,
        0x02D1FEEF,
    ),
]
# MRQC's field bits (82599 datasheet 8.2.3.7.12), less 16: TcpIPv4, IPv4, IPv6, TcpIPv6, UdpIPv4, UdpIPv6.
TCP4, IP4, IP6, TCP6, UDP4, UDP6 = (1 << bit for bit in (0, 1, 4, 5, 6, 7))
ALL = TCP4 | IP4 | IP6 | TCP6 | UDP4 | UDP6
NO_HASH = (0, 0)


@compiled
def toeplitz_at(table, address, count):  # type: ignore[no-untyped-def]
    return rss.toeplitz(table, address, count)


@compiled
def rss_at(table, address, length, enabled):  # type: ignore[no-untyped-def]
    kind, l2_len, l3_len, _, _ = parse(address, length)
    return rss.rss_hash(table, address, kind, l2_len, l3_len, enabled)


def table_of(key: bytes) -> np.ndarray:
    return rss.build_toeplitz_table(np.frombuffer(key, np.uint8))


def reference(key: bytes, data: bytes) -> int:
    """Bit by bit: for every 1 in the input, the 32 bits of the key that begin at its place."""
    window = int.from_bytes(key, "big")
    width = 8 * len(key)
    value = 0
    for place in range(8 * len(data)):
        if data[place // 8] >> (7 - place % 8) & 1:
            value ^= window >> (width - 32 - place) & 0xFFFFFFFF
    return value


def rss_of(frame: bytes, enabled: int, table: np.ndarray | None = None) -> tuple[int, ...]:
    chosen = table_of(KEY) if table is None else table
    return tuple(rss_at(chosen, MEMORY.put(frame), len(frame), enabled))


@pytest.mark.parametrize(("destination", "source", "addresses_only", "with_ports"), SUITE)
def test_the_published_suite(destination, source, addresses_only, with_ports) -> None:
    packet = Packet(
        source=ipaddress.ip_address(source[0]).packed,
        destination=ipaddress.ip_address(destination[0]).packed,
        ports=(source[1], destination[1]),
    )
    ip_type, tcp_type = (5, 3) if packet.is_ipv6 else (2, 1)
    assert rss_of(packet.frame(), ALL) == (with_ports, tcp_type)
    assert rss_of(packet.frame(), IP4 | IP6) == (addresses_only, ip_type)


@given(
    st.binary(min_size=40, max_size=40),
    st.integers(0, 9),
    st.binary(min_size=36, max_size=36),
    st.integers(0, 7),
)
def test_any_key_any_bytes(key: bytes, words: int, data: bytes, shift: int) -> None:
    address = MEMORY.put(data[: 4 * words] + bytes(shift))
    assert toeplitz_at(table_of(key), address, 4 * words) == reference(key, data[: 4 * words])


PACKETS = st.builds(
    Packet,
    source=st.binary(min_size=4, max_size=4),
    destination=st.binary(min_size=4, max_size=4),
    protocol=st.sampled_from([TCP, UDP, SCTP]),
    ip_options=st.sampled_from([b"", b"\x01" * 4, b"\x01" * 40]),
    fragment=st.sampled_from([0, 0x2000, 5]),
    vlan=st.sampled_from([None, 5]),
    ports=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
) | st.builds(
    Packet,
    source=st.binary(min_size=16, max_size=16),
    destination=st.binary(min_size=16, max_size=16),
    protocol=st.sampled_from([TCP, UDP, SCTP]),
    extensions=st.sampled_from([(), ((0, bytes(7)),)]),
    vlan=st.sampled_from([None, 5]),
    ports=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
)


@given(PACKETS, st.sets(st.sampled_from([TCP4, IP4, IP6, TCP6, UDP4, UDP6])))
def test_the_most_that_is_enabled_is_hashed(packet: Packet, enabled: set[int]) -> None:
    six = packet.is_ipv6
    addresses = packet.source + packet.destination
    whole = {TCP: TCP6 if six else TCP4, UDP: UDP6 if six else UDP4}.get(packet.protocol)
    if whole in enabled and not packet.fragment:
        types = {TCP4: 1, TCP6: 3, UDP4: 7, UDP6: 8}
        wanted = reference(KEY, addresses + struct.pack(">HH", *packet.ports)), types[whole]
    elif (IP6 if six else IP4) in enabled:
        wanted = reference(KEY, addresses), 5 if six else 2
    else:
        wanted = NO_HASH
    assert rss_of(packet.frame(), sum(enabled)) == wanted


@compiled
def hash_at(table, address, length, left_out):  # type: ignore[no-untyped-def]
    kind, l2_len, l3_len, _, _ = parse(address, length)
    value, _ = rss.rss_hash(table, address, kind, l2_len, l3_len, ALL)
    return value ^ rss.left_out_of_hash(table, address, kind, l2_len, l3_len, left_out)


DESTINATION, SOURCE, DESTINATION_PORT, SOURCE_PORT = (
    1,
    2,
    4,
    8,
)  # a protocol's four bits, lowest protocol first
ENA_PROTOCOLS = {(TCP, False): 0, (UDP, False): 1, (TCP, True): 2, (UDP, True): 3}


@given(PACKETS, st.lists(st.integers(0, 15), min_size=7, max_size=7))
def test_fields_that_are_left_out_count_as_zeros(packet: Packet, fields: list[int]) -> None:
    """Each protocol has another choice, so that a frame that is taken for another protocol's is found out."""
    fragment = packet.fragment and not packet.is_ipv6
    others = 5 if packet.is_ipv6 else (6 if fragment else 4)
    protocol = others if packet.fragment else ENA_PROTOCOLS.get((packet.protocol, packet.is_ipv6), others)
    with_ports = protocol < 4
    fields[4:] = [chosen & (DESTINATION | SOURCE) for chosen in fields[4:]]
    chosen = fields[protocol]
    source, destination = (
        bytes(len(text)) if chosen & bit else text
        for text, bit in ((packet.source, SOURCE), (packet.destination, DESTINATION))
    )
    ports = [
        0 if chosen & bit else port
        for port, bit in zip(packet.ports, (SOURCE_PORT, DESTINATION_PORT), strict=True)
    ]
    data = source + destination + (struct.pack(">HH", *ports) if with_ports else b"")
    left_out = sum(bits << 4 * place for place, bits in enumerate(fields))
    frame = packet.frame()
    assert hash_at(table_of(KEY), MEMORY.put(frame), len(frame), left_out) == reference(KEY, data)


def test_what_is_not_ip_has_no_hash() -> None:
    assert rss_of(bytes(12) + bytes.fromhex("0806") + bytes(46), ALL) == NO_HASH


def test_what_linux_enables() -> None:
    assert rss.RSS_DEFAULT == TCP4 | IP4 | IP6 | TCP6


@pytest.mark.parametrize("count", [0, 39, 41])
def test_a_key_of_the_wrong_size(count: int) -> None:
    with pytest.raises(ValueError, match="40 bytes"):
        table_of(bytes(count))
