"""The options of every command that asks AWS; the credentials come by boto3's usual chain."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--profile", help="A profile of ~/.aws/config [default: AWS_PROFILE]."),
    click.option("--region", help="[default: AWS_DEFAULT_REGION, or the profile's]"),
    click.option("--endpoint-url", help="Ask another endpoint than AWS's own [default: AWS_ENDPOINT_URL]."),
)


def aws_options(command: _Command) -> _Command:
    """Adds --profile, --region and --endpoint-url."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
