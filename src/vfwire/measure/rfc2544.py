"""RFC 2544's throughput (section 26.1): the highest rate at which not one frame is lost, found by trials."""

from collections.abc import Callable
from dataclasses import dataclass

_OFFERED_SHARE = (
    0.995  # a trial in which the sender fell behind this share of the rate has not shown that rate
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: asked-for rate, frames a second that were really sent, frames sent and lost."""

    rate_pps: int
    sent_pps: float
    sent: int
    lost: int

    @property
    def passed(self) -> bool:
        return self.sent > 0 and self.lost == 0 and self.sent_pps >= self.rate_pps * _OFFERED_SHARE


@dataclass(frozen=True, slots=True)
class ZeroLoss:
    """The result: `rate_pps` is 0 when even the lowest rate lost frames. `trials` in the order they were
    made.
    """

    rate_pps: int
    trials: tuple[Trial, ...]


def search_zero_loss(
    trial: Callable[[int], Trial], highest_pps: int, *, resolution: float = 0.01, confirm: int = 1
) -> ZeroLoss:
    """Binary search between 0 and `highest_pps`, which is tried first, down to `resolution` of the rate found.

    Rates below the square of `resolution` of the highest are not told from 0. A rate counts once it has passed
    `confirm` trials in a row. Raises ValueError for limits that make no sense.
    """
    if highest_pps < 1 or not 0 < resolution < 1 or confirm < 1:
        raise ValueError(
            "a search wants a rate above 0, a resolution between 0 and 1, and at least one trial"
        )
    trials: list[Trial] = []

    def passes(rate: int) -> bool:
        for _ in range(confirm):
            trials.append(trial(rate))
            if not trials[-1].passed:
                return False
        return True

    if passes(highest_pps):
        return ZeroLoss(highest_pps, tuple(trials))
    good, bad = 0, highest_pps
    smallest_step = max(1.0, highest_pps * resolution**2)
    while bad - good > max(smallest_step, bad * resolution):
        middle = (good + bad) // 2
        if passes(middle):
            good = middle
        else:
            bad = middle
    return ZeroLoss(good, tuple(trials))
