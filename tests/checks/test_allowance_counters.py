"""The ENA's allowances: which of them want action, and what their rates are."""

from hypothesis import given
from hypothesis import strategies as st

from vfwire.checks.allowances import ALLOWANCES, read_allowances

# ena_hw_stats_strings in Amazon's kernel/linux/ena/ena_ethtool.c, typed from there.
DRIVERS_NAMES = [
    "bw_in_allowance_exceeded",
    "bw_out_allowance_exceeded",
    "pps_allowance_exceeded",
    "conntrack_allowance_exceeded",
    "linklocal_allowance_exceeded",
    "conntrack_allowance_available",
]


def test_every_allowance_of_the_driver_is_explained() -> None:
    assert list(ALLOWANCES) == DRIVERS_NAMES
    for allowance in ALLOWANCES.values():
        assert allowance.limit and allowance.meaning and allowance.remedy


def test_only_allowances_are_read_and_without_a_reading_before_there_is_no_rate() -> None:
    readings = read_allowances({"tx_timeout": 4, "pps_allowance_exceeded": 7})
    assert [(one.name, one.value, one.per_second, one.wants_action) for one in readings] == [
        ("pps_allowance_exceeded", 7, None, True)
    ]


def test_a_full_connection_table_wants_action_and_an_empty_one_does_not() -> None:
    assert [
        read_allowances({"conntrack_allowance_available": left})[0].wants_action for left in (0, 136812)
    ] == [
        True,
        False,
    ]


@given(st.integers(0, 1 << 63), st.integers(0, 1 << 63), st.floats(0.01, 1e5))
def test_a_rate_is_what_was_added_in_the_time(before: int, now: int, seconds: float) -> None:
    (one,) = read_allowances({"bw_in_allowance_exceeded": now}, {"bw_in_allowance_exceeded": before}, seconds)
    if now < before:  # the device was reset in between: how much was counted is not known
        assert one.per_second is None
    else:
        assert one.per_second == (now - before) / seconds


def test_a_counter_that_was_not_there_before_has_no_rate() -> None:
    assert read_allowances({"bw_in_allowance_exceeded": 5}, {}, 1.0)[0].per_second is None
    assert (
        read_allowances({"conntrack_allowance_available": 5}, {"conntrack_allowance_available": 1}, 1.0)[
            0
        ].per_second
        is None
    )
