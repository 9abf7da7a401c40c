"""Probe headers, judged by dpkt, which shares nothing with us."""

import dpkt
import numpy as np
import pytest

from vfwire.paths.flow import DISCARD_PORT, FIRST_PORT, station, swapped, templates

ONE, TWO = station(bytes.fromhex("020000000001"), 1), station(bytes.fromhex("020000000002"), 2)


@pytest.mark.parametrize("length", [60, 61, 1514])
@pytest.mark.parametrize("flows", [1, 8])
def test_each_flow_is_a_valid_udp_packet(length: int, flows: int) -> None:
    made = templates(ONE, TWO, length, flows)
    assert made.shape == (flows, 64)
    for flow in range(flows):
        frame = made[flow].tobytes().ljust(length, b"\0")[:length]
        ethernet = dpkt.ethernet.Ethernet(frame)
        assert (ethernet.src, ethernet.dst) == (ONE.mac, TWO.mac)
        ip = ethernet.data
        assert isinstance(ip, dpkt.ip.IP)
        assert ip.len == length - 14
        assert (ip.src, ip.dst) == (bytes([198, 18, 0, 1]), bytes([198, 18, 0, 2]))
        assert ip.data.sport == FIRST_PORT + flow and ip.data.dport == DISCARD_PORT
        assert ip.data.ulen == length - 34
        given, ip.sum = ip.sum, 0
        assert dpkt.ip.IP(bytes(ip)).sum == given


def test_an_answer_has_everything_exchanged() -> None:
    out, back = templates(ONE, TWO, 60)[0].tobytes(), swapped(ONE, TWO, 60)[0].tobytes()
    asked, answered = dpkt.ethernet.Ethernet(out[:60]), dpkt.ethernet.Ethernet(back[:60])
    assert (answered.src, answered.dst) == (asked.dst, asked.src)
    assert (answered.data.src, answered.data.dst) == (asked.data.dst, asked.data.src)
    assert (answered.data.data.sport, answered.data.data.dport) == (
        asked.data.data.dport,
        asked.data.data.sport,
    )
    assert np.frombuffer(out, np.uint8)[42:].tolist() == np.frombuffer(back, np.uint8)[42:].tolist()
