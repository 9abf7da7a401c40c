"""Options of `vfwire card` that say what an ENA shall be: for who writes a driver and wants to try its other paths."""

from collections.abc import Callable
from typing import Any

import click

from vfwire.devices.ena_options import DEVICES, REMOVABLE, EnaOptions, check_options, parse_version

_DEFAULTS = EnaOptions()
_NAMES = ("device", "version", "controller", "readless", "queues", "burst", "without")


def ena_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, for a command whose keyword arguments `read_ena_options` takes them out of."""
    options = (
        click.option("--ena-device", type=click.Choice(list(DEVICES)), default="ec20", show_default=True,
                     help="ENA: PCI device ID."),
        click.option("--ena-version", default="0.10", show_default=True, help="ENA: interface version."),
        click.option("--ena-controller", default="0.0.1", show_default=True, help="ENA: controller version."),
        click.option("--ena-readless/--ena-readable", default=True, show_default=True,
                     help="ENA: registers are read by DMA, or by reading them (PCI revision 0 or 1)."),
        click.option("--ena-queues", type=int, default=_DEFAULTS.queues, show_default=True,
                     help="ENA: queue pairs of each VF."),
        click.option("--ena-burst", type=int, default=0, metavar="BYTES",
                     help="ENA: most that a low-latency queue takes between two doorbells; --exact counts who "
                     "announces more [default: no limit]."),
        click.option("--ena-without", type=click.Choice(REMOVABLE), multiple=True, metavar="NAME",
                     help="ENA: a feature, capability or event group that it shall not have."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def read_ena_options(arguments: dict[str, Any]) -> EnaOptions:
    """Take the options out of a command's arguments. Raises UsageError."""
    given = {name: arguments.pop(f"ena_{name}") for name in _NAMES}
    given["device"] = DEVICES[given["device"]]
    given["version"] = parse_version(given["version"], 2)
    given["controller"] = parse_version(given["controller"], 3)
    given["without"] = frozenset(given["without"])
    options = EnaOptions(**given)
    check_options(options)
    return options
