"""The models that a card's functions can be of: one row each. A card has one model, since a system is on one or the
other and never on both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vfwire.devices.ena import VirtualFunctionEna
from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.engine import Engine
from vfwire.devices.function import CardFunction
from vfwire.devices.ixgbevf import VirtualFunction82599
from vfwire.devices.pf_port import PfPort
from vfwire.errors import UsageError
from vfwire.layouts.ena_admin import LINK_SPEEDS
from vfwire.layouts.ethernet import STANDARD_MTU

Build = Callable[[Engine, int, PfPort, str, bool, EnaOptions], CardFunction]
_FOUR_QUEUES_UP_TO = 31  # VFs, beyond which the 82599 has two queues for each (datasheet 7.10.2.7.2, pools)


@dataclass(frozen=True, slots=True)
class Model:
    """line_rate_bps, mtu: unless somebody sets others, up to most_bps and largest_mtu. queues: pairs of each VF, by the
    number of VFs. filters: a driver asks its PF for VLANs, groups and frame sizes; else it has all of them, and hears
    what is sent to others where it is trusted. clocked: its functions do something by the clock.
    """

    line_rate_bps: int
    most_bps: int
    mtu: int
    largest_mtu: int
    queues: Callable[[int, EnaOptions], int]
    filters: bool
    clocked: bool
    build: Build


def _build_82599(
    engine: Engine, function: int, port: PfPort, name: str, exact: bool, _ena: EnaOptions
) -> CardFunction:
    return VirtualFunction82599(engine, function, port, name, exact=exact)


def _build_ena(
    engine: Engine, function: int, port: PfPort, name: str, exact: bool, ena: EnaOptions
) -> CardFunction:
    return VirtualFunctionEna(engine, function, port, name, ena, exact=exact)


MODELS = {
    "82599": Model(
        line_rate_bps=10_000_000_000,
        most_bps=10**12,
        mtu=STANDARD_MTU,
        largest_mtu=9710,
        queues=lambda vfs, _ena: 4 if vfs <= _FOUR_QUEUES_UP_TO else 2,
        filters=True,
        clocked=False,
        build=_build_82599,
    ),
    "ena": Model(
        line_rate_bps=100_000_000_000,
        most_bps=max(LINK_SPEEDS.values()),
        mtu=9216,
        largest_mtu=9216,
        queues=lambda _vfs, ena: ena.queues,
        filters=False,
        clocked=True,
        build=_build_ena,
    ),
}


_INSTEAD = {
    "card": "start one card for each model, and join them with --link",
    "guest": "give it functions of cards of one model, and the other model to another guest",
}


def model_named(name: str) -> Model:
    """Raises UsageError where there is none of that name."""
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r} of a VF", f"choose among {', '.join(MODELS)}")
    return MODELS[name]


def one_model(names: Sequence[str], whose: str = "card") -> str:
    """The one model that somebody asked for, the 82599 where nobody did. whose: "card" or "guest".

    Raises UsageError for several.
    """
    asked = list(dict.fromkeys(names))
    if len(asked) > 1:
        raise UsageError(
            f"a {whose} is of one model, not of {' and '.join(asked)}: a system is on one of them, never on both",
            _INSTEAD[whose],
        )
    return asked[0] if asked else "82599"
