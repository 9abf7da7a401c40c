"""Header layouts, pinned by the diagrams of their RFCs: fields in order, with their widths in bits."""

import dpkt
import pytest

from vfwire.layouts import ethernet

# RFC 826 with Ethernet and IPv4 sizes; RFC 791 3.1; RFC 8200 3; RFC 9293 3.1; RFC 768; IEEE 802.3 and 802.1Q.
DIAGRAMS = {
    "ETHERNET": "DESTINATION 48, SOURCE 48, TYPE 16",
    "VLAN": "TPID 16, TCI 16",
    "ARP": "HARDWARE_TYPE 16, PROTOCOL_TYPE 16, HARDWARE_SIZE 8, PROTOCOL_SIZE 8, OPERATION 16, "
    "SENDER_MAC 48, SENDER_IP 32, TARGET_MAC 48, TARGET_IP 32",
    "IPV4": "VERSION_IHL 8, TOS 8, TOTAL_LENGTH 16, IDENTIFICATION 16, FRAGMENT 16, TTL 8, PROTOCOL 8, "
    "CHECKSUM 16, SOURCE 32, DESTINATION 32",
    "IPV6": "VERSION_FLOW 32, PAYLOAD_LENGTH 16, NEXT_HEADER 8, HOP_LIMIT 8, SOURCE 128, DESTINATION 128",
    "TCP": "SOURCE_PORT 16, DESTINATION_PORT 16, SEQUENCE 32, ACKNOWLEDGEMENT 32, DATA_OFFSET 8, FLAGS 8, "
    "WINDOW 16, CHECKSUM 16, URGENT 16",
    "UDP": "SOURCE_PORT 16, DESTINATION_PORT 16, LENGTH 16, CHECKSUM 16",
}


@pytest.mark.parametrize("header", DIAGRAMS)
def test_offsets_and_sizes(header: str) -> None:
    bits = 0
    for row in DIAGRAMS[header].split(","):
        field, width = row.split()
        assert bits % 8 == 0
        assert getattr(ethernet, f"{header}_{field}") == bits // 8, field
        bits += int(width)
    assert getattr(ethernet, f"{header}_BYTES") == bits // 8


def test_numbers() -> None:
    """EtherTypes and protocol numbers, typed from IANA's lists."""
    assert (ethernet.ETHERTYPE_IPV4, ethernet.ETHERTYPE_ARP, ethernet.ETHERTYPE_IPV6) == (2048, 2054, 34525)
    assert (ethernet.ETHERTYPE_VLAN, ethernet.ETHERTYPE_QINQ, ethernet.ETHERTYPE_FIRST) == (
        33024,
        34984,
        1536,
    )
    assert {
        name.removeprefix("PROTOCOL_"): value
        for name, value in vars(ethernet).items()
        if name.startswith("PROTOCOL_")
    } == {
        "HOP_BY_HOP": 0,
        "ICMP": 1,
        "TCP": 6,
        "UDP": 17,
        "ROUTING": 43,
        "FRAGMENT": 44,
        "ESP": 50,
        "AH": 51,
        "ICMPV6": 58,
        "NONE": 59,
        "DESTINATION_OPTIONS": 60,
        "SCTP": 132,
    }


def test_flags_as_another_library_has_them() -> None:
    for flag in ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"):
        assert getattr(ethernet, f"TCP_{flag}") == getattr(
            dpkt.tcp, f"TH_{'PUSH' if flag == 'PSH' else flag}"
        )
    assert ethernet.IPV4_DONT_FRAGMENT == dpkt.ip.IP_DF
    assert ethernet.IPV4_MORE_FRAGMENTS == dpkt.ip.IP_MF
    assert ethernet.IPV4_OFFSET_MASK == dpkt.ip.IP_OFFMASK
    assert (ethernet.ARP_REQUEST, ethernet.ARP_REPLY) == (dpkt.arp.ARP_OP_REQUEST, dpkt.arp.ARP_OP_REPLY)
    assert ethernet.VLAN_ID_MASK | ethernet.VLAN_DEI | 7 << ethernet.VLAN_PRIORITY_SHIFT == 0xFFFF


def test_what_a_frame_takes_on_the_wire() -> None:
    """10 Gbit/s are 14,880,952 frames of 64 bytes (with FCS) a second, or 812,743 of 1,518 (RFC 5180 A)."""
    wire_overhead = ethernet.WIRE_OVERHEAD_BYTES
    assert wire_overhead == 24
    assert 10**10 // (8 * (ethernet.MINIMUM_FRAME_BYTES + wire_overhead)) == 14_880_952
    assert 10**10 // (8 * (ethernet.MAXIMUM_FRAME_BYTES + wire_overhead)) == 812_743
