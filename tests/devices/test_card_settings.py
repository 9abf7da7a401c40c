"""Settings as `ip link … vf` has them: what is accepted, what reaches the switch, what is left alone."""

import pytest
from device_kit import Guest, card_of, pools_of
from hypothesis import given
from hypothesis import strategies as st

from vfwire.devices.settings import (
    VfSettings,
    change_settings,
    default_mac,
    format_mac,
    mac_to_int,
    parse_mac,
    parse_rate,
)
from vfwire.errors import UsageError


def test_default_macs_are_local_stable_and_different() -> None:
    macs = {default_mac(card, index) for card in ("card0", "card1", "a") for index in range(64)}
    assert len(macs) == 3 * 64
    assert all(mac[0] == 2 for mac in macs)
    assert default_mac("card0", 0) == bytes.fromhex("02c4f1c9bd00")


@pytest.mark.parametrize(
    "text", ["", "02:00:00:00:00", "02:00:00:00:00:0g", "0200.0000.0001", "01:00:00:00:00:01"]
)
def test_texts_that_are_no_mac(text: str) -> None:
    with pytest.raises(UsageError):
        parse_mac(text)


def test_macs_read_as_they_are_written() -> None:
    assert parse_mac("02-AB-cd-00-00-01") == bytes.fromhex("02abcd000001")
    assert format_mac(bytes.fromhex("02abcd000001")) == "02:ab:cd:00:00:01"
    assert mac_to_int(bytes.fromhex("0102030405ff")) == 0xFF0504030201


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10G", 10**10), ("2.5g", 2_500_000_000), ("100Mbps", 10**8), ("off", None), ("1000000", 10**6)],
)
def test_line_rates(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1G", "0", "1k", "99999G"])
def test_texts_that_are_no_rate(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rate(text)


BAD = [
    {"mac": "ff:ff:ff:ff:ff:ff"},
    {"mac": 5},
    {"vlan": 4095},
    {"vlan": -1},
    {"vlan": True},
    {"vlan": "x"},
    {"qos": 8},
    {"spoofchk": "maybe"},
    {"trust": 1},
    {"state": "up"},
    {"state": ["auto"]},
    {"max_tx_rate": 10},
    {"max_tx_rate": 10_001},
    {"max_tx_rate": "9" * 30},
    {"colour": "red"},
    {"mac_is_set": True},
]


@pytest.mark.parametrize("changes", BAD)
def test_settings_that_make_no_sense_change_nothing(changes: dict[str, object]) -> None:
    with card_of() as card:
        before = card.settings(0)
        with pytest.raises(UsageError):
            card.change(0, {"vlan": 7, **changes})
        assert card.settings(0) == before
        assert card.engine.state.functions[0].port_vlan == 0


@given(
    changes=st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["mac", "vlan", "qos", "trust", "state", "max_tx_rate"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=20)
        | st.lists(st.integers(), max_size=2),
        max_size=4,
    )
)
def test_whatever_is_asked_for_is_a_setting_or_a_usage_error(changes: dict[str, object]) -> None:
    try:
        new = change_settings(VfSettings(), changes, 10_000)
    except UsageError as error:
        assert len(str(error)) < 300
    else:
        assert 0 <= new.vlan <= 4094 and 0 <= new.qos <= 7 and 0 <= new.max_tx_rate <= 10_000


def test_a_mac_moves_in_the_switch() -> None:
    with card_of() as card:
        old = card.settings(1).mac
        new = bytes.fromhex("020000000099")
        card.change(1, {"mac": format_mac(new)})
        assert (pools_of(card, old), pools_of(card, new)) == (0, 0b10)
        assert card.engine.state.functions[1].mac == mac_to_int(new)
        card.change(1, {"mac": "00:00:00:00:00:00"})
        assert pools_of(card, new) == 0


def test_a_mac_of_another_function_is_refused() -> None:
    with card_of() as card:
        with pytest.raises(UsageError, match="belongs to another"):
            card.change(1, {"mac": format_mac(card.settings(0).mac)})
        card.change(1, {"mac": format_mac(card.settings(1).mac)})


def test_port_vlans_come_change_and_go() -> None:
    with card_of() as card:
        vlans, record = card.engine.state.vlan_pools[0], card.engine.state.functions[1]
        assert (vlans[0], vlans[5]) == (0b11, 0)
        card.change(1, {"vlan": 5, "qos": 2})
        assert (vlans[0], vlans[5], record.port_vlan) == (0b01, 0b10, 5 | 2 << 13)
        card.change(1, {"vlan": 6})
        assert (vlans[0], vlans[5], vlans[6], record.port_vlan) == (0b01, 0, 0b10, 6 | 2 << 13)
        card.change(1, {"vlan": 0, "qos": 0})
        assert (vlans[0], vlans[6], record.port_vlan) == (0b11, 0, 0)


def test_rates_are_the_lower_of_two() -> None:
    with card_of() as card, card_of(line_rate_bps=None) as lifted:
        record, free = card.engine.state.functions[0], lifted.engine.state.functions[0]
        assert (record.rate_bps, free.rate_bps) == (10**10, 0)
        for made in (card, lifted):
            made.change(0, {"max_tx_rate": 500})
        assert (record.rate_bps, free.rate_bps) == (5 * 10**8, 5 * 10**8)
        lifted.change(0, {"max_tx_rate": 40_000})
        card.change(0, {"max_tx_rate": 0})
        assert (record.rate_bps, free.rate_bps) == (10**10, 4 * 10**10)


def test_link_states() -> None:
    with card_of() as card:
        record = card.engine.state.functions[0]
        for state, card_up, up in [
            ("disable", True, 0),
            ("auto", True, 1),
            ("auto", False, 0),
            ("enable", False, 1),
            ("disable", False, 0),
        ]:
            card.change(0, {"state": state})
            card.set_link(card_up)
            assert record.link_up == up


def test_changes_forget_every_cached_path() -> None:
    with card_of() as card:
        state = card.engine.state
        for changes in ({"mac": "02:00:00:00:00:77"}, {"vlan": 3}, {"spoofchk": False}, {"state": "disable"}):
            state.tx.to[:] = 1
            card.change(0, changes)
            assert set(state.tx.to.tolist()) == {-1}


def test_two_cards_are_joined_and_parted() -> None:
    with card_of() as card, card_of() as stranger:
        with pytest.raises(UsageError):
            card.join(card)
        with pytest.raises(UsageError):
            card.join(stranger)


@pytest.mark.parametrize(
    "options",
    [
        {"vfs": 0},
        {"vfs": 64},
        {"mtu": 67},
        {"mtu": 9711},
        {"model": "x"},
        {"api_ceiling": "1.5"},
        {"api_ceiling": "2.0"},
        {"mac_prefix": b"\x02"},
        {"mac_prefix": b"\x01\0\0\0\0"},
    ],
)
def test_cards_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(UsageError), card_of(**options):  # type: ignore[arg-type]
        raise AssertionError("it could")


def test_description_and_counters() -> None:
    with card_of(3, host_function=True, mac_prefix=b"\x02\0\0\0\x07") as card:
        guest = Guest(card.vfs[2])
        guest.reset()
        described = card.describe()
        assert [vf["vf"] for vf in described["vfs"]] == [0, 1, 2, "host"]
        assert [vf["address"] for vf in described["vfs"][:3]] == [
            "0000:01:10.0",
            "0000:01:10.2",
            "0000:01:10.4",
        ]
        assert described["vfs"][2]["mac"] == "02:00:00:00:07:02" and described["vfs"][2]["in_use"]
        state = card.engine.state
        state.drops[2, 0], state.functions[2].tx_frames, state.functions[2].fault = 9, 4, 8
        counters = card.counters()["vfs"]["2"]
        assert counters["drops"] == {"no receive descriptor": 9}
        assert (counters["tx_frames"], counters["fault"]) == (4, "bad DMA address")
        assert counters["traps"] == guest.function.traps > 10
        assert counters["mailbox_messages"] == 2
