"""The loop, round by round: where frames go, what is dropped and why, rings that come, go and come back."""

import pytest
from loop_kit import MEMORY, PAGE, PLAIN, RX_BUFFERS, RX_RINGS, LoopBench, frame, mac, tagged

from vfwire.datapath.state import NOWHERE, QUEUES, Drop
from vfwire.datapath.switch import set_vlan
from vfwire.layouts import ixgbe_descriptors as d
from vfwire.layouts import ixgbevf as regs

BROADCAST = b"\xff" * 6
GROUP = bytes.fromhex("01005e000001")
STRANGER = bytes.fromhex("0200000000ee")


def text(number: int) -> bytes:
    return f"payload {number:4d} ".encode() * 4


def test_unicast_goes_to_its_owner_alone_by_the_general_and_the_fast_path() -> None:
    bench = LoopBench(3)
    one, two, three = bench.start()
    for number in range(10):
        one.send(frame(two.mac, one.mac, text(number)))
    assert bench.round() == 10
    assert [got.frame for got in two.receive()] == [frame(two.mac, one.mac, text(n)) for n in range(10)]
    assert three.receive() == [] and one.receive() == []
    assert (one.record.tx_frames, two.record.rx_frames) == (10, 10)
    assert one.record.tx_bytes == two.record.rx_bytes == two.record.copied == 10 * 66
    card = bench.state.cards[0]
    assert (card.loopback, card.link_frames) == (10, 0)
    assert bench.state.tx[0].to == 1


def test_broadcast_reaches_all_but_the_sender_and_both_cards() -> None:
    bench = LoopBench(2, 2)
    one, *others = bench.start()
    sent = frame(BROADCAST, one.mac)
    one.send(sent)
    bench.rounds()
    assert [[got.frame for got in guest.receive()] for guest in others] == [[sent]] * 3
    assert one.receive() == []
    assert all(guest.record.rx_multicast == 1 for guest in others)
    assert bench.state.cards[0].link_frames == bench.state.cards[1].link_in_frames == 1


def test_groups_reach_who_listens() -> None:
    bench = LoopBench(4)
    one, by_hash, all_groups, deaf = bench.start()
    vector = ((GROUP[4] >> 4) | (GROUP[5] << 4)) & 0xFFF
    bench.state.multicast[by_hash.number, vector >> 6] = 1 << (vector & 63)
    all_groups.record.all_multicast = 1
    one.send(frame(GROUP, one.mac))
    bench.rounds()
    assert [len(guest.receive()) for guest in (by_hash, all_groups, deaf)] == [1, 1, 0]


def test_what_nobody_owns_goes_to_the_uplink_and_over_to_the_peer() -> None:
    bench = LoopBench(2, 1)
    one, two, far = bench.start()
    for number in range(8):
        one.send(frame(far.mac, one.mac, text(number)))
    bench.rounds()
    assert [got.frame[14:] for got in far.receive()] == [text(number) for number in range(8)]
    near, other = bench.state.cards[0], bench.state.cards[1]
    assert (near.link_frames, near.link_bytes, near.loopback, other.link_in_frames) == (8, 8 * 66, 0, 8)
    one.send(frame(STRANGER, one.mac))
    bench.rounds()
    assert one.drops() == {"no such destination": 1}
    assert two.receive() == []


def test_a_promiscuous_function_listens_and_keeps_nothing_from_the_link() -> None:
    bench = LoopBench(2, 1)
    one, host, far = bench.start()
    host.record.promiscuous = 1
    bench.changed()
    for number in range(3):
        one.send(frame(far.mac, one.mac, text(number)))
    bench.rounds()
    assert len(host.receive()) == len(far.receive()) == 3
    far.send(frame(one.mac, far.mac))
    bench.rounds()
    assert len(host.receive()) == len(one.receive()) == 1


def test_a_link_that_is_down_drops_and_counts() -> None:
    bench = LoopBench(1, 1)
    one, far = bench.start()
    bench.state.cards[0].link_up = 0
    one.send(frame(far.mac, one.mac))
    bench.rounds()
    assert one.drops() == {"link down": 1} and far.receive() == []
    bench.state.cards[0].link_up, far.record.link_up = 1, 0
    one.send(frame(far.mac, one.mac))
    bench.rounds()
    assert far.drops() == {"link down": 1} and far.receive() == []
    one.record.link_up = 0
    one.send(frame(far.mac, one.mac))
    bench.rounds()
    assert one.drops() == {"link down": 2}


def test_a_card_without_a_link_keeps_to_itself() -> None:
    bench = LoopBench(2, 1, joined=False)
    one, _, far = bench.start()
    assert bench.state.cards[0].peer == NOWHERE
    one.send(frame(far.mac, one.mac))
    bench.rounds()
    assert one.drops() == {"no such destination": 1} and far.receive() == []


def test_a_forged_source_is_dropped_also_behind_frames_that_passed() -> None:
    bench = LoopBench(2)
    one, two = bench.start()
    for source in (one.mac, one.mac, STRANGER, one.mac, two.mac):
        one.send(frame(two.mac, source))
    bench.rounds()
    assert [got.frame[6:12] for got in two.receive()] == [one.mac] * 3
    assert one.drops() == {"spoof check": 2}
    one.record.spoof_check = 0
    bench.changed()
    one.send(frame(two.mac, STRANGER))
    bench.rounds()
    assert len(two.receive()) == 1


# --- VLANs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("inserted", [True, False])
def test_a_guests_own_tag(strip: bool, inserted: bool) -> None:
    """In the frame or by the context, taken out or left in: the same tag arrives."""
    bench = LoopBench(3)
    one, two, outside = bench.start(strip=strip)
    for guest in (one, two):
        set_vlan(bench.state, 0, 100, guest.number, True)
        guest.record.vlans = 1
    tag = 3 << 13 | 100
    if inserted:
        one.context(vlan=tag)
        one.send(frame(BROADCAST, one.mac), extra=d.TXD_DCMD_VLE)
    else:
        one.send(tagged(BROADCAST, one.mac, tag))
    bench.rounds()
    (got,) = two.receive()
    assert got.status & d.RXD_STAT_VP
    if strip:
        assert (got.vlan, got.frame) == (tag, frame(BROADCAST, one.mac))
    else:
        assert (got.vlan, got.frame) == (0, tagged(BROADCAST, one.mac, tag))
    assert outside.receive() == []


def test_strip_can_be_changed_while_the_ring_runs() -> None:
    bench = LoopBench(2)
    one, two = bench.start(strip=True)
    set_vlan(bench.state, 0, 7, 1, True)
    for strip in (True, False, True):
        two.write(regs.VFRXDCTL, regs.RXDCTL_ENABLE | (regs.RXDCTL_VME if strip else 0))
        one.send(tagged(two.mac, one.mac, 7))
        bench.rounds()
        (got,) = two.receive()
        assert got.frame == (frame(two.mac, one.mac) if strip else tagged(two.mac, one.mac, 7))


def test_a_port_vlan_is_not_seen_by_its_guests_and_keeps_others_out() -> None:
    bench = LoopBench(3)
    one, two, outside = bench.start(strip=False)
    for guest in (one, two):
        set_vlan(bench.state, 0, 0, guest.number, False)
        set_vlan(bench.state, 0, 50, guest.number, True)
        guest.record.port_vlan = 5 << 13 | 50
    one.send(frame(two.mac, one.mac))
    one.send(frame(BROADCAST, one.mac))
    one.send(tagged(two.mac, one.mac, 9))
    outside.send(frame(two.mac, outside.mac))
    bench.rounds()
    assert [got.frame for got in two.receive()] == [frame(two.mac, one.mac), frame(BROADCAST, one.mac)]
    assert outside.receive() == []
    assert one.drops() == {"VLAN not allowed": 1}
    assert outside.drops() == {"no such destination": 1}


def test_a_vlan_that_the_sender_is_not_in_is_dropped() -> None:
    bench = LoopBench(2)
    one, two = bench.start()
    set_vlan(bench.state, 0, 100, 1, True)
    set_vlan(bench.state, 0, 200, 0, True)
    one.record.vlans = 1
    one.send(tagged(two.mac, one.mac, 100))
    bench.rounds()
    assert one.drops() == {"VLAN not allowed": 1} and two.receive() == []


@pytest.mark.parametrize("how", ["cut off", "double", "inserted"])
def test_no_tag_of_nothing_opens_a_way_for_other_tags(how: str) -> None:
    """Each leaves a frame without a tag whose type is 802.1Q; none may teach the fast path to pass tags unseen."""
    bench = LoopBench(2)
    one, two = bench.start(strip=False)
    if how == "cut off":
        one.send(frame(two.mac, one.mac, b"\0\x64", 0x8100))
    elif how == "double":
        one.send(frame(two.mac, one.mac, bytes.fromhex("0000 8100 0064 88b5") + bytes(46), 0x8100))
    else:
        one.context(vlan=0)
        one.send(tagged(two.mac, one.mac, 100), extra=d.TXD_DCMD_VLE)
    one.send(tagged(two.mac, one.mac, 100))
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    assert [got.frame for got in two.receive()] == [frame(two.mac, one.mac)]
    assert one.drops() == {"VLAN not allowed": 1, "no such destination": 1}


# --- Buffers and rings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [(), (14,), (1, 13, 200), (300,) * 4])
def test_frames_of_several_buffers_on_both_sides(pieces: tuple[int, ...]) -> None:
    bench = LoopBench(2)
    one, two = bench.start(kib=1)
    two.record.max_frame = 9000
    sent = frame(two.mac, one.mac, bytes(range(256)) * 17)
    one.send(sent, pieces=pieces)
    bench.rounds()
    (got,) = two.receive()
    assert got.frame == sent
    assert got.pieces == (1024, 1024, 1024, 1024, len(sent) - 4096)
    assert one.record.tx_frames == 1


def test_drops_by_cause() -> None:
    bench = LoopBench(2)
    one, two = bench.start(size=16)
    one.send(bytes(13))
    one.send(frame(two.mac, one.mac, bytes(1501)))
    one.descriptor(0xDEAD_0000_0000, 60 | PLAIN)
    one.ring()
    bench.rounds()
    assert one.drops() == {"shorter than an Ethernet header": 1, "bad DMA address": 1}
    assert two.drops() == {"longer than the receiver takes": 1}
    for _ in range(2):
        for number in range(10):
            one.send(frame(two.mac, one.mac, text(number)))
        bench.rounds()
    assert two.drops()["no receive descriptor"] == 5
    assert len(two.receive()) == 15
    assert one.record.tx_frames == 21 and one.record.tx_bytes == 20 * 66 + 1515
    two.disable()
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    assert two.drops()["receiver not enabled"] == 1


def test_a_chain_without_an_end_stops_its_sender_only() -> None:
    bench = LoopBench(3)
    one, two, three = bench.start(size=128)
    buffer = one.buffer(frame(two.mac, one.mac))
    for _ in range(100):
        one.descriptor(buffer, 60 | PLAIN & ~d.TXD_DCMD_EOP)
    one.ring()
    three.send(frame(two.mac, three.mac))
    bench.rounds()
    assert one.record.fault == Drop.CHAIN_TOO_LONG and one.record.dma == 0
    assert len(two.receive()) == 1 and two.record.fault == three.record.fault == -1


def test_a_frame_whose_end_is_not_there_yet_waits() -> None:
    bench = LoopBench(2)
    one, two = bench.start()
    sent = frame(two.mac, one.mac, text(1))
    one.descriptor(one.buffer(sent[:20]), 20 | PLAIN & ~d.TXD_DCMD_EOP)
    one.ring()
    assert bench.round() == 0 and two.receive() == []
    one.send(sent[20:])
    assert bench.round() == 2
    assert [got.frame for got in two.receive()] == [sent]


def test_completions_are_written_where_they_were_asked_for() -> None:
    bench = LoopBench(2)
    one, two = bench.start()
    one.send(frame(two.mac, one.mac), extra=d.TXD_DCMD_RS)
    one.send(frame(two.mac, one.mac))
    one.send(frame(two.mac, one.mac), pieces=(20,), extra=d.TXD_DCMD_RS)
    bench.rounds()
    words = one.memory[: 4 * 16].view("<u8")[1::2]
    assert [int(word) == d.TXD_Q1_DD for word in words] == [True, False, True, True]
    assert one.read(regs.VFTDH) == 4


@pytest.mark.parametrize("sent_before", [0, 5, 64])
def test_rings_set_up_anew_between_two_rounds_are_taken_over(sent_before: int) -> None:
    """The loop never saw the rings disabled; the heads may even be where it left them."""
    bench = LoopBench(2)
    one, two = bench.start()
    for number in range(sent_before):
        one.send(frame(two.mac, one.mac, text(number)))
        bench.round()
        two.receive()
    for guest in (one, two):
        guest.disable()
        guest.start(shift=0x800)
    one.send(frame(two.mac, one.mac, text(7)))
    assert bench.round(look=False) == 1
    assert [got.frame[14:] for got in two.receive()] == [text(7)]


def test_a_smaller_receive_buffer_holds_from_the_next_frame_on() -> None:
    bench = LoopBench(2)
    one, two = bench.start(kib=2)
    sent = frame(two.mac, one.mac, bytes(range(200)) * 7)
    one.send(sent)
    bench.rounds()
    assert two.receive()[0].pieces == (1414,)
    two.write(regs.VFSRRCTL, 1 | regs.SRRCTL_DESCTYPE_ADV_ONEBUF)
    one.send(sent)
    bench.rounds()
    (got,) = two.receive()
    assert (got.pieces, got.frame) == ((1024, 390), sent)


@pytest.mark.parametrize("what", ["dma", "rss"])
def test_the_fast_path_ends_when_the_receiver_changes(what: str) -> None:
    bench = LoopBench(2)
    one, two = bench.start(queues=4)
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    assert bench.state.tx[0].to == 1 and len(two.receive()) == 1
    if what == "dma":
        two.record.dma = 0
        one.send(frame(two.mac, one.mac))
        bench.rounds()
        assert two.receive() == [] and two.drops() == {"receiver not enabled": 1}
    else:
        two.record.rss = 0xFF
        before = int(bench.state.rx[QUEUES].frames)
        one.send(frame(two.mac, one.mac, text(0)))
        bench.rounds()
        assert len(two.receive()) == 1 and bench.state.rx[QUEUES].frames == before + 1


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (regs.VFTDLEN, 0),
        (regs.VFTDLEN, 1 << 20 | 128),
        (regs.VFTDLEN, 0xFFFFFFFF),
        (regs.VFTDBAL, 0x7FFF_FF80),
        (regs.VFTDBAL + 4, 0xFFFFFFFF),
        (regs.VFTDH, 64),
        (regs.VFTDT, 64),
        (regs.VFTDT, 0xFFFFFFFF),
        (regs.VFRDLEN, 0x40),
        (regs.VFRDH, 0xFFFFFFFF),
        (regs.VFRDT, 1 << 16),
        (regs.VFRDBAH, 0x80000000),
    ],
)
def test_a_ring_that_makes_no_sense_stops_its_function(offset: int, value: int) -> None:
    bench = LoopBench(3)
    one, two, three = bench.start()
    one.write(offset, value)
    one.write(regs.VFTDT, 1 if offset != regs.VFTDT else value)
    for _ in range(2):
        three.send(frame(one.mac, three.mac))
        three.send(frame(two.mac, three.mac))
        bench.rounds()
    assert one.record.fault in (Drop.BAD_DESCRIPTOR, Drop.BAD_DMA) and one.record.dma == 0
    assert len(two.receive()) == 2 and two.record.fault == three.record.fault == -1


def test_a_receive_buffer_in_its_own_ring_or_nowhere_stops_the_receiver_only() -> None:
    for address in (RX_RINGS, -PAGE, 1 << 40, MEMORY - 10):
        bench = LoopBench(2)
        one, two = bench.start()
        for place in range(64):
            two.put(RX_RINGS + place * 16, (two.iova + address).to_bytes(8, "little", signed=True) + bytes(8))
        for _ in range(4):
            one.send(frame(two.mac, one.mac))
            bench.rounds()
        assert two.record.fault == Drop.BAD_DMA and one.record.fault == -1


def test_memory_that_may_only_be_read_is_not_written() -> None:
    bench = LoopBench(2)
    one, two = bench.start()
    two.map(1, two.iova, two.iova + RX_BUFFERS, writable=1)
    two.map(0, two.iova + RX_BUFFERS, two.iova + MEMORY, writable=0)
    bench.state.rx[QUEUES].map_end = 0
    one.send(frame(two.mac, one.mac))
    bench.rounds()
    assert two.record.fault == Drop.BAD_DMA
    assert not two.memory[RX_BUFFERS:].any()
    assert mac(1) == two.mac
