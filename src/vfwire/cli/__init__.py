"""Floor 5: the command line, a file for each command, imported when it is called."""

import importlib
import logging
import os
import sys
from typing import Any

import click

from vfwire import __version__
from vfwire.errors import UnsupportedMachine, VfwireError

COMMANDS = {
    "compare": ("vfwire.cli.compare", "Measure the default and the enhanced path, side by side."),
    "card": ("vfwire.cli.card", "Run a card until it is stopped."),
    "attach": ("vfwire.cli.attach", "Put a function on a network interface."),
    "guest": ("vfwire.cli.guest", "Run a guest on a card's virtual functions, or make one."),
    "image": ("vfwire.cli.image", "Will an image come up on EC2: boot it as EC2 would, and watch."),
    "layer": ("vfwire.cli.layer", "Run a virtualization layer: the default path's stop."),
    "catalog": ("vfwire.cli.catalog", "Which EC2 instance types have enhanced networking."),
    "sriov": ("vfwire.cli.sriov", "Change this host's physical and virtual functions."),
    "verify": ("vfwire.cli.verify", "Is enhanced networking on: this host's interfaces, and why."),
    "ec2": ("vfwire.cli.ec2", "Check EC2 instances and AMIs for enhanced networking, and turn it on."),
    "vf": ("vfwire.cli.vf", "Show and change the virtual functions of a running card."),
}
INTERRUPTED = 130
BROKEN_PIPE = 141
_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())  # from click 8.2 on


class LazyGroup(click.Group):
    """Knows its commands by name and short help; imports the module of the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vfwire")
@click.option("-v", "--verbose", count=True, help="Log more (twice: everything).")
def group(verbose: int) -> None:
    """The shortest wire between two systems: a software SR-IOV card, and what it saves over the default path."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="vfwire: %(message)s", stream=sys.stderr)
    logging.getLogger("numba").setLevel(logging.WARNING)


def main(arguments: list[str] | None = None) -> None:
    """The entry point: runs a command and exits. Errors are one line on stderr, each kind with its exit code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """What `main` exits with: 0, an error's own exit code (errors.py), or 130 when interrupted."""
    try:
        if not sys.platform.startswith("linux"):
            raise UnsupportedMachine("vfwire runs on Linux only", "run it on a Linux machine")
        result: Any = group.main(arguments, prog_name="vfwire", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except VfwireError as error:
        return _complain(str(error), error.exit_code)
    except click.UsageError as error:
        if error.ctx is not None and isinstance(error, _NO_ARGUMENTS):
            click.echo(error.ctx.get_help(), err=True)
            return int(error.exit_code)
        where = error.ctx.command_path if error.ctx else "vfwire"
        return _complain(f"{error.format_message().rstrip('.')}; see {where} --help", 2)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing more to flush
        return BROKEN_PIPE


def _complain(text: str, code: int) -> int:
    click.echo("vfwire: " + " ".join(text.split()), err=True)
    return code
