"""A layer's loop with honest netfronts: where frames go, what is copied, who is woken, and what waits."""

import ctypes
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xen_rig import BROADCAST, MACS, Front, Rig, RxResponse, TxRequest, TxResponse

from vfwire.datapath import netback
from vfwire.datapath.netback_requests import CREDIT_NS
from vfwire.datapath.netback_state import BACKLOG, BURST
from vfwire.memory.compiled import jit_disabled

NOBODY = bytes.fromhex("00163e00ff01")


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(3)
    made.learn_all()
    yield made
    made.close()


def test_unicast_goes_to_one(rig: Rig) -> None:
    one, two, three = rig.fronts
    frames = [one.frame(two.mac, bytes([i]), size=60 + i) for i in range(40)]
    assert one.transmit(frames) == 40
    rig.settle()
    assert two.receive() == frames
    assert three.receive() == [] and one.receive() == []
    assert rig.drops() == {}


@pytest.mark.parametrize("to", [BROADCAST, bytes.fromhex("01005e0000fb"), NOBODY])
def test_groups_and_the_unknown_go_to_all_others(rig: Rig, to: bytes) -> None:
    one, two, three = rig.fronts
    frame = two.frame(to, b"hello")
    two.transmit([frame] * BURST)
    rig.settle()
    assert one.receive() == three.receive() == [frame] * BURST
    assert two.receive() == []


def test_an_address_moves_with_its_owner(rig: Rig) -> None:
    one, two, three = rig.fronts
    three.transmit([one.mac + two.mac + b"\x88\xb5" + bytes(46)])  # two's address, now heard from three
    rig.settle()
    one.transmit([one.frame(two.mac)])
    rig.settle()
    assert len(three.receive()) == 1 and two.receive() == []


def test_what_a_bridge_does_not_forward(rig: Rig) -> None:
    one = rig.fronts[0]
    group_source = MACS[1] + b"\x01" + one.mac[1:] + bytes(48)
    one.transmit(
        [
            one.frame(one.mac),
            one.frame(bytes.fromhex("0180c2000000")),
            group_source,
            MACS[1] + bytes(6) + bytes(48),
        ]
    )
    rig.settle()
    assert rig.drops(port=1) == {
        "destination is where it came from": 1,
        "reserved destination address": 1,
        "bad source address": 2,
    }
    assert all(front.receive() == [] for front in rig.fronts)
    one.transmit([])
    assert one.driver.stats()["tx_errors"] == 0  # all were taken: a wire does not report either


def test_alone_on_a_bridge() -> None:
    rig = Rig(1)
    rig.fronts[0].transmit([rig.fronts[0].frame(BROADCAST)])
    rig.settle()
    assert rig.drops() == {"no other port": 1}
    rig.close()


def test_hundreds_of_thousands_of_bytes_over_many_wraps(rig: Rig) -> None:
    one, two, _ = rig.fronts
    sent = [one.frame(two.mac, i.to_bytes(4, "big"), size=60 + i * 7 % 1455) for i in range(1500)]
    got: list[bytes] = []
    at = 0
    while len(got) < len(sent):
        at += one.transmit(sent[at : at + 90])
        rig.round()
        got += two.receive(100)
    assert got == sent
    assert rig.drops() == {} and one.tx.req_prod > 5 * 256


def test_rings_wrap_at_32_bits() -> None:
    rig = Rig(0)
    start = (1 << 32) - 5
    for number in range(2):
        front = Front(number)
        for queue, ring in ((front.driver.tx[0], front.tx), (front.driver.rx[0], front.rx)):
            queue.head = queue.tail = start
            ring.req_prod = ring.rsp_prod = start
        rig.fronts.append(rig.attach(front))
        vif = rig.host.vifs[number]
        vif.tx_cons = vif.rx_cons = vif.rx_known = vif.rx_pushed = start
    one, two = rig.fronts
    frames = [one.frame(two.mac, bytes([i])) for i in range(20)]
    one.transmit(frames)
    rig.settle()
    assert two.receive() == frames
    assert one.tx.rsp_prod == 15 and two.rx.rsp_prod == 15
    rig.close()


def test_copies_are_counted(rig: Rig) -> None:
    one, two, _ = rig.fronts
    before = int(rig.layer.copied_bytes)
    one.transmit([one.frame(two.mac, size=1514)] * 10)
    rig.settle()
    assert rig.layer.copied_bytes - before == 10 * (1514 + 16)  # each frame once, and its header to look at
    assert sum(int(domain.bytes) for domain in rig.host.domains[:2]) > 0


def test_responses_go_into_their_requests_slots_at_spread_offsets(rig: Rig) -> None:
    one, two, _ = rig.fronts
    first = two.rx.rsp_prod
    one.transmit([one.frame(two.mac)] * 32)
    rig.settle()
    responses = [two.rx.entry(first + i, RxResponse) for i in range(32)]
    assert [response.id for response in responses] == [(first + i) & 255 for i in range(32)]
    assert len({response.offset for response in responses}) == 16
    assert all(response.offset % 64 == 0 and response.status == 60 for response in responses)


def test_headroom_is_left_free() -> None:
    rig = Rig(2, headroom=256)
    rig.learn_all()
    one, two = rig.fronts
    first = two.rx.rsp_prod
    one.transmit([one.frame(two.mac, size=1514)] * 16)
    rig.settle()
    assert min(two.rx.entry(first + i, RxResponse).offset for i in range(16)) == 256
    assert len(two.receive()) == 16
    rig.close()


def test_frames_wait_for_a_receiver_without_buffers(rig: Rig) -> None:
    """In order, without loss, up to a bound; then the newest are dropped and counted, and no buffer is lost."""
    one, two, _ = rig.fronts
    own = rig.own_buffers()
    ring = 256 - (two.rx.req_prod - two.rx.rsp_prod) % 256
    sent = 0
    while sent < 256 + BACKLOG + 100:
        sent += one.transmit([one.frame(two.mac, (sent + i).to_bytes(4, "big")) for i in range(50)])
        rig.settle()
    room = 256 - ring % 256 + BACKLOG
    assert rig.drops(port=2) == {"no receive request": sent - room}
    assert rig.own_buffers() == own
    got: list[bytes] = []
    while batch := two.receive(64):
        got += batch
        rig.settle()
    assert [int.from_bytes(data[14:18], "big") for data in got] == list(range(room))
    assert rig.own.words[0].free == own


def test_events_only_for_those_who_ask(rig: Rig) -> None:
    one, two, _ = rig.fronts
    before = [int(vif.notified) for vif in rig.host.vifs[:2]]
    one.transmit([one.frame(two.mac)] * 5)
    rig.settle()
    assert [int(vif.notified) for vif in rig.host.vifs[:2]] == before
    two.receive()
    two.rx.rsp_event = two.rx.rsp_prod + 1
    one.transmit([])
    one.tx.rsp_event = one.tx.rsp_prod + 1
    one.transmit([one.frame(two.mac)] * 5)
    rig.settle()
    assert [int(vif.notified) - was for vif, was in zip(rig.host.vifs, before, strict=False)] == [1, 1]


def test_a_sleeping_layer_is_woken_once(rig: Rig) -> None:
    one, two, _ = rig.fronts
    netback.arm_events(rig.host.layer)
    assert rig.round() == netback.IDLE
    before = one.driver.stats()["notifications_sent"]
    for _ in range(3):
        one.transmit([one.frame(two.mac)] * 10)
    assert one.driver.stats()["notifications_sent"] == before + 1


def test_a_layer_with_a_backlog_is_woken_by_new_buffers(rig: Rig) -> None:
    one, two, _ = rig.fronts
    for _ in range(8):
        one.transmit([one.frame(two.mac)] * 50)
        rig.settle()
    netback.arm_events(rig.host.layer)
    before = two.driver.stats()["notifications_sent"]
    got = len(two.receive(256))
    assert two.driver.stats()["notifications_sent"] == before + 1
    rig.settle()
    while batch := two.receive():
        got += len(batch)
        rig.settle()
    assert got == 400


def test_the_cap_holds_and_drops_nothing(rig: Rig) -> None:
    """40 Mbit/s of frames of 1,518 bytes, which take 1,538 on the wire, are 3,251 frames a second."""
    one, two, _ = rig.fronts
    rig.layer.rate_bps = 40_000_000
    rig.layer.credit, rig.layer.credit_ns = 0, time.monotonic_ns()
    start = time.monotonic_ns()
    sent = received = 0
    while received < 500:
        sent += one.transmit([one.frame(two.mac, size=1514)] * 32)
        rig.round()
        received += len(two.receive())
    seconds = (time.monotonic_ns() - start) / 1e9
    assert received / seconds <= 1.05 * (
        3_251 + 2 * BURST / seconds
    )  # a burst and the depth of the bucket may be ahead
    assert rig.layer.credit_waits > 0 and rig.drops() == {}


def test_the_cap_pays_back_what_a_burst_took_ahead(rig: Rig) -> None:
    one, two, _ = rig.fronts
    rig.layer.rate_bps = 1_000_000
    rig.layer.credit, rig.layer.credit_ns = 1, time.monotonic_ns()
    one.transmit([one.frame(two.mac, size=1514)] * 100)
    rig.round()
    assert len(two.receive()) == BURST
    assert rig.layer.credit <= -(BURST * 1538 * 8 * 10**9) + 10**6 * CREDIT_NS
    assert rig.round() == netback.AGAIN  # work waits: the layer does not sleep
    assert two.receive() == []


def test_a_vif_that_goes_takes_its_backlog_along(rig: Rig) -> None:
    one, two, three = rig.fronts
    own = rig.own_buffers()
    for _ in range(10):
        one.transmit([one.frame(two.mac)] * 50)
        rig.settle()
    assert rig.own.words[0].free < own
    rig.detach(1)
    assert rig.own.words[0].free == own
    assert rig.drops(port=2)["receiver went away"] > 0
    assert two.grants[8] & 0x18 == 0  # no longer mapped
    one.transmit([one.frame(two.mac)])
    rig.settle()
    assert len(three.receive()) == 1  # unknown again, so it goes to all


def test_an_uplink_through_another_layer() -> None:
    """The host's port of one layer is a netfront of another: two hosts, a wire between them."""
    far = Rig(2)
    near = Rig(2, uplink=far.fronts[0])
    there, (one, two) = far.fronts[1], near.fronts
    own = far.fronts[0].free

    def settle() -> None:
        for _ in range(6):
            near.round(2)
            far.round(2)

    there.transmit([there.frame(BROADCAST, b"who is there")])
    settle()
    assert len(one.receive()) == len(two.receive()) == 1
    one.transmit([one.frame(there.mac, b"me")])
    settle()
    assert there.receive() == [one.frame(there.mac, b"me")]
    assert two.receive() == []
    frames = [there.frame(one.mac, i.to_bytes(4, "big"), size=1514) for i in range(100)]
    there.transmit(frames)
    settle()
    assert one.receive() == frames
    back = [one.frame(there.mac, i.to_bytes(4, "big")) for i in range(200)]
    one.transmit(back)
    settle()
    settle()
    assert there.receive() == back
    two.transmit([two.frame(BROADCAST)])
    settle()
    assert len(one.receive()) == len(there.receive()) == 1
    assert near.layer.uplink_tx_frames == 202 and near.layer.uplink_rx_frames == 101
    assert near.drops() == far.drops() == {}
    settle()
    far.fronts[0].transmit([])
    assert far.fronts[0].free == own
    near.close()
    far.close()


def test_between_one_vif_and_the_uplink_nothing_is_copied_twice() -> None:
    """Also where the addresses are not known: a flood to the only other port is no flood."""
    far = Rig(2)
    near = Rig(1, uplink=far.fronts[0])
    one, there = near.fronts[0], far.fronts[1]
    there.transmit([there.frame(NOBODY, size=1000)] * 40)
    far.settle()
    near.settle()
    assert len(one.receive()) == 40 and near.layer.copied_bytes == 40_000
    one.transmit([one.frame(MACS[20], size=1000)])
    near.settle()
    before = int(near.layer.copied_bytes)
    one.transmit([one.frame(MACS[20], size=1000)] * 40)
    near.settle()
    assert near.layer.copied_bytes - before == 40_000
    far.settle()
    assert len(there.receive()) == 41
    near.close()
    far.close()


def test_an_uplink_that_takes_nothing_holds_frames_back_then_drops_them() -> None:
    """A full ring is given time; frames are lost only to an uplink that stands still, and no buffer is."""
    far = Rig(2)
    near = Rig(2, uplink=far.fronts[0])
    one, two = near.fronts
    own, sent, received = far.fronts[0].free, 0, 0
    deadline = time.monotonic() + 10
    while not near.drops() and time.monotonic() < deadline:
        sent += one.transmit([one.frame(MACS[31])] * 50)
        near.round()
        received += len(two.receive())
    near.round()
    received += len(two.receive())
    lost = near.drops(port=0)["uplink ring full"]
    assert near.drops() == {"uplink ring full": lost}
    assert near.layer.uplink_tx_frames == 256
    staged = int(near.layer.staged_end - near.layer.staged_start)
    assert 0 < lost <= BURST and staged <= BURST
    assert far.fronts[0].free + 256 + staged == own
    assert received == near.host.vifs[0].tx_frames <= sent
    near.close()
    far.close()


FRAME = st.tuples(st.integers(0, 2), st.sampled_from([*MACS[:4], BROADCAST]), st.integers(14, 1514))


@settings(max_examples=5 if jit_disabled() else 60)
@given(st.lists(st.lists(FRAME, max_size=30), max_size=6))
def test_nothing_is_lost_or_made_up(bursts: list[list[tuple[int, bytes, int]]]) -> None:
    """Against a bridge written down in three lines."""
    rig = Rig(3)
    known: dict[bytes, int] = {}
    expected: list[list[bytes]] = [[], [], []]
    got: list[list[bytes]] = [[], [], []]
    for burst in bursts:
        for number, to, size in burst:
            front = rig.fronts[number]
            frame = front.frame(to, size.to_bytes(2, "big"), size)[:size]
            front.transmit([frame])
            rig.settle()
            known[front.mac] = number
            for other in {known[to]} - {number} if to in known else {0, 1, 2} - {number}:
                expected[other].append(frame)
        for number, front in enumerate(rig.fronts):
            got[number] += front.receive()
    assert got == expected
    for front in rig.fronts:
        front.transmit([])
        assert (front.tx.entry(0, TxResponse).status, front.driver.stats()["tx_errors"]) == (0, 0)
        outstanding = sum(1 for value in front.grants[16:] if value)
        assert front.free == 1024 - outstanding
    assert ctypes.sizeof(TxRequest) == 12
    rig.close()
