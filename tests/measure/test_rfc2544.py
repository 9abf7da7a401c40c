"""The search for a zero-loss rate, on wires whose true rate is known."""

import pytest

from vfwire.measure.rfc2544 import Trial, search_zero_loss


def wire(true_pps: int, *, sender_pps: float = 1e12):
    def trial(rate: int) -> Trial:
        lost = max(0, rate - true_pps)
        return Trial(rate, min(rate, sender_pps), rate, lost)

    return trial


@pytest.mark.parametrize("true", [1_000_000, 3_333_333, 9_999_999])
def test_finds_the_rate_to_within_the_resolution(true: int) -> None:
    found = search_zero_loss(wire(true), 10_000_000, resolution=0.001)
    assert true - 10_000 <= found.rate_pps <= true


@pytest.mark.parametrize("true", [148_000_000, 1_000_000, 90_000])
def test_the_resolution_is_of_the_rate_found(true: int) -> None:
    found = search_zero_loss(wire(true), 148_809_523, resolution=0.02)
    assert true - max(true * 0.021, 60_000) <= found.rate_pps <= true
    assert len(found.trials) <= 16


def test_a_wire_without_loss_takes_one_trial() -> None:
    found = search_zero_loss(wire(10**9), 14_880_952)
    assert found.rate_pps == 14_880_952
    assert len(found.trials) == 1


def test_a_wire_that_always_loses_has_no_rate() -> None:
    found = search_zero_loss(lambda rate: Trial(rate, rate, 1000, 1), 1000)
    assert found.rate_pps == 0


def test_a_sender_that_cannot_offer_the_rate_does_not_show_it() -> None:
    found = search_zero_loss(wire(10**9, sender_pps=500_000), 1_000_000, resolution=0.01)
    assert found.rate_pps <= 503_000


def test_each_rate_has_to_pass_as_often_as_asked() -> None:
    seen: list[int] = []

    def trial(rate: int) -> Trial:
        seen.append(rate)
        return Trial(rate, rate, rate, 1 if len(seen) == 2 else 0)

    found = search_zero_loss(trial, 1000, resolution=0.4, confirm=2)
    assert seen == [1000, 1000, 500, 500, 750, 750] and found.rate_pps == 750


@pytest.mark.parametrize("arguments", [(0, 0.1, 1), (10, 0, 1), (10, 1, 1), (10, 0.1, 0)])
def test_limits_that_make_no_sense(arguments: tuple[int, float, int]) -> None:
    highest, resolution, confirm = arguments
    with pytest.raises(ValueError):
        search_zero_loss(wire(1), highest, resolution=resolution, confirm=confirm)
