"""Netfront's loops against a backend that the test plays, honest or not."""

import ctypes
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xen_rig import ETHERTYPE, MACS, Front, RxResponse, TxRequest, TxResponse

from vfwire.datapath import port
from vfwire.drivers.netfront import FIRST_RX_REF, FIRST_TX_REF
from vfwire.drivers.verbs import burst
from vfwire.memory.compiled import jit_disabled

PERMIT, READONLY = 1, 4


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front(0, buffers=600)
    made.start()
    yield made
    made.close()


def answer_tx(front: Front, count: int, status: int = 0) -> None:
    for _ in range(count):
        index = front.tx.rsp_prod
        ident = front.tx.entry(index, TxRequest).id
        response = front.tx.entry(index, TxResponse)
        response.id, response.status = ident, status
        front.tx.rsp_prod = index + 1


def answer_rx(
    front: Front, status: int = 60, offset: int = 0, flags: int = 0, ident: int | None = None
) -> None:
    index = front.rx.rsp_prod
    response = front.rx.entry(index, RxResponse)
    response.id = index & 255 if ident is None else ident
    response.offset, response.flags, response.status = offset, flags, status
    front.rx.rsp_prod = index + 1


def broken(front: Front) -> bool:
    records = burst(8)
    return front.transmit([front.frame(MACS[1])]) == 0 or front.driver.receive(records) != 0


def test_a_request_as_netif_h_has_it(front: Front) -> None:
    assert front.transmit([front.frame(MACS[1], size=77)]) == 1
    request = front.tx.entry(0, TxRequest)
    assert (request.id, request.size, request.flags, request.offset) == (0, 77, 0, 0)
    assert request.gref == FIRST_TX_REF
    entry = front.grants[request.gref]
    assert entry & 0xFFFF_FFFF == PERMIT | READONLY  # for domain 0
    data = ctypes.string_at(front.pool.memory.address + (entry >> 32) * 4096, 77)
    assert data == front.frame(MACS[1], size=77)
    assert front.tx.req_prod == 1 and front.tx.rsp_event == 0


def test_the_receive_ring_is_full_of_granted_pages(front: Front) -> None:
    assert front.rx.req_prod == 256 and front.free == 600 - 256
    frames = set()
    for slot in range(256):
        raw = ctypes.string_at(int(front.driver.rx[0].ring) + 64 + 8 * slot, 8)
        ident, gref = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[4:], "little")
        assert (ident, gref) == (slot, FIRST_RX_REF + slot)
        assert front.grants[gref] & 0xFFFF_FFFF == PERMIT
        frames.add(front.grants[gref] >> 32)
    assert len(frames) == 256


def test_a_grant_ends_with_its_response(front: Front) -> None:
    front.transmit([front.frame(MACS[1])] * 3)
    free = front.free
    answer_tx(front, 2)
    front.transmit([])
    assert front.free == free + 2
    assert [front.grants[FIRST_TX_REF + i] != 0 for i in range(4)] == [False, False, True, False]
    answer_rx(front)
    assert len(front.receive()) == 1
    assert front.grants[FIRST_RX_REF] == 0


def test_the_ring_wraps_and_runs_full(front: Front) -> None:
    sent = 0
    for _ in range(40):
        sent += front.transmit([front.frame(MACS[1])] * 32)
        answer_tx(front, min(25, (front.tx.req_prod - front.tx.rsp_prod) & 0xFFFFFFFF))
    assert sent == front.tx.req_prod
    assert front.driver.tx[0].full > 0
    answer_tx(front, front.tx.req_prod - front.tx.rsp_prod)
    front.transmit([])
    assert front.free == 600 - 256 and front.driver.stats()["tx_errors"] == 0


def test_indices_wrap_at_32_bits() -> None:
    front = Front(0, buffers=600)
    start = (1 << 32) - 3
    for queue, ring in ((front.driver.tx[0], front.tx), (front.driver.rx[0], front.rx)):
        queue.head = queue.tail = start
        ring.req_prod = ring.rsp_prod = start
    front.start()
    assert front.rx.req_prod == 253
    assert front.transmit([front.frame(MACS[1])] * 6) == 6
    assert front.tx.req_prod == 3
    answer_tx(front, 6)
    assert front.transmit([front.frame(MACS[1])]) == 1
    assert int(front.driver.tx[0].head) == start + 6
    for _ in range(5):
        answer_rx(front, size := 60)
    assert [len(data) for data in front.receive()] == [size] * 5
    assert not front.driver.stats()["rx_errors"]
    front.close()


def test_answers_in_any_order(front: Front) -> None:
    front.transmit([front.frame(MACS[1])] * 4)
    for index, ident in enumerate((2, 0, 3, 1)):
        response = front.tx.entry(index, TxResponse)
        response.id, response.status = ident, 0
    front.tx.rsp_prod = 4
    front.transmit([front.frame(MACS[1])] * 256)
    assert front.tx.req_prod == 260  # every id is free again, and used once
    idents = {front.tx.entry(index, TxRequest).id for index in range(4, 260)}
    assert idents == set(range(256))


def test_events_are_sent_to_who_asks(front: Front) -> None:
    front.tx.req_event = 1000
    front.transmit([front.frame(MACS[1])])
    assert front.driver.stats()["notifications_sent"] == 1  # for the first requests of the receive ring
    front.tx.req_event = 3
    front.transmit([front.frame(MACS[1])])
    assert front.driver.stats()["notifications_sent"] == 1
    front.transmit([front.frame(MACS[1])] * 2)
    assert front.driver.stats()["notifications_sent"] == 2


@pytest.mark.parametrize("ahead", [1, 255, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_response_index_beyond_the_requests(front: Front, ahead: int) -> None:
    front.transmit([front.frame(MACS[1])] * 2)
    front.tx.rsp_prod = 2 + ahead
    free = front.free
    assert front.transmit([front.frame(MACS[1])]) == 0
    assert front.free == free
    assert front.driver.stats()["tx_errors"] == 1
    front.tx.rsp_prod = 0
    assert front.transmit([front.frame(MACS[1])]) == 0  # broken for good


def test_a_receive_index_beyond_the_requests(front: Front) -> None:
    front.rx.rsp_prod = 257
    assert front.receive() == []
    front.rx.rsp_prod = 1
    assert front.receive() == []
    assert front.driver.stats()["rx_errors"] == 1


@pytest.mark.parametrize("ident", [256, 65535, 5])
def test_an_id_that_is_not_on_its_way(front: Front, ident: int) -> None:
    front.transmit([front.frame(MACS[1])] * 2)
    response = front.tx.entry(0, TxResponse)
    response.id, response.status = ident, 0
    front.tx.rsp_prod = 1
    assert front.transmit([front.frame(MACS[1])]) == 0
    assert front.driver.stats()["tx_errors"] == 1


def test_an_id_answered_twice(front: Front) -> None:
    front.transmit([front.frame(MACS[1])] * 2)
    free = front.free
    answer_tx(front, 1)
    response = front.tx.entry(1, TxResponse)
    response.id, response.status = 0, 0
    front.tx.rsp_prod = 2
    assert front.transmit([front.frame(MACS[1])]) == 0
    assert front.free == free + 1


def test_a_receive_response_in_the_wrong_slot(front: Front) -> None:
    answer_rx(front)
    answer_rx(front, ident=7)
    assert len(front.receive()) == 1
    answer_rx(front)
    assert front.receive() == []
    assert front.driver.stats()["rx_errors"] == 1


@pytest.mark.parametrize(
    ("status", "offset", "flags"),
    [
        (-1, 0, 0),
        (-32768, 0, 0),
        (0, 0, 0),
        (13, 0, 0),
        (4097, 0, 0),
        (60, 4037, 0),
        (14, 65535, 0),
        (32767, 0, 0),
        (60, 0, 4),  # more data, not offered
        (60, 0, 8),  # extra info
        (60, 0, 0x8000),
    ],
)
def test_a_bad_frame_is_skipped(front: Front, status: int, offset: int, flags: int) -> None:
    answer_rx(front, status, offset, flags)
    answer_rx(front, 60)
    assert len(front.receive()) == 1
    assert front.driver.stats()["rx_errors"] == 1
    assert front.free == 600 - 254


def test_offset_length_and_flags_of_a_frame(front: Front) -> None:
    for flags in (0, 1, 2, 3):
        answer_rx(front, 1000, 3096, flags)
    records = burst(4)
    assert front.driver.receive(records) == 4
    assert [int(record["flags"]) for record in records] == [0, port.RX_L4_GOOD, 0, 0]
    for record in records:
        assert (record.address - front.pool.memory.address) % 4096 == 3096 and record.length == 1000
        front.give(int(record.address))


def test_the_ring_is_refilled_in_batches(front: Front) -> None:
    for _ in range(31):
        answer_rx(front)
    front.receive()
    assert front.rx.req_prod == 256
    answer_rx(front)
    front.receive()
    assert front.rx.req_prod == 288


def test_an_empty_pool_asks_for_fewer() -> None:
    front = Front(0, buffers=100)
    front.start()
    assert front.rx.req_prod == 100 and front.free == 0
    assert front.driver.stats()["pool_empty"] == 1
    front.close()


def test_frames_that_cannot_be_sent(front: Front) -> None:
    """Taken, counted, and their buffers given back; the others go."""
    free = front.free
    records = burst(6)
    good = front.frame(MACS[1])
    for record, (shift, length, flags) in zip(
        records,
        [
            (0, 13, 0),
            (4000, 97, 0),
            (0, 60, port.TX_VLAN),
            (0, 60, port.TX_SEGMENT),
            (0, 60, 0),
            (4036, 60, 0),
        ],
        strict=True,
    ):
        record.address = front.buffer(good) + shift
        record.length, record.flags = length, flags
    assert front.driver.transmit(records, 6) == 6
    assert front.tx.req_prod == 2 and front.driver.stats()["tx_errors"] == 4
    assert front.free == free - 2


def test_a_frame_in_several_buffers_is_refused_as_a_whole(front: Front) -> None:
    good = front.frame(MACS[1])
    front.transmit([good, good], port.TX_MORE)
    front.transmit([good])  # its end
    assert front.tx.req_prod == 0 and front.driver.stats()["tx_errors"] == 3
    front.transmit([good])
    assert front.tx.req_prod == 1


def test_checksums_are_left_to_the_layer(front: Front) -> None:
    front.transmit([front.frame(MACS[1])], port.TX_TCP_CHECKSUM)
    assert front.tx.entry(0, TxRequest).flags == 3  # csum_blank and data_validated


def test_an_ip_header_checksum_is_computed_here(front: Front) -> None:
    # The example of RFC 1071's readers: 45 00 00 73 ... has the checksum B861.
    header = bytes.fromhex("45000073000040004011 0000 c0a80001c0a800c7".replace(" ", ""))
    data = MACS[1] + front.mac + b"\x08\x00" + header + bytes(40)
    front.transmit([data], port.TX_IP_CHECKSUM)
    entry = front.grants[front.tx.entry(0, TxRequest).gref]
    sent = ctypes.string_at(front.pool.memory.address + (entry >> 32) * 4096, len(data))
    assert sent[24:26].hex() == "b861"
    assert sent[:24] + sent[26:] == data[:24] + data[26:]


PAGE = st.binary(min_size=64, max_size=256)


@settings(max_examples=8 if jit_disabled() else 150)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 0xFFFF_FFFF) | st.integers(0, 300), PAGE),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_a_backend_writes(steps: list[tuple[bool, int, bytes]]) -> None:
    """Nothing outside of a page is handed out, and no buffer is in two places or lost."""
    front = Front(0, buffers=600)
    front.start()
    records = burst(64)
    held: list[int] = []
    for sending, index, noise in steps:
        ring = front.tx if sending else front.rx
        queue = front.driver.tx[0] if sending else front.driver.rx[0]
        front.transmit([front.frame(MACS[1])] * 8)
        ctypes.memmove(int(queue.ring) + 64, noise, len(noise))
        ring.rsp_prod = index
        for record in records[: front.driver.receive(records)]:
            offset = (int(record.address) - front.pool.memory.address) % 4096
            assert record.length >= 14 and offset + record.length <= 4096
            held.append(int(record.address) & ~4095)
        front.transmit([])
    free = [int(address) for address in front.pool.stack[: front.free]]
    slots = [
        int(value)
        for queue in (front.driver.tx[0], front.driver.rx[0])
        for value in (ctypes.c_int64 * 256).from_address(int(queue.slots))
        if value
    ]
    everywhere = [address & ~4095 for address in held + free + slots]
    assert sorted(everywhere) == sorted({int(a) for a in everywhere}) and len(everywhere) == 600
    assert ETHERTYPE  # the frames of the rig are no protocol's that a stack would answer
    front.close()
