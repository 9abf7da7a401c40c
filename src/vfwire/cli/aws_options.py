"""The options of every command that asks AWS; the credentials come by boto3's usual chain."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEFAULT = "[default: AWS_DEFAULT_REGION, or the profile's]"
_PROFILE = click.option("--profile", help="A profile of ~/.aws/config [default: AWS_PROFILE].")
_ENDPOINT = click.option(
    "--endpoint-url", help="Ask another endpoint than AWS's own [default: AWS_ENDPOINT_URL]."
)


def aws_options(command: _Command) -> _Command:
    """Adds --profile, --region and --endpoint-url."""
    return _PROFILE(click.option("--region", help=_DEFAULT)(_ENDPOINT(command)))


def aws_options_of_regions(command: _Command) -> _Command:
    """The same with --region as often as one likes (`regions`), and --all-regions."""
    several = click.option(
        "--region", "regions", multiple=True, help=f"With --all also several times. {_DEFAULT}"
    )
    every = click.option(
        "--all-regions", is_flag=True, help="Every instance of every region that is enabled."
    )
    return _PROFILE(several(every(_ENDPOINT(command))))
