"""How commands name a card or a function of it, and reach it."""

from pathlib import Path

import click

from vfwire.devices.management import ManagementClient
from vfwire.devices.run_directory import MANAGEMENT, run_root
from vfwire.errors import PeerGone, UsageError

DIRECTORY = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The card's run directory [default: by name]."
)


def split_name(name: str) -> tuple[str, int | str | None]:
    """("card0", 3) of "card0/3", ("card0", "host"), ("card0", None) of "card0". Raises UsageError."""
    card, slash, index = name.partition("/")
    if not card or (slash and index != "host" and not (index.isdecimal() and len(index) < 4)):
        raise UsageError(f"{name!r} names no function", "write card0/0")
    if not slash:
        return card, None
    return card, index if index == "host" else int(index)


def one_function(name: str) -> tuple[str, int | str]:
    """As `split_name`, for what names a function. Raises UsageError."""
    card, index = split_name(name)
    if index is None:
        raise UsageError(f"{name} is a card, not a function", f"write {card}/0")
    return card, index


def connect(card: str, directory: Path | None) -> ManagementClient:
    """To the card of that name. Raises UsageError, PeerGone."""
    if "/" in card or card in (".", ".."):
        raise UsageError(f"{card!r} is no name for a card")
    where = directory or run_root() / card
    if not (where / MANAGEMENT).exists():
        raise PeerGone(f"no card {card!r} runs in {where}", "start it with vfwire card, or give its --dir")
    return ManagementClient(where / MANAGEMENT)
