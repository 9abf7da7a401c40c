"""Gather lists for tests: bytes in pieces, in memory that ends at a guard page."""

from collections.abc import Sequence

import internet_checksum as reference
import numpy as np
from frames import SCTP, TCP, UDP, Packet
from guarded_memory import Guarded, peek
from hypothesis import strategies as st

PAYLOAD = Guarded(40)


def scatter(pieces: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The pieces in memory, first one last and at the guard page, one byte between two of them."""
    PAYLOAD.put(b"\xee" * 20_000)
    end, addresses = 0, []
    for piece in pieces:
        end += len(piece)
        PAYLOAD.put(piece + peek(PAYLOAD.end - end + len(piece), end - len(piece)))
        addresses.append(PAYLOAD.end - end)
        end += 1
    return np.array(addresses, np.int64), np.array([len(piece) for piece in pieces], np.int64)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at `places` (taken modulo its length)."""
    cuts = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


ROUTE4 = {"source": bytes([10, 1, 2, 3]), "destination": bytes([10, 3, 2, 1])}
ROUTE6 = {"source": bytes(range(16)), "destination": bytes(range(100, 116))}
OPTIONS = st.integers(0, 10).map(lambda words: b"\x01" * 4 * words)


def packets(payload: st.SearchStrategy[bytes], protocols: Sequence[int]) -> st.SearchStrategy[Packet]:
    common = {
        "protocol": st.sampled_from(protocols),
        "payload": payload,
        "l4_options": OPTIONS,
        "vlan": st.none() | st.integers(0, 0xFFFF),
        "sequence": st.integers(0, 0xFFFFFFFF),
        "flags": st.integers(0, 255),
        "ports": st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    }
    four = st.builds(
        Packet,
        **{name: st.just(value) for name, value in ROUTE4.items()},
        ip_options=OPTIONS,
        identification=st.integers(0, 0xFFFF),
        **common,
    )
    six = st.builds(
        Packet,
        **{name: st.just(value) for name, value in ROUTE6.items()},
        extensions=st.sampled_from([(), ((0, bytes(7)),), ((60, b"\x01" + bytes(14)), (0, bytes(7)))]),
        **common,
    )
    return four | six


def pseudo_sum(packet: Packet, length: int) -> bytes:
    """The sum of the pseudo header as it lies in a checksum field: what a driver leaves there."""
    return reference.ones_sum(
        reference.pseudo(packet.source, packet.destination, packet.protocol, length)
    ).to_bytes(2, "big")


def spoiled(
    packet: Packet, frame: bytes, want_ip: bool = True, want_l4: bool = True, seed: bytes = b""
) -> bytes:
    """The frame with other bytes in the checksum fields that are to be filled in; `seed` in the one of L4."""
    out = bytearray(frame)
    if want_ip and not packet.is_ipv6:
        out[packet.l2_len + 10 : packet.l2_len + 12] = b"\xde\xad"
    if want_l4 and packet.protocol in (TCP, UDP):
        at = packet.l2_len + packet.l3_len + (16 if packet.protocol == TCP else 6)
        out[at : at + 2] = seed or b"\xbe\xef"
    elif want_l4 and packet.protocol == SCTP:
        at = packet.l2_len + packet.l3_len + 8
        out[at : at + 4] = b"\xbe\xef\xbe\xef"
    return bytes(out)
