"""A layer's loop with senders that leave the checksum to it, as netfronts do."""

from collections.abc import Iterator

import pytest
from xen_rig import BROADCAST, Rig, RxResponse

from vfwire.datapath import port


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(3)
    made.learn_all()
    yield made
    made.close()


def tcp_frame(to: bytes, source: bytes, payload: bytes, *, vlan: bool = False, ipv6: bool = False) -> bytes:
    l4 = bytes.fromhex("1f90c001 00000001 00000002 5018ffff 0000 0000".replace(" ", "")) + payload
    if ipv6:
        ip = bytes.fromhex("60000000") + len(l4).to_bytes(2, "big") + b"\x06\x40" + bytes(range(1, 33))
        kind = b"\x86\xdd"
    else:
        total = (20 + len(l4)).to_bytes(2, "big")
        ip = b"\x45\x00" + total + bytes.fromhex("000140004006 0000 0a000001 0a000002".replace(" ", ""))
        kind = b"\x08\x00"
    return to + source + (b"\x81\x00\x00\x05" if vlan else b"") + kind + ip + l4


def ones_complement(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("vlan", [False, True])
@pytest.mark.parametrize("to_all", [False, True])
def test_blank_checksums_are_filled_in(rig: Rig, ipv6: bool, vlan: bool, to_all: bool) -> None:
    one, two, three = rig.fronts
    to = BROADCAST if to_all else two.mac
    frame = tcp_frame(to, one.mac, b"odd payload!!", vlan=vlan, ipv6=ipv6)
    own = rig.own_buffers()
    one.transmit([frame], port.TX_TCP_CHECKSUM)
    rig.settle()
    (got,) = two.receive()
    assert len(three.receive()) == to_all
    ip = got[18 if vlan else 14 :]
    addresses, l4 = (ip[8:40], ip[40:]) if ipv6 else (ip[12:20], ip[20:])
    assert ones_complement(addresses + b"\x00\x06" + len(l4).to_bytes(2, "big") + l4) == 0xFFFF
    field = len(got) - len(l4) + 16
    assert got[:field] + bytes(2) + got[field + 2 :] == frame
    assert rig.own.words[0].free == own
    one.transmit([])
    assert one.driver.stats()["tx_errors"] == 0


def test_a_checksum_where_none_is(rig: Rig) -> None:
    one, two, _ = rig.fronts
    whole = tcp_frame(two.mac, one.mac, b"")
    cut = whole[:-1]
    lying = whole[:16] + b"\xff\xff" + whole[18:]
    fragment = whole[:20] + b"\x20\x00" + whole[22:]
    one.transmit([one.frame(two.mac), cut, lying, fragment], port.TX_TCP_CHECKSUM)
    rig.settle()
    assert two.receive() == []
    assert rig.drops(port=1) == {"checksum asked for where none is": 4}
    one.transmit([])
    assert one.driver.stats()["tx_errors"] == 4


def test_a_receivers_flags(rig: Rig) -> None:
    one, two, _ = rig.fronts
    first = two.rx.rsp_prod
    one.transmit([one.frame(two.mac)])
    one.transmit([tcp_frame(two.mac, one.mac, b"x")], port.TX_TCP_CHECKSUM)
    rig.settle()
    assert [two.rx.entry(first + i, RxResponse).flags for i in range(2)] == [0, 1]
