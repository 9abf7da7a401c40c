"""IP packets of every kind that a card tells apart, for property-based tests."""

from frames import ICMP, SCTP, TCP, UDP, Packet
from hypothesis import strategies as st

OPTIONS = st.integers(0, 10).map(lambda words: b"\x01" * 4 * words)
HOPS = st.tuples(st.sampled_from([0, 60]), st.integers(0, 2).map(lambda n: bytes([n]) + bytes(6 + 8 * n)))
PACKETS = st.builds(
    Packet,
    source=st.sampled_from([bytes([10, 1, 2, 3]), bytes([255] * 4)]),
    protocol=st.sampled_from([TCP, UDP, SCTP, ICMP, 200]),
    payload=st.binary(max_size=200),
    l4_options=OPTIONS,
    ip_options=OPTIONS,
    vlan=st.none() | st.integers(0, 0xFFFF),
    ports=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
) | st.builds(
    Packet,
    source=st.binary(min_size=16, max_size=16),
    destination=st.binary(min_size=16, max_size=16),
    protocol=st.sampled_from([TCP, UDP, SCTP, 58, 59]),
    payload=st.binary(max_size=200),
    l4_options=OPTIONS,
    extensions=st.lists(HOPS, max_size=7).map(tuple),
    vlan=st.none() | st.integers(0, 0xFFFF),
)
