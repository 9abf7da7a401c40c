"""A layer's loop with netfronts that break the rules: errors are answered or the vif is stopped; the others go on."""

import ctypes
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xen_rig import BROADCAST, Front, Rig, RxResponse, TxRequest, TxResponse

from vfwire.datapath import netback
from vfwire.datapath.netback_state import (
    RUNNING,
    STOP_EXTRA_INFO,
    STOP_RX_INDEX,
    STOP_TX_INDEX,
    STOPPED,
)
from vfwire.drivers.netfront import FIRST_RX_REF
from vfwire.memory.compiled import jit_disabled

PERMIT, READONLY = 1, 4


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(3)
    made.learn_all()
    yield made
    made.close()


def next_request(front: Front, frame: bytes) -> Any:
    """Send a frame; returns its request in the ring, to be spoilt before the layer sees it."""
    index = front.tx.req_prod
    assert front.transmit([frame]) == 1
    return front.tx.entry(index, TxRequest)


def statuses(front: Front, since: int) -> list[int]:
    count = (front.tx.rsp_prod - since) & 0xFFFFFFFF
    return [front.tx.entry(since + i, TxResponse).status for i in range(count)]


def works(rig: Rig, source: Front, to: Front) -> bool:
    frame = source.frame(to.mac, random.randbytes(8))
    source.transmit([frame])
    rig.round(4)
    return frame in to.receive()


def spoil_revoke(front: Front, request: Any) -> None:
    front.grants[request.gref] = 0


def spoil_foreign(front: Front, request: Any) -> None:
    front.grants[request.gref] |= 9 << 16


def spoil_frame(front: Front, request: Any) -> None:
    front.grants[request.gref] = PERMIT | (front.pool.memory.size // 4096) << 32


def spoil_reference(front: Front, request: Any) -> None:
    request.gref = 0xFFFFFFFF


def spoil_reference_by_one(front: Front, request: Any) -> None:
    request.gref = len(front.grants)


@pytest.mark.parametrize(
    "spoil", [spoil_revoke, spoil_foreign, spoil_frame, spoil_reference, spoil_reference_by_one]
)
def test_a_bad_grant_is_an_error_response(rig: Rig, spoil: Callable[[Front, Any], None]) -> None:
    one, two, _ = rig.fronts
    since = one.tx.rsp_prod
    one.transmit([one.frame(two.mac, b"before")])
    spoil(one, next_request(one, one.frame(two.mac, b"bad")))
    one.transmit([one.frame(two.mac, b"after")])
    rig.settle()
    assert statuses(one, since) == [0, -1, 0]
    assert [data[14:20].rstrip(b"\0") for data in two.receive()] == [b"before", b"after"]
    assert rig.drops() == {"bad grant": 1}
    assert rig.host.domains[0].refused == 1


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 0), (0, 13), (0, 1519), (0, 65535), (4037, 60), (65535, 14), (4096, 14), (65535, 65535)],
)
def test_a_bad_size_is_an_error_response(rig: Rig, offset: int, size: int) -> None:
    one, two, _ = rig.fronts
    since = one.tx.rsp_prod
    request = next_request(one, one.frame(two.mac))
    request.offset, request.size = offset, size
    rig.settle()
    assert statuses(one, since) == [-1] and two.receive() == []
    assert rig.drops() == {"bad size": 1}
    assert works(rig, one, two)


def test_frames_in_several_requests_are_refused_whole(rig: Rig) -> None:
    one, two, _ = rig.fronts
    since = one.tx.rsp_prod
    for flags in (4, 4, 0):
        next_request(one, one.frame(two.mac, b"part")).flags = flags
    one.transmit([one.frame(two.mac, b"whole")])
    rig.settle()
    assert statuses(one, since) == [-1, -1, -1, 0]
    assert [data[14:19] for data in two.receive()] == [b"whole"]
    assert rig.drops() == {"in several buffers": 1}


def test_an_extra_info_entry_stops_the_vif(rig: Rig) -> None:
    one, two, three = rig.fronts
    next_request(one, one.frame(two.mac)).flags = 8
    assert rig.round() == netback.VIF_STOPPED
    assert (rig.host.vifs[0].state, rig.host.vifs[0].reason) == (STOPPED, STOP_EXTRA_INFO)
    rig.layer.stopped = 0
    assert works(rig, two, three) and works(rig, three, two)


@pytest.mark.parametrize("ahead", [257, 1000, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_request_index_beyond_the_ring_stops_the_vif(rig: Rig, ahead: int) -> None:
    one, two, three = rig.fronts
    one.tx.req_prod = one.tx.rsp_prod + ahead
    assert rig.round() == netback.VIF_STOPPED
    assert (rig.host.vifs[0].state, rig.host.vifs[0].reason) == (STOPPED, STOP_TX_INDEX)
    rig.layer.stopped = 0
    assert works(rig, two, three)
    rig.detach(0)
    assert works(rig, three, two)


def test_a_receive_index_beyond_the_ring_stops_the_vif(rig: Rig) -> None:
    one, two, three = rig.fronts
    vif = rig.host.vifs[1]
    vif.rx_known = vif.rx_cons
    two.rx.req_prod = int(vif.rx_cons) + 257
    own = rig.own_buffers()
    one.transmit([one.frame(two.mac)] * 3)
    assert rig.round() == netback.VIF_STOPPED
    assert (vif.state, vif.reason) == (STOPPED, STOP_RX_INDEX)
    rig.layer.stopped = 0
    assert works(rig, one, three)
    rig.detach(1)
    assert rig.own.words[0].free == own


@pytest.mark.parametrize(
    "entry", [0, PERMIT | READONLY | 5 << 32, PERMIT | 77 << 16, PERMIT | 0xFFFFFF << 32]
)
def test_a_receive_page_that_is_not_granted(rig: Rig, entry: int) -> None:
    one, two, three = rig.fronts
    slot = int(rig.host.vifs[1].rx_cons) & 255
    two.grants[FIRST_RX_REF + slot] = entry
    first = two.rx.rsp_prod
    since = one.tx.rsp_prod
    one.transmit([one.frame(two.mac, b"lost"), one.frame(two.mac, b"fine")])
    rig.settle()
    assert statuses(one, since) == [0, 0]
    assert [two.rx.entry(first + i, RxResponse).status for i in range(2)] == [-1, 60]
    assert rig.drops(port=2) == {"bad receive grant": 1}
    assert [data[14:18] for data in two.receive()] == [b"fine"]
    assert works(rig, one, three)


def test_a_backlogged_frame_whose_page_is_not_granted(rig: Rig) -> None:
    one, two, _ = rig.fronts
    own = rig.own_buffers()
    for _ in range(6):
        one.transmit([one.frame(two.mac)] * 50)
        rig.settle()
    two.receive(64)
    for slot in range(256):
        two.grants[FIRST_RX_REF + slot] = 0
    rig.settle()
    assert rig.drops(port=2)["bad receive grant"] > 0
    assert rig.own.words[0].free == own


def test_a_grant_revoked_between_look_and_copy() -> None:
    """The header was fetched, the rest cannot be: no frame arrives, and the error is the sender's."""
    rig = Rig(2)
    rig.learn_all()
    one, two = rig.fronts
    since, first = one.tx.rsp_prod, two.rx.rsp_prod
    # Read-only grants of pages that the receiver's ring needs writable end in the same place: the second copy.
    two.grants[FIRST_RX_REF + (int(rig.host.vifs[1].rx_cons) & 255)] |= READONLY
    one.transmit([one.frame(two.mac)])
    rig.settle()
    assert statuses(one, since) == [0]
    assert two.rx.entry(first, RxResponse).status == -1
    assert rig.own_buffers() == 2048
    rig.close()


def test_a_frame_looked_at_is_the_frame_delivered(rig: Rig) -> None:
    """Both grants of one page: the header that decided is delivered, even if the page has changed since.

    The layer copies in two steps; here the guest's change falls between them by aliasing: the frame lies in the
    very page that the first frame of the burst is delivered to.
    """
    one, two, _ = rig.fronts
    page = one.buffer(one.frame(two.mac, b"first"))
    request = next_request(one, one.frame(one.mac, b"x"))
    one.grants[request.gref] = PERMIT | ((page - one.pool.memory.address) >> 12) << 32
    rig.settle()
    assert [data[:19] for data in two.receive()] == [one.frame(two.mac, b"first")[:19]]


def test_a_table_in_the_arena_may_change_at_any_time(rig: Rig) -> None:
    """A guest may grant the page of its own grant table, or a ring page: it harms itself alone."""
    one, two, three = rig.fronts
    table_frame = (one.table - one.pool.memory.address) // 4096
    one.grants[FIRST_RX_REF + (int(rig.host.vifs[0].rx_cons) & 255)] = PERMIT | table_frame << 32
    two.transmit([two.frame(one.mac, b"\xff" * 1400, size=1514)])
    rig.round(3)
    assert works(rig, two, three) and works(rig, three, two)


def test_a_flood_of_made_up_addresses(rig: Rig) -> None:
    one, two, three = rig.fronts
    for number in range(2000):
        source = b"\x02" + number.to_bytes(5, "big")
        one.transmit([BROADCAST + source + bytes(46)])
        if number % 50 == 49:
            rig.settle()
            two.receive()
            three.receive()
    overheard = True
    deadline = time.monotonic() + 5
    while overheard and time.monotonic() < deadline:
        one.receive()
        assert works(rig, two, three) and works(rig, three, two)
        overheard = bool(one.receive())
    assert not overheard  # both are known again


def to_the_uplink(near: Rig, far: Rig) -> Front:
    """A front whose frames go to the uplink, and are fetched whole for it."""
    there, one = far.fronts[1], near.fronts[0]
    there.transmit([there.frame(BROADCAST)])
    for _ in range(3):
        far.round()
        near.round(2)
    one.transmit([one.frame(there.mac)])
    near.settle()
    assert near.host.vifs[0].whole
    return one


@pytest.mark.parametrize("spoil", [spoil_revoke, spoil_foreign, spoil_frame, spoil_reference])
def test_a_bad_grant_on_the_way_to_the_uplink(spoil: Callable[[Front, Any], None]) -> None:
    far = Rig(2)
    near = Rig(2, uplink=far.fronts[0])
    one = to_the_uplink(near, far)
    there, since, free = far.fronts[1], one.tx.rsp_prod, far.fronts[0].free
    spoil(one, next_request(one, one.frame(there.mac, b"bad")))
    request = next_request(one, one.frame(there.mac, b"long"))
    request.size = 4000
    next_request(one, one.frame(one.mac, b"to itself"))
    near.round()
    assert statuses(one, since) == [-1, -1, 0]
    assert near.drops() == {"bad grant": 1, "bad size": 1, "destination is where it came from": 1}
    assert far.fronts[0].free == free
    one.transmit([one.frame(there.mac, b"good")])
    for _ in range(3):
        near.round()
        far.round()
    assert [data[14:18] for data in there.receive()][-1] == b"good"
    near.close()
    far.close()


def test_stopping_in_the_middle_of_a_burst_loses_no_buffer() -> None:
    far = Rig(2)
    near = Rig(2, uplink=far.fronts[0])
    one = to_the_uplink(near, far)
    free = far.fronts[0].free
    one.transmit([one.frame(far.fronts[1].mac)] * 10)
    next_request(one, one.frame(far.fronts[1].mac)).flags = 8
    assert near.round() == netback.VIF_STOPPED
    assert far.fronts[0].free == free
    near.close()
    far.close()


NOISE = st.binary(min_size=0, max_size=400)
INDEX = st.one_of(st.integers(0, 300), st.integers(0, 0xFFFF_FFFF))


@settings(max_examples=8 if jit_disabled() else 150)
@given(st.lists(st.tuples(st.booleans(), INDEX, st.integers(0, 3900), NOISE, st.booleans()), max_size=6))
def test_whatever_a_frontend_writes(steps: list[tuple[bool, int, int, bytes, bool]]) -> None:
    """Random bytes in rings and tables of one vif: the layer keeps its buffers, and the other two their traffic."""
    rig = Rig(3)
    rig.learn_all()
    hostile, two, three = rig.fronts
    for sending, index, at, noise, to_table in steps:
        queue = hostile.driver.tx[0] if sending else hostile.driver.rx[0]
        ring = hostile.tx if sending else hostile.rx
        hostile.transmit([hostile.frame(random.choice((BROADCAST, two.mac)))] * 5)
        target = hostile.table + 16 * 8 if to_table else int(queue.ring) + 64
        ctypes.memmove(target + at, noise, min(len(noise), 4096 - 64 - at))
        ring.req_prod = index
        two.transmit([two.frame(hostile.mac)] * 3)
        rig.round(3)
        rig.layer.stopped = 0
        if rig.host.vifs[0].state != RUNNING:
            break
    assert rig.own_buffers() == 2048
    three.receive()
    two.receive()
    assert works(rig, two, three) and works(rig, three, two)
    rig.detach(0)
    assert rig.own_buffers() == 2048
    assert works(rig, two, three)
    rig.close()
