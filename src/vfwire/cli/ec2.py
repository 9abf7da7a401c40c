"""`vfwire ec2`: what instances and AMIs have, and turning it on."""

import importlib
from typing import Any

import click

_COMMANDS = {
    "check": ("vfwire.cli.ec2_check", "Does it? One verdict for each instance or AMI."),
    "enable": ("vfwire.cli.ec2_enable", "Turn it on: the plan, and carrying it out."),
}


class _Lazy(click.Group):
    """Imports the module of the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: Any = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_Lazy)
def ec2() -> None:
    """What EC2 instances and AMIs have of enhanced networking, and turning it on."""
