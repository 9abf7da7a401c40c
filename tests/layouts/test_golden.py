"""Constants against golden tables typed from the vendors' headers, two witnesses where there are two."""

import importlib
from typing import Any

import pytest
from golden_tables import WITNESSES, Fact, facts

from vfwire.layouts import ixgbe_descriptors as descriptors
from vfwire.layouts import ixgbe_mailbox as mailbox
from vfwire.layouts import ixgbevf, pci
from vfwire.layouts.register import by_offset

TABLES = {"ixgbevf": 100, "ixgbe_descriptors": 90, "ixgbe_mailbox": 48, "pci": 170}


def wrong(module: Any, table: list[Fact]) -> list[str]:
    """What differs, in words."""
    return [
        f"{fact.name}: {fact.header_name} is {fact.value} in {fact.witness}"
        for fact in table
        if getattr(module, fact.name, None) != fact.value
    ]


@pytest.mark.parametrize("table", TABLES)
def test_constants_are_what_the_headers_say(table: str) -> None:
    module = importlib.import_module(f"vfwire.layouts.{table}")
    read = list(facts(table))
    assert len({fact.name for fact in read}) >= TABLES[table]
    assert {fact.witness for fact in read} == set(WITNESSES)
    assert wrong(module, read) == []


def test_a_wrong_constant_would_be_found() -> None:
    assert wrong(ixgbevf, [Fact("VFCTRL", "X", "linux", 4), Fact("NO_SUCH_NAME", "Y", "dpdk", 0)]) != []


@pytest.mark.parametrize("table", TABLES)
def test_constants_are_plain_ints(table: str) -> None:
    """Compiled loops take ints; an IntFlag or a bool would not do."""
    module = importlib.import_module(f"vfwire.layouts.{table}")
    named = {
        name: value for name, value in vars(module).items() if name.isupper() and not name.startswith("_")
    }
    odd = {name for name, value in named.items() if type(value) is not int}
    assert odd <= {"REGISTERS", "API_NAMES", "MESSAGE_NAMES"}


def test_every_register_of_the_table_has_a_witness() -> None:
    witnessed = {fact.name for fact in facts("ixgbevf")}
    assert {row.name for row in ixgbevf.REGISTERS} <= witnessed


def test_strides_of_registers_that_repeat() -> None:
    """Second and last of each group, computed by hand from the headers' macros."""
    expected = {
        0x0124: ("VTIVAR", 1),
        0x0828: ("VTEITR", 2),
        0x0188: ("VTRSCINT", 2),
        0x023C: ("VFMBMEM", 15),
        0x1040: ("VFRDBAL", 1),
        0x11D8: ("VFRDT", 7),
        0x10A8: ("VFRXDCTL", 2),
        0x2058: ("VFTDT", 1),
        0x21FC: ("VFTDWBAH", 7),
    }
    assert {offset: ixgbevf.decode(offset) for offset in expected} == expected


def test_counters_lie_inside_queue_zero_only() -> None:
    assert ixgbevf.decode(0x101C) == ("VFGPRC", 0)
    assert ixgbevf.decode(0x105C) is None
    assert ixgbevf.decode(0x201C) == ("VFGPTC", 0)
    assert ixgbevf.decode(0x205C) is None
    assert ixgbevf.decode(0x1034) == ("VFMPRC", 0)


def test_decode_knows_every_row_and_nothing_else() -> None:
    rows = {
        row.offset + index * row.stride: (row.name, index)
        for row in ixgbevf.REGISTERS
        for index in range(row.count)
    }
    decoded = {offset: ixgbevf.decode(offset) for offset in range(-8, ixgbevf.BAR0_SIZE + 8)}
    assert {offset: found for offset, found in decoded.items() if found} == rows
    assert all(offset % 4 == 0 for offset in rows)


def test_two_registers_at_one_offset_are_refused() -> None:
    row = ixgbevf.REGISTERS[0]
    with pytest.raises(ValueError, match="VFCTRL and VFCTRL both claim offset 0x0"):
        by_offset((row, row))


def test_link_speed_values_are_distinct_and_in_their_field() -> None:
    speeds = [ixgbevf.LINKS_SPEED_100M, ixgbevf.LINKS_SPEED_1G, ixgbevf.LINKS_SPEED_10G]
    assert len(set(speeds)) == 3
    assert all(speed & ~ixgbevf.LINKS_SPEED_MASK == 0 for speed in speeds)


def test_receive_descriptor_by_its_header_structure() -> None:
    """`union ixgbe_adv_rx_desc` bits pkt_info 16, hdr_info 16, rss 32, status 32, length 16, vlan 16."""
    offsets = (
        descriptors.RXD_PKT_INFO,
        descriptors.RXD_HDR_INFO,
        descriptors.RXD_RSS_HASH,
        descriptors.RXD_STATUS_ERROR,
        descriptors.RXD_LENGTH,
        descriptors.RXD_VLAN,
    )
    assert offsets == (0, 2, 4, 8, 12, 14)
    assert descriptors.RXD_Q0_RSS_HASH_SHIFT == 32
    assert (descriptors.RXD_Q1_ERROR_SHIFT, descriptors.RXD_Q1_LENGTH_SHIFT) == (20, 32)
    assert descriptors.RXD_Q1_VLAN_SHIFT == 48
    # hdr_info has SPH at bit 15, the header length from bit 5 on (RXDADV_SPH, RXDADV_HDRBUFLEN_MASK)
    assert descriptors.RXD_SPH == 0x8000 << 16
    assert descriptors.RXD_HDRLEN_MASK == 0x7FE0 << 16
    assert descriptors.RXD_Q0_HDRLEN_SHIFT == 5 + 16


def test_legacy_receive_descriptor_by_its_header_structure() -> None:
    """`struct ixgbe_legacy_rx_desc`: length 16, csum 16, status 8, errors 8, vlan 16; bits as in ixgbe_type.h:
    IXGBE_RXD_STAT_VP 0x08, _L4CS 0x20, _IPCS 0x40; IXGBE_RXD_ERR_TCPE 0x40, _IPE 0x80."""
    assert (descriptors.RXD_LEGACY_STATUS_SHIFT, descriptors.RXD_LEGACY_ERROR_SHIFT) == (32, 40)
    assert descriptors.RXD_LEGACY_VLAN_SHIFT == 48
    status = descriptors.RXD_STAT_VP | descriptors.RXD_STAT_L4CS | descriptors.RXD_STAT_IPCS
    assert status & descriptors.RXD_LEGACY_STATUS_MASK == 0x68
    assert descriptors.RXD_ERR_TCPE >> descriptors.RXD_LEGACY_HIGH_ERRORS_SHIFT == 0x40
    assert descriptors.RXD_ERR_IPE >> descriptors.RXD_LEGACY_HIGH_ERRORS_SHIFT == 0x80


def test_transmit_descriptor_fields_in_their_qword() -> None:
    """The second dword of a pair lies 32 bits up: each _Q1_ name is the dword's name, moved."""
    assert (descriptors.TXD_BUFFER_ADDR, descriptors.TXD_CMD_TYPE_LEN, descriptors.TXD_OLINFO_STATUS) == (
        0,
        8,
        12,
    )
    assert descriptors.TXD_Q1_DD == descriptors.TXD_STAT_DD << 32
    assert descriptors.TXD_Q1_CC == descriptors.TXD_CC << 32
    assert descriptors.TXD_Q1_IXSM == descriptors.TXD_POPTS_IXSM << 32
    assert descriptors.TXD_Q1_TXSM == descriptors.TXD_POPTS_TXSM << 32
    assert descriptors.TXD_Q1_IDX_SHIFT == descriptors.TXD_IDX_SHIFT + 32
    assert descriptors.TXD_Q1_POPTS_SHIFT == descriptors.TXD_POPTS_SHIFT + 32
    assert descriptors.TXD_Q1_PAYLEN_SHIFT == descriptors.TXD_PAYLEN_SHIFT + 32
    assert descriptors.TXD_PAYLEN_MAX == (1 << 18) - 1
    assert descriptors.TXD_POPTS_IXSM == 0x01 << 8  # TXD_POPTS_IXSM, TXD_POPTS_TXSM, moved by POPTS_SHIFT
    assert descriptors.TXD_POPTS_TXSM == 0x02 << 8


def test_context_descriptor_fields_do_not_overlap() -> None:
    """`struct ixgbe_adv_tx_context_desc`: four dwords; fields fill the first and last, none overlaps."""
    first = [descriptors.CTXD_IPLEN_MASK, descriptors.CTXD_MACLEN_MASK, descriptors.CTXD_VLAN_MASK]
    last = [descriptors.CTXD_IDX_MASK, descriptors.CTXD_L4LEN_MASK, descriptors.CTXD_MSS_MASK]
    assert sum(first) == 0xFFFFFFFF
    assert sum(last) == 0xFFFFFF70
    assert descriptors.CTXD_MSS_L4LEN_IDX == descriptors.CTXD_TYPE_TUCMD_MLHL + 4 == 12
    assert descriptors.CTXD_Q1_L4LEN_SHIFT == descriptors.CTXD_L4LEN_SHIFT + 32
    assert descriptors.CTXD_Q1_MSS_SHIFT == descriptors.CTXD_MSS_SHIFT + 32


def test_mailbox_messages_fit_and_are_named() -> None:
    types = [value for name, value in vars(mailbox).items() if name.startswith("VF_") and type(value) is int]
    assert sorted(types) == sorted(set(types))
    assert {
        value: name for name, value in vars(mailbox).items() if value in types and name.startswith("VF_")
    } == {value: name for value, name in mailbox.MESSAGE_NAMES.items() if value in types}
    assert mailbox.RETA_ENTRIES * mailbox.RETA_ENTRY_BITS == mailbox.RETA_WORDS * 32
    assert mailbox.RSS_KEY_BYTES == mailbox.RSS_KEY_WORDS * 4
    assert max(mailbox.RETA_WORDS, mailbox.RSS_KEY_WORDS) < mailbox.WORDS
    assert mailbox.MULTICAST_HASHES_MAX * 2 == (mailbox.WORDS - 1) * 4
    assert mailbox.API_NAMES[mailbox.API_11] == "1.1"
    assert mailbox.API_NAMES[mailbox.API_20] == "2.0"
    assert mailbox.API_NAMES[mailbox.API_17] == "1.7"


def test_pci_capabilities_of_the_function_where_drivers_look() -> None:
    """ixgbe_type.h: MSI-X control 0x72, device status 0xAA, link status 0xB2, device control 2 0xC8."""
    assert ixgbevf.PCI_MSIX_CAPABILITY + pci.MSIX_FLAGS == 0x72
    assert ixgbevf.PCI_EXPRESS_CAPABILITY + pci.EXP_DEVSTA == 0xAA
    assert ixgbevf.PCI_EXPRESS_CAPABILITY + pci.EXP_LNKSTA == 0xB2
    assert ixgbevf.PCI_EXPRESS_CAPABILITY + pci.EXP_DEVCTL2 == 0xC8
