"""The subnet's DHCP server, datagram by datagram; replies are read by hand, byte by byte."""

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.checks.image.dhcp import Subnet, answer

SUBNET = Subnet(IPv4Network("172.31.16.0/20"), IPv4Address("172.31.17.5"))
MAC = bytes.fromhex("020000000007")
DISCOVER, OFFER, REQUEST, ACK, NAK, RELEASE, INFORM = 1, 2, 3, 5, 6, 7, 8


def request(kind: int, *options: bytes, ciaddr: bytes = bytes(4), op: int = 1) -> bytes:
    """RFC 2131 figure 1, with option 53 first."""
    head = struct.pack(">BBBBIHH", op, 1, 6, 0, 0x12345678, 0, 0x8000)
    fixed = head + ciaddr + bytes(12) + MAC + bytes(10) + bytes(64 + 128) + b"\x63\x82\x53\x63"
    return fixed + bytes([53, 1, kind]) + b"".join(options) + b"\xff"


def option(code: int, data: bytes) -> bytes:
    return bytes([code, len(data)]) + data


def options_of(reply: bytes) -> dict[int, bytes]:
    found, at = {}, 240
    while reply[at] != 255:
        length = reply[at + 1]
        found[reply[at]] = reply[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def test_an_offer_has_what_ec2_gives() -> None:
    asked, reply = answer(request(DISCOVER), SUBNET, 9001)
    assert asked == "discover" and reply is not None and len(reply) >= 300
    assert reply[:1] == b"\2" and reply[4:8] == b"\x12\x34\x56\x78" and reply[28:34] == MAC
    assert reply[16:20] == bytes([172, 31, 17, 5])
    found = options_of(reply)
    assert found[53] == bytes([OFFER])
    assert found[54] == found[3] == bytes([172, 31, 16, 1])
    assert found[1] == bytes([255, 255, 240, 0]) and found[28] == bytes([172, 31, 31, 255])
    assert found[6] == bytes([172, 31, 16, 2]) and found[51] == struct.pack(">I", 3600)
    assert found[26] == struct.pack(">H", 9001)
    assert found[12] == b"ip-172-31-17-5" and found[15] == b"ec2.internal"


@pytest.mark.parametrize("renewal", [False, True])
def test_the_offered_address_is_granted(renewal: bool) -> None:
    address = bytes([172, 31, 17, 5])
    text = request(REQUEST, ciaddr=address) if renewal else request(REQUEST, option(50, address))
    asked, reply = answer(text, SUBNET, 1500)
    assert asked == "request" and reply is not None
    assert options_of(reply)[53] == bytes([ACK]) and reply[16:20] == address


def test_another_address_is_refused() -> None:
    _, reply = answer(request(REQUEST, option(50, bytes([10, 0, 0, 9]))), SUBNET, 1500)
    assert reply is not None and options_of(reply)[53] == bytes([NAK]) and reply[16:20] == bytes(4)
    assert 51 not in options_of(reply)


def test_inform_is_answered_and_release_is_not() -> None:
    assert answer(request(INFORM), SUBNET, 1500)[1] is not None
    assert answer(request(RELEASE), SUBNET, 1500) == ("release", None)


@pytest.mark.parametrize("bad", [b"", bytes(239), bytes(300), request(DISCOVER, op=2), request(99)])
def test_what_is_no_request_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError):
        answer(bad, SUBNET, 1500)


@given(st.binary(max_size=80), st.integers(0, 255))
def test_any_options_are_answered_or_refused(options: bytes, kind: int) -> None:
    try:
        asked, reply = answer(request(kind, options), SUBNET, 1500)
    except ValueError:
        return
    assert asked and (reply is None or reply[4:8] == b"\x12\x34\x56\x78")


@given(st.binary(max_size=600))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    try:
        answer(data, SUBNET, 1500)
    except ValueError:
        return
