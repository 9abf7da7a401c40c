import struct
from collections.abc import Sequence
from dataclasses import replace

import internet_checksum as reference
import numpy as np
import pytest
from frames import SCTP, TCP, UDP, Packet
from guarded_memory import Guarded, peek
from hypothesis import example, given
from hypothesis import strategies as st
from segment_kit import ROUTE4, ROUTE6, cut, packets, pseudo_sum, scatter, spoiled

from vfwire.datapath import segment as subject
from vfwire.datapath.checksum import fold
from vfwire.memory.compiled import compiled

HEADER, OUT = Guarded(2), Guarded(80)
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80


@compiled
def gather_copy_to(to, addresses, lengths, entries, offset, count):  # type: ignore[no-untyped-def]
    return subject.gather_copy(to, addresses, lengths, entries, offset, count)


@compiled
def gather_sum_of(addresses, lengths, entries, offset, count):  # type: ignore[no-untyped-def]
    return fold(subject.gather_sum(addresses, lengths, entries, offset, count))


@compiled
def fill(  # type: ignore[no-untyped-def]
    header, header_len, l2, l3, is_ipv6, protocol, want_ip, want_l4, seeded, addresses, lengths, offset, count
):
    return subject.fill_checksums(
        header,
        header_len,
        l2,
        l3,
        is_ipv6,
        protocol,
        want_ip,
        want_l4,
        seeded,
        addresses,
        lengths,
        len(addresses),
        offset,
        count,
    )


@compiled
def valid(l2, l3, l4, mss, header_len, total):  # type: ignore[no-untyped-def]
    return subject.valid_offload(l2, l3, l4, mss, header_len, total)


@compiled
def fields_of(header, l2, l3, is_ipv6):  # type: ignore[no-untyped-def]
    return subject.segment_fields(header, l2, l3, is_ipv6)


@compiled
def count_of(payload, mss):  # type: ignore[no-untyped-def]
    return subject.segment_count(payload, mss)


@compiled
def seed_of(header, l2, l3, fields, seeded):  # type: ignore[no-untyped-def]
    return subject.segment_seed(header, l2, l3, fields, seeded)


@compiled
def segment_at(  # type: ignore[no-untyped-def]
    header, l2, l3, l4, fields, seed, number, sent, part, payload, addresses, lengths, offset
):
    subject.segment_header(
        header,
        l2,
        l3,
        l4,
        fields,
        seed,
        number,
        sent,
        part,
        payload,
        addresses,
        lengths,
        len(addresses),
        offset,
    )


PIECES = st.lists(st.binary(max_size=90), max_size=8)
CUTS = st.lists(st.integers(0, 5000), max_size=6)


@given(PIECES, st.integers(0, 400), st.integers(0, 500))
def test_gather_copy_and_sum(pieces: list[bytes], offset: int, count: int) -> None:
    addresses, lengths = scatter(pieces)
    wanted = b"".join(pieces)[offset : offset + count]
    to = OUT.put(b"\x55" * count)
    assert gather_copy_to(to, addresses, lengths, len(pieces), offset, count) == len(wanted)
    assert peek(to, count) == wanted + b"\x55" * (count - len(wanted))
    total = int(gather_sum_of(addresses, lengths, len(pieces), offset, count))
    assert total.to_bytes(2, "little") == reference.ones_sum(wanted).to_bytes(2, "big")


@given(st.lists(st.integers(-100, 90), max_size=6), st.integers(-100, 300), st.integers(-100, 300))
def test_gather_with_lengths_that_cannot_be(lengths: list[int], offset: int, count: int) -> None:
    """A piece of negative length is empty, as is a negative count; a negative offset is none."""
    addresses, _ = scatter([bytes([index]) * max(length, 0) for index, length in enumerate(lengths)])
    whole = b"".join(bytes([index]) * max(length, 0) for index, length in enumerate(lengths))
    wanted = whole[max(offset, 0) :][: max(count, 0)]
    to = OUT.put(bytes(max(count, 0)))
    table = np.array(lengths, np.int64)
    assert gather_copy_to(to, addresses, table, len(lengths), offset, count) == len(wanted)
    assert peek(to, len(wanted)) == wanted
    assert 0 <= gather_sum_of(addresses, table, len(lengths), offset, count) <= 0xFFFF


def fill_in(
    packet: Packet,
    frame: bytes,
    header_len: int,
    cuts: Sequence[int],
    want_ip: bool,
    want_l4: bool,
    seeded: bool = False,
) -> tuple[int, bytes]:
    """Run fill_checksums: `header_len` bytes private, the whole frame as gather list. Returns its answer, the frame."""
    addresses, lengths = scatter(cut(frame, cuts))
    header = HEADER.put(frame[:header_len])
    count = len(frame) - header_len
    shape = header_len, packet.l2_len, packet.l3_len, packet.is_ipv6, packet.protocol
    done = fill(header, *shape, want_ip, want_l4, seeded, addresses, lengths, header_len, count)
    return int(done), peek(header, header_len) + frame[header_len:]


@given(
    packets(st.binary(max_size=300), [TCP, UDP, SCTP]),
    st.integers(0, 50),
    st.integers(0, 300),
    CUTS,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_fill_checksums(
    packet: Packet, padding: int, more: int, cuts: list[int], want_ip: bool, want_l4: bool, seeded: bool
) -> None:
    whole = packet.frame() + bytes(range(padding))
    seed = pseudo_sum(packet, packet.l4_len + len(packet.payload)) if seeded else b""
    frame = spoiled(packet, whole, want_ip, want_l4, seed)
    header_len = min(packet.l2_len + packet.l3_len + packet.l4_len + more, len(frame))
    assert valid(packet.l2_len, packet.l3_len, 0, 0, header_len, len(frame))
    assert fill_in(packet, frame, header_len, cuts, want_ip, want_l4, seeded) == (subject.FILLED, whole)


@pytest.mark.parametrize("route", [ROUTE4, ROUTE6])
def test_a_udp_checksum_of_zero_is_sent_as_ones(route: dict[str, bytes]) -> None:
    plain = Packet(**route, protocol=UDP, payload=bytes(2))
    at = plain.l2_len + plain.l3_len + 6
    packet = replace(plain, payload=plain.frame()[at : at + 2])
    frame = packet.frame()
    assert frame[at : at + 2] == b"\xff\xff"
    assert fill_in(packet, spoiled(packet, frame), at + 2, [], True, True) == (subject.FILLED, frame)


@given(packets(st.binary(max_size=60), [TCP, UDP]), st.integers(1, 0xFFFE))
def test_a_wrong_seed_makes_a_wrong_checksum_and_says_so(packet: Packet, off: int) -> None:
    """As on the chip: what the driver left in the field is what is added."""
    right = int.from_bytes(pseudo_sum(packet, packet.l4_len + len(packet.payload)), "big")
    wrong = (right + off - 1) % 0xFFFF + 1
    frame = spoiled(packet, packet.frame(), seed=wrong.to_bytes(2, "big"))
    answer, filled = fill_in(packet, frame, len(frame), [], True, True, seeded=True)
    same = wrong % 0xFFFF == right % 0xFFFF
    assert answer == (subject.FILLED if same else subject.FILLED_FROM_A_WRONG_SEED)
    assert (filled == packet.frame()) == same


def test_what_cannot_be_filled_in() -> None:
    """A header that is not all private, a header length that is not IPv6's or IPv4's, a protocol without a checksum."""
    sctp = Packet(**ROUTE4, protocol=SCTP)
    assert not fill_in(sctp, sctp.frame(), 14 + 20 + 11, [], False, True)[0]
    assert not fill_in(replace(sctp, protocol=1), sctp.frame(), 46, [], False, True)[0]
    tcp = Packet(**ROUTE4)
    assert not fill_in(tcp, tcp.frame(), 14 + 20 + 19, [], False, True)[0]
    addresses, lengths = scatter([bytes(200)])
    header = HEADER.put(bytes(200))
    assert not fill(header, 200, 14, 36, True, TCP, False, True, False, addresses, lengths, 0, 0)
    assert not fill(header, 200, 14, 64, False, TCP, True, False, False, addresses, lengths, 0, 0)
    assert not fill(header, 200, 14, 64, False, TCP, False, True, False, addresses, lengths, 0, 0)
    assert peek(header, 200) == bytes(200)


def expected_segments(packet: Packet, mss: int) -> list[bytes]:
    """Each segment as a packet of its own, built from scratch."""
    parts = [packet.payload[at : at + mss] for at in range(0, len(packet.payload), mss)] or [b""]
    segments = []
    for number, part in enumerate(parts):
        flags = packet.flags
        if number != len(parts) - 1:
            flags &= ~(FIN | PSH)
        if number != 0:
            flags &= ~CWR
        segment = replace(
            packet,
            payload=part,
            flags=flags & 0xFF,
            identification=(packet.identification + number) & 0xFFFF,
            sequence=(packet.sequence + number * mss) & 0xFFFFFFFF,
        )
        segments.append(segment.frame())
    return segments


def segments_of(
    packet: Packet, mss: int, cuts: Sequence[int], backwards: bool, seeded: bool = False
) -> list[bytes]:
    """What the card would send: private headers, payload from the gather list of the guest's frame."""
    frame = spoiled(packet, packet.frame(), seed=pseudo_sum(packet, 0) if seeded else b"")
    l2, l3, l4 = packet.l2_len, packet.l3_len, packet.l4_len
    headers, payload = l2 + l3 + l4, len(packet.payload)
    addresses, lengths = scatter(cut(frame, cuts))
    assert valid(l2, l3, l4, mss, headers, len(frame))
    header = HEADER.put(frame[:headers])
    fields = fields_of(header, l2, l3, packet.is_ipv6)
    assert fields >= 0
    seed, right = seed_of(header, l2, l3, fields, seeded)
    assert right
    order = list(range(count_of(payload, mss)))
    if backwards:
        order.reverse()
    out = {}
    for number in order:
        sent = number * mss
        part = min(mss, payload - sent)
        segment_at(header, l2, l3, l4, fields, seed, number, sent, part, payload, addresses, lengths, headers)
        to = OUT.put(bytes(part))
        assert gather_copy_to(to, addresses, lengths, len(addresses), headers + sent, part) == part
        out[number] = peek(header, headers) + peek(to, part)
    return [out[number] for number in sorted(out)]


TSO = packets(st.integers(0, 4000).map(lambda size: bytes(i * 7 & 0xFF for i in range(size))), [TCP])
LAST_BYTES = Packet(
    **ROUTE4, payload=bytes(range(30)), identification=0xFFFF, sequence=0xFFFFFFF0, flags=0xFF
)


@given(TSO, st.integers(8, 1460) | st.sampled_from([8, 536, 1460, 9000]), CUTS, st.booleans(), st.booleans())
@example(LAST_BYTES, 8, [], False, True)
@example(LAST_BYTES, 9, [55, 57, 60], True, False)
@example(LAST_BYTES, 30, [], False, True)
def test_segments(packet: Packet, mss: int, cuts: list[int], backwards: bool, seeded: bool) -> None:
    segments = segments_of(packet, mss, cuts, backwards, seeded)
    assert segments == expected_segments(packet, mss)


def test_segments_go_together_again() -> None:
    """By hand: sequence numbers follow each other, the bytes are all there, only the last one says FIN."""
    payload = bytes(i & 0xFF for i in range(10_000))
    packet = Packet(**ROUTE4, payload=payload, sequence=0xFFFFFF00, flags=FIN | PSH | ACK | CWR)
    stream, wanted = b"", 0xFFFFFF00
    segments = segments_of(packet, 1448, [60, 61, 3000, 8001], False)
    for number, frame in enumerate(segments):
        (total,) = struct.unpack_from(">H", frame, 16)
        sequence, _, _, flags = struct.unpack_from(">IIBB", frame, 14 + 20 + 4)
        assert total == len(frame) - 14
        assert sequence == wanted & 0xFFFFFFFF
        assert flags & ACK
        assert bool(flags & CWR) == (number == 0)
        assert bool(flags & FIN) == bool(flags & PSH) == (number == len(segments) - 1)
        stream += frame[54:]
        wanted += len(frame) - 54
    assert stream == payload
    assert len(segments) == 7


HUGE = 1 << 40
L2 = st.sampled_from([14, 14, 15, 18, 127, 13])
L3 = st.sampled_from([20, 36, 40, 60, 64, 508, 22])
L4 = st.sampled_from([20, 40, 60, 22])
MSS = st.sampled_from([0, 0, 8, 500, 65_000, 7])


@given(L2, L3, L4, MSS, st.integers(40, 400), st.integers(0, 2000), st.booleans(), st.booleans())
@example(14, 20, 20, 8, 54, 54, False, True)
@example(14, 20, 20, 8, 54, 54, True, True)
@example(14, 20, 8, 0, 42, 42, True, False)
def test_what_is_valid_stays_in_the_header(
    l2: int, l3: int, l4: int, mss: int, header_len: int, more: int, is_ipv6: bool, tcp: bool
) -> None:
    """Whatever lengths a guest gives, whatever its header holds: nothing outside of it is read or written."""
    if not valid(l2, l3, l4, mss, header_len, header_len + more):
        return
    before = HEADER.put(b"\x5a" * 64 + b"\xa7" * header_len)
    header = before + 64
    addresses, lengths = scatter([bytes(100), bytes(50)])
    if mss:
        fields = fields_of(header, l2, l3, is_ipv6)
        if fields >= 0:
            payload = header_len + more - l2 - l3 - l4
            part = min(mss, payload)
            segment_at(header, l2, l3, l4, fields, 0, 0, 0, part, payload, addresses, lengths, header_len)
    else:
        protocol = TCP if tcp else UDP
        fill(
            header,
            header_len,
            l2,
            l3,
            is_ipv6,
            protocol,
            True,
            True,
            tcp,
            addresses,
            lengths,
            header_len,
            more,
        )
    assert peek(before, 64 + l2) == b"\x5a" * 64 + b"\xa7" * l2


@pytest.mark.parametrize(
    "shape",
    [
        (13, 20, 20, 1460, 60, 3000),  # L2 too short
        (128, 20, 20, 1460, 168, 3000),  # beyond MACLEN
        (14, 16, 20, 1460, 60, 3000),  # L3 too short
        (14, 22, 20, 1460, 60, 3000),  # not in words
        (14, 512, 20, 1460, 600, 3000),  # beyond IPLEN
        (14, 20, 16, 1460, 60, 3000),  # L4 too short
        (14, 20, 22, 1460, 60, 3000),
        (14, 20, 64, 1460, 98, 3000),  # beyond any TCP header
        (14, 20, 20, 1460, 53, 3000),  # headers not all private
        (14, 20, 20, 7, 54, 3000),  # segments too small
        (14, 20, 20, 65_496, 54, 100_000),  # segments beyond what IP can say
        (14, 20, 20, 1460, 54, 53),  # frame shorter than what is private
        (14, 20, 20, 1460, 54, 54 + (1 << 18)),  # beyond PAYLEN
        (14, 20, 0, 0, 33, 100),
        (-1, -20, -20, -1, 54, 3000),
        (HUGE, HUGE, HUGE, HUGE, 54, 3000),
    ],
)
def test_what_is_not_valid(shape: tuple[int, ...]) -> None:
    assert not valid(*shape)


@pytest.mark.parametrize(
    "shape",
    [
        (14, 20, 20, 8, 54, 54),
        (18, 60, 60, 1460, 138, 200_000),
        (127, 40, 32, 9000, 199, 9199),
        (14, 20, 20, 65_495, 54, 54 + (1 << 18) - 1),
        (14, 20, 0, 0, 34, 34),
    ],
)
def test_what_is_valid(shape: tuple[int, ...]) -> None:
    assert valid(*shape)


@pytest.mark.parametrize(
    ("payload", "mss", "count"), [(0, 8, 1), (1, 8, 1), (8, 8, 1), (9, 8, 2), (4000, 1460, 3)]
)
def test_segment_count(payload: int, mss: int, count: int) -> None:
    assert count_of(payload, mss) == count


def test_fields_of_a_header_that_cannot_be() -> None:
    header = HEADER.put(bytes(200))
    assert fields_of(header, 14, 36, True) == -1
    assert fields_of(header, 14, 64, False) == -1
