"""The link between the cards of two processes: frames cross it in order, and nothing in the ring is believed."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_kit import LoopBench, LoopGuest, frame, mac, tagged

from vfwire.datapath.link import DATA, LINK_BYTES, LINK_MEMORY, LONGEST, READ, SKIP, WRITE
from vfwire.datapath.switch import set_mac, set_vlan

FAR = bytes.fromhex("020000000099")


class TwoProcesses:
    """Two cards with a state each, joined by two rings; the far one's only function has the address FAR."""

    def __init__(self) -> None:
        self.near, self.far = LoopBench(2), LoopBench(1)
        self.rings = [np.zeros(LINK_MEMORY, np.uint8) for _ in range(2)]
        out, back = (int(ring.ctypes.data) for ring in self.rings)
        card, other = self.near.state.cards[0], self.far.state.cards[0]
        card.ring_out = other.ring_in = out
        card.ring_in = other.ring_out = back
        self.one, self.two = self.near.start()
        (self.there,) = self.far.start(size=128)
        move(self.there, FAR)

    def word(self, ring: int, at: int) -> int:
        return int(self.rings[ring][at : at + 8].view("<i8")[0])

    def poke(self, ring: int, at: int, data: bytes) -> None:
        self.rings[ring][at : at + len(data)] = np.frombuffer(data, np.uint8)


def move(guest: LoopGuest, address: bytes) -> None:
    state = guest.bench.state
    set_mac(state, 0, int.from_bytes(guest.mac, "little"), guest.number, False)
    set_mac(state, 0, int.from_bytes(address, "little"), guest.number, True)
    guest.mac = address


@pytest.fixture
def joined() -> TwoProcesses:
    return TwoProcesses()


def test_frames_cross_both_ways_and_wrap_in_order(joined: TwoProcesses) -> None:
    for number in range(1000):
        payload = struct.pack("<I", number) * (250 + number % 115)
        joined.one.send(frame(FAR, joined.one.mac, payload))
        assert joined.near.round() == 1 and joined.far.round() == 1
        assert [got.frame[14:] for got in joined.there.receive()] == [payload]
    assert joined.word(0, WRITE) == joined.word(0, READ) > LINK_BYTES
    joined.there.send(frame(joined.two.mac, FAR))
    joined.far.round()
    joined.near.round()
    assert len(joined.two.receive()) == 1
    assert joined.near.state.cards[0].link_frames == joined.far.state.cards[0].link_in_frames == 1000


def test_tags_cross_and_a_group_is_here_and_there(joined: TwoProcesses) -> None:
    for bench in (joined.near, joined.far):
        set_vlan(bench.state, 0, 100, 0, True)
    joined.one.send(tagged(b"\xff" * 6, joined.one.mac, 3 << 13 | 100))
    joined.one.send(frame(b"\xff" * 6, joined.one.mac))
    joined.near.rounds()
    joined.far.rounds()
    got = joined.there.receive()
    assert [(one.vlan, one.frame[12:14]) for one in got] == [(3 << 13 | 100, b"\x88\xb5"), (0, b"\x88\xb5")]
    assert [one.vlan for one in joined.two.receive()] == [0]


def test_a_promiscuous_neighbour_does_not_take_the_links_frames(joined: TwoProcesses) -> None:
    joined.two.record.promiscuous = 1
    joined.near.changed()
    for _ in range(4):
        joined.one.send(frame(FAR, joined.one.mac))
    joined.near.rounds()
    joined.far.rounds()
    assert len(joined.two.receive()) == len(joined.there.receive()) == 4


def test_a_link_that_nobody_reads_fills_and_counts(joined: TwoProcesses) -> None:
    data = frame(FAR, joined.one.mac, bytes(1486))
    fits = LINK_BYTES // 1520
    for _ in range(fits + 10):
        joined.one.send(data)
        joined.near.rounds()
    assert joined.one.drops() == {"link to the other card's process full": 10}
    assert joined.word(0, WRITE) <= LINK_BYTES
    received = 0
    while joined.far.round():
        received += len(joined.there.receive())
    assert received == fits


def test_a_link_beyond_its_half_tells_its_loop(joined: TwoProcesses) -> None:
    """Whose reader may be waiting for the very core that the loop is on."""
    control, told = joined.near.state.control[0], []
    for _ in range(LINK_BYTES // 1024):
        joined.one.send(frame(FAR, joined.one.mac, bytes(1000)))
        joined.near.round()
        told.append(int(control.crowded))
        control.crowded = 0
    used = [(number * 1024) > LINK_BYTES // 2 for number in range(len(told))]
    assert told == used and any(told) and not all(told)
    joined.far.rounds()
    joined.one.send(frame(FAR, joined.one.mac))
    joined.near.round()
    assert control.crowded == 0


def test_a_tag_in_the_frame_itself_opens_no_vlan(joined: TwoProcesses) -> None:
    data = tagged(FAR, mac(0), 100)
    record = struct.pack("<II", len(data), 0) + data
    joined.poke(0, DATA, record)
    joined.poke(0, WRITE, struct.pack("<q", -(-len(record) // 16) * 16))
    joined.far.rounds()
    assert joined.there.receive() == [] and joined.far.state.cards[0].unknown == 1


BAD_RECORDS = [
    struct.pack("<I", length) for length in (0, 1, 13, LONGEST + 1, 1 << 20, 1 << 31, SKIP - 1)
] + [struct.pack("<I", SKIP)]


@pytest.mark.parametrize("record", BAD_RECORDS)
def test_a_record_that_makes_no_sense_takes_the_link_down(joined: TwoProcesses, record: bytes) -> None:
    joined.poke(0, DATA, record)
    joined.poke(0, WRITE, struct.pack("<q", 64))
    joined.far.round()
    card = joined.far.state.cards[0]
    assert (card.ring_in, card.link_up) == (0, 0)
    assert joined.there.receive() == []


@pytest.mark.parametrize("write", [1, -16, LINK_BYTES + 16, 1 << 62, -(1 << 63)])
@pytest.mark.parametrize("read", [0, 8, 32, -(1 << 63), (1 << 63) - 1])
def test_positions_that_make_no_sense_harm_nobody(joined: TwoProcesses, read: int, write: int) -> None:
    for ring in range(2):
        joined.poke(ring, READ, struct.pack("<q", read))
        joined.poke(ring, WRITE, struct.pack("<q", write))
    joined.one.send(frame(FAR, joined.one.mac))
    joined.one.send(frame(joined.two.mac, joined.one.mac))
    joined.near.round()
    joined.near.round()
    assert len(joined.two.receive()) == 1


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 70), st.binary(min_size=1, max_size=16)), max_size=12), st.data())
def test_any_ring_at_all(writes: list[tuple[int, bytes]], data: st.DataObject) -> None:
    joined = TwoProcesses()
    positions = st.one_of(st.integers(0, 4096), st.integers(-(1 << 63), (1 << 63) - 1))
    joined.poke(0, READ, struct.pack("<q", data.draw(positions)))
    joined.poke(0, WRITE, struct.pack("<q", data.draw(positions)))
    for place, content in writes:
        joined.poke(0, DATA + 16 * place, content)
    for _ in range(3):
        joined.far.round()
        joined.one.send(frame(FAR, joined.one.mac))
        joined.near.round()
    assert joined.there.record.fault == -1
