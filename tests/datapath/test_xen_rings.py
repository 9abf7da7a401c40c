"""Shared rings: entries as the headers have them, and when the other side is woken."""

import ctypes
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath import xen_rings as rings
from vfwire.memory.compiled import compiled

M32 = 0xFFFF_FFFF


@compiled
def init(ring):  # type: ignore[no-untyped-def]
    rings_init(ring)


rings_init = rings.init_ring
push_requests, push_responses = rings.push_requests, rings.push_responses
requests_after, responses_after = rings.requests_after, rings.responses_after
write_tx_request, read_tx_request = rings.write_tx_request, rings.read_tx_request
write_tx_response, read_tx_response = rings.write_tx_response, rings.read_tx_response
write_rx_request, read_rx_request = rings.write_rx_request, rings.read_rx_request
write_rx_response, read_rx_response = rings.write_rx_response, rings.read_rx_response
pack_rx_response = rings.rx_response
want_request_event, want_response_event = rings.want_request_event, rings.want_response_event


@compiled
def push(ring, old, new, responses):  # type: ignore[no-untyped-def]
    if responses:
        return push_responses(ring, old, new)
    return push_requests(ring, old, new)


@compiled
def after(ring, consumed, responses):  # type: ignore[no-untyped-def]
    if responses:
        return responses_after(ring, consumed)
    return requests_after(ring, consumed)


@compiled
def want(ring, index, responses):  # type: ignore[no-untyped-def]
    if responses:
        want_response_event(ring, index)
    else:
        want_request_event(ring, index)


@compiled
def tx_request(ring, index, gref, offset, flags, ident, size):  # type: ignore[no-untyped-def]
    write_tx_request(ring, index, gref, offset, flags, ident, size)
    return read_tx_request(ring, index)


@compiled
def tx_response(ring, index, ident, status):  # type: ignore[no-untyped-def]
    write_tx_response(ring, index, ident, status)
    return read_tx_response(ring, index)


@compiled
def rx_request(ring, index, ident, gref):  # type: ignore[no-untyped-def]
    write_rx_request(ring, index, ident, gref)
    return read_rx_request(ring, index)


@compiled
def rx_response(ring, index, ident, offset, flags, status):  # type: ignore[no-untyped-def]
    write_rx_response(ring, index, pack_rx_response(ident, offset, flags, status))
    return read_rx_response(ring, index)


class Page:
    def __init__(self) -> None:
        self._raw = (ctypes.c_uint8 * 8192)()
        self.address = -(-ctypes.addressof(self._raw) // 4096) * 4096
        self.bytes = (ctypes.c_uint8 * 4096).from_address(self.address)

    def words(self) -> tuple[int, ...]:
        return struct.unpack_from("<4I", self.bytes)

    def entry(self, slot: int, size: int) -> bytes:
        return bytes(self.bytes[64 + slot * size : 64 + (slot + 1) * size])


@pytest.fixture
def page() -> Page:
    return Page()


def test_a_new_ring(page: Page) -> None:
    ctypes.memset(page.address, 0xFF, 4096)
    init(page.address)
    assert page.words() == (0, 1, 0, 1)  # req_prod, req_event, rsp_prod, rsp_event


def test_entries_in_bytes(page: Page) -> None:
    """Slots by index modulo 256, also for indices beyond 32 bits; little-endian, as netif.h draws them."""
    a = page.address
    assert tx_request(a, 258, 0x01020304, 0x0506, 0x0708, 0x090A, 0x0B0C) == (
        0x01020304,
        0x0506,
        0x0708,
        0x090A,
        0x0B0C,
    )
    assert page.entry(2, 12) == bytes.fromhex("04030201 0605 0807 0a09 0c0b")
    assert tx_response(a, (1 << 32) + 2, 0x1122, -1) == (0x1122, -1)
    assert page.entry(2, 12) == bytes.fromhex("2211 ffff 0605 0807 0a09 0c0b")
    assert rx_request(a, 255, 0xFFFE, 0xA1B2C3D4) == (0xFFFE, 0xA1B2C3D4)
    assert page.entry(255, 8) == bytes.fromhex("feff 0000 d4c3b2a1")
    assert rx_response(a, 255, 0x0102, 0xF304, 0x8506, -2) == (0x0102, 0xF304, 0x8506, -2)
    assert page.entry(255, 8) == bytes.fromhex("0201 04f3 0685 feff")


@given(st.integers(0, M32), st.integers(0, 256), st.integers(0, M32), st.booleans())
def test_who_asked_is_woken(old: int, count: int, event: int, responses: bool) -> None:
    """The other side is woken exactly if its event index is among those just published."""
    page = Page()
    want(page.address, event, responses)
    woken = push(page.address, old, old + count, responses)
    assert woken == (event in {(old + i) & M32 for i in range(1, count + 1)})
    index = page.words()[2 if responses else 0]
    assert index == (old + count) & M32
    assert page.words()[3 if responses else 1] == event


@given(st.integers(0, 1 << 40), st.integers(0, M32), st.booleans())
def test_how_many_there_are(consumed: int, ahead: int, responses: bool) -> None:
    page = Page()
    push(page.address, consumed, consumed + ahead, responses)
    assert after(page.address, consumed, responses) == ahead
