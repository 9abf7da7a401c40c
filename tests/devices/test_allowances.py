"""Allowances as text, on a card, and in the statistics that a guest asks for."""

import pytest
from device_kit import card_of
from hypothesis import given
from hypothesis import strategies as st

from vfwire.devices.allowances import Allowance, allow, parse_allowance
from vfwire.errors import UsageError


def test_text_and_units() -> None:
    found = parse_allowance("0,2:bw-in=5G,bw-out=500M,burst=1G,pps=1M,conntrack=5k,linklocal=1024")
    assert found.vfs == (0, 2) and found.linklocal_pps == 1024
    assert found.limits == {
        "bw_in_bps": 5 * 10**9,
        "bw_out_bps": 5 * 10**8,
        "burst_bits": 10**9,
        "pps": 10**6,
        "conntrack_most": 5000,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pps=1M", "no allowance"),
        ("0:", "no allowance"),
        ("0:pps", "no limit"),
        ("0:pps=1T", "no limit"),
        ("0:speed=1", "no limit"),
        ("0:conntrack=7k", "at most 6,000"),
        ("0,0:pps=1", "twice"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_allowance(text)


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        assert isinstance(parse_allowance(text), Allowance)
    except UsageError as error:
        assert str(error)


def test_a_card_takes_them_for_its_own_vfs() -> None:
    with card_of() as card:
        allow(card, Allowance((1, 0), {"pps": 7}))
        state = card.engine.state
        rows = [card.vfs[vf].port.function for vf in (0, 1)]
        assert [int(state.functions[row].instance) for row in rows] == [rows[1]] * 2
        assert state.instances[rows[1]].pps == 7
        allow(card, Allowance((0, 1), {}))
        assert not state.functions.metered.any()
        with pytest.raises(UsageError, match="has no VF"):
            allow(card, Allowance((60,), {"pps": 1}))
