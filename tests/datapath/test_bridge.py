"""The bridge's table: what it learns, forgets, and never forwards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath import bridge
from vfwire.datapath.bridge import AGEING_NS, MAC_ENTRY, NOWHERE, TABLE_ENTRIES
from vfwire.memory.compiled import compiled

learn, look_up, forget_port = bridge.learn, bridge.look_up, bridge.forget_port
is_group, is_reserved, mac_at = bridge.is_group, bridge.is_reserved, bridge.mac_at


@compiled
def teach(table, mac, port, now):  # type: ignore[no-untyped-def]
    learn(table, mac, port, now)


@compiled
def ask(table, mac, now):  # type: ignore[no-untyped-def]
    return look_up(table, mac, now)


@compiled
def forget(table, port):  # type: ignore[no-untyped-def]
    forget_port(table, port)


@compiled
def kinds(address):  # type: ignore[no-untyped-def]
    mac = mac_at(address)
    return mac, is_group(mac), is_reserved(mac)


class Table:
    def __init__(self) -> None:
        self.entries = np.zeros(TABLE_ENTRIES, MAC_ENTRY)
        self.address = self.entries.ctypes.data

    def learn(self, mac: int, port: int, now: int = 1) -> None:
        teach(self.address, mac, port, now)

    def look_up(self, mac: int, now: int = 2) -> int:
        return int(ask(self.address, mac, now))


MAC = st.integers(0, 2**47 - 1).map(lambda value: value * 2)


def test_an_empty_table_knows_nobody() -> None:
    table = Table()
    assert table.look_up(0) == NOWHERE
    assert table.look_up(0x1234) == NOWHERE


def test_it_learns_and_moves() -> None:
    table = Table()
    table.learn(0x3E1600, 3)
    assert table.look_up(0x3E1600) == 3
    assert table.look_up(0x3E1602) == NOWHERE
    table.learn(0x3E1600, 0)
    assert table.look_up(0x3E1600) == 0
    assert (table.entries["mac"] == 0x3E1600).sum() == 1


def test_it_forgets_with_age() -> None:
    table = Table()
    table.learn(2, 1, now=1000)
    assert table.look_up(2, now=1000 + AGEING_NS - 1) == 1
    assert table.look_up(2, now=1000 + AGEING_NS) == NOWHERE


def test_it_forgets_a_port() -> None:
    table = Table()
    for mac in range(2, 400, 2):
        table.learn(mac, mac % 3)
    forget(table.address, 1)
    for mac in range(2, 400, 2):
        assert table.look_up(mac) == (NOWHERE if mac % 3 == 1 else mac % 3)


def test_a_thousand_addresses_of_a_hall_fit() -> None:
    """As machines have them: one vendor, counted through."""
    table = Table()
    macs = [0x00001B21_0000 + (number << 34) for number in range(1000)]
    for mac in macs:
        table.learn(mac, 1)
    assert sum(table.look_up(mac) == 1 for mac in macs) > 990


@given(st.lists(MAC.filter(bool), min_size=5, max_size=40, unique=True))
def test_the_last_ones_heard_of_any_flood_are_known(macs: list[int]) -> None:
    table = Table()
    for now, mac in enumerate(macs):
        table.learn(mac, now % 5, now + 1)
    for now, mac in list(enumerate(macs))[-4:]:
        assert table.look_up(mac, len(macs) + 1) == now % 5


@pytest.mark.parametrize(
    ("mac", "group", "reserved"),
    [
        ("00:16:3e:00:00:01", False, False),
        ("ff:ff:ff:ff:ff:ff", True, False),
        ("01:00:5e:00:00:fb", True, False),
        ("33:33:00:00:00:01", True, False),
        ("01:80:c2:00:00:00", True, True),
        ("01:80:c2:00:00:0e", True, True),
        ("01:80:c2:00:00:0f", True, True),
        ("01:80:c2:00:00:10", True, False),
        ("02:80:c2:00:00:00", False, False),
    ],
)
def test_addresses(mac: str, group: bool, reserved: bool) -> None:
    raw = bytes.fromhex(mac.replace(":", ""))
    memory = np.frombuffer(raw + b"\xaa\xbb", np.uint8)
    assert kinds(memory.ctypes.data) == (int.from_bytes(raw, "little"), group, reserved)
