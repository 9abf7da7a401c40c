"""`vfwire vf event` and `vfwire vf fail`: an ENA does something of itself, or ceases to, when a driver author asks."""

from pathlib import Path

import click

from vfwire.cli.vf_name import DIRECTORY, connect, one_function
from vfwire.devices.ena_options import PARTS, SENDABLE
from vfwire.errors import UsageError


def _numbers(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    numbers = {}
    for text in values:
        name, equals, number = text.partition("=")
        if not equals or not number.isdecimal():
            raise UsageError(f"{text!r} is no value", "write netdev_wd_timeout=4000")
        numbers[name] = int(number)
    return numbers


@click.command()
@click.argument("name")
@click.argument("event_name", metavar="EVENT", type=click.Choice(list(SENDABLE)))
@DIRECTORY
@click.option("--value", "values", multiple=True, callback=_numbers, metavar="NAME=NUMBER",
              help="A hint (NOTIFICATION) or bits (CONF_NOTIFICATIONS).")  # fmt: skip
def event(name: str, event_name: str, directory: Path | None, values: dict[str, int]) -> None:
    """Send an event to the driver of an ENA (card0/0), as the device would of itself."""
    card, index = one_function(name)
    with connect(card, directory) as client:
        client.ask("event", vf=index, event=event_name, values=values)


@click.command()
@click.argument("name")
@click.argument("part", type=click.Choice(PARTS))
@DIRECTORY
def fail(name: str, part: str, directory: Path | None) -> None:
    """Let a part of an ENA (card0/0) fail until its driver resets it: does the driver notice, and recover?"""
    card, index = one_function(name)
    with connect(card, directory) as client:
        client.ask("fail", vf=index, part=part)
