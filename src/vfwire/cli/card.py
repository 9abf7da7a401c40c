"""`vfwire card`: one card in this process, until SIGINT or SIGTERM."""

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import click

from vfwire.cli.ena_options import ena_options, read_ena_options
from vfwire.cli.stopping import stop_signals
from vfwire.devices.allowances import NAMES, Allowance, allow, parse_allowance
from vfwire.devices.card import MODEL_RATE, MOST_VFS, Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.devices.hosting import HostedCard
from vfwire.devices.link import Cable
from vfwire.devices.management import ManagementServer
from vfwire.devices.models import MODELS, one_model
from vfwire.devices.run_directory import MANAGEMENT, RunDirectory, run_root
from vfwire.devices.settings import parse_mac, parse_rate
from vfwire.devices.watching import watching
from vfwire.errors import UsageError, VfwireError
from vfwire.layouts.ixgbe_mailbox import API_15, API_20, API_NAMES

_APIS = [name for number, name in enumerate(API_NAMES) if number not in (API_15, API_20)]


def _rate(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    return MODEL_RATE if value is None else parse_rate(value)


def _model(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> str:
    return one_model(value)


def _mode(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    if not value.isdecimal() or len(value) > 4 or any(digit > "7" for digit in value):
        raise UsageError(f"{value!r} is no mode for a socket", "write it as 600 or 660")
    return int(value, 8)


def _prefix(_context: click.Context, _parameter: click.Parameter, value: str | None) -> bytes | None:
    return None if value is None else parse_mac(f"{value.rstrip(':')}:00")[:5]


def _allowances(
    _context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> list[Allowance]:
    return [parse_allowance(text) for text in value]


def _key(_context: click.Context, _parameter: click.Parameter, value: str | None) -> bytes | None:
    if value is None:
        return None
    try:
        return bytes.fromhex(value.replace(":", ""))
    except ValueError as error:
        raise UsageError("an RSS key is 40 bytes in hexadecimal") from error


@click.command()
@click.option(
    "--vfs", type=click.IntRange(1, MOST_VFS), default=4, show_default=True, help="Virtual functions."
)
@click.option("--name", default="card0", show_default=True, help="The card's name.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Run directory [default: by name].")
@click.option("--mtu", type=int, help="[default: 1500, 9216 for an ENA] Above 1500 an 82599 is a jumbo card.")
@click.option("--line-rate", "rate", callback=_rate,
              help="Of uplink and functions, or off [default: 10G, 100G for an ENA].")  # fmt: skip
@click.option("--model", type=click.Choice(list(MODELS)), multiple=True, callback=_model,
              help="Of the VFs, one for a card [default: 82599].")  # fmt: skip
@ena_options
@click.option("--allowance", "allowances", multiple=True, callback=_allowances, metavar="VF,...:LIMIT,...",
              help=f"Of an instance: {', '.join(NAMES)}; as 0,1:pps=1M,bw-in=5G.")  # fmt: skip
@click.option("--guests", is_flag=True,
              help="For stock drivers, which wait for interrupts: nap when nothing moves.")  # fmt: skip
@click.option("--exact", is_flag=True, help="Every register traps, and reserved bits read as on the chip.")
@click.option("--api-ceiling", type=click.Choice(_APIS), default=_APIS[-1], show_default=True,
              help="Highest mailbox API that the PF accepts.")  # fmt: skip
@click.option("--host-function", is_flag=True, help="One more function, for the host itself.")
@click.option(
    "--mac-prefix", callback=_prefix, metavar="02:00:00:00:01", help="First five bytes of the MACs."
)
@click.option("--rss-key", callback=_key, metavar="HEX", help="40 bytes [default: random].")
@click.option(
    "--socket-mode", "mode", default="600", show_default=True, callback=_mode, help="Of VF sockets."
)
@click.option("--link", "cable", type=click.Path(path_type=Path),
              help="Cable to a card in another process: both are given the same path.")  # fmt: skip
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write what guests and card say to each other: text, or JSON Lines for FILE.jsonl.")  # fmt: skip
@click.option("--pcap", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Capture the functions' frames as pcapng.")  # fmt: skip
@click.option("--pcap-vf", "captured", type=click.IntRange(0, MOST_VFS), multiple=True,
              help="Only this VF's frames; may be given several times.")  # fmt: skip
@click.option("--core", type=int, help="Pin the card's loop to this core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def card(
    vfs: int,
    name: str,
    directory: Path | None,
    mtu: int | None,
    rate: int | None,
    cable: Path | None,
    core: int | None,
    trace: Path | None,
    pcap: Path | None,
    captured: tuple[int, ...],
    mode: int,
    as_json: bool,
    host_function: bool,
    allowances: list[Allowance],
    guests: bool,
    **rest: Any,
) -> None:
    """Run a card: its virtual functions on sockets, until it is stopped (Ctrl-C, SIGTERM).

    QEMU 10.1 and later attaches a function with the option that is printed; `vfwire vf` changes it meanwhile.
    """
    ena = read_ena_options(rest)
    with contextlib.ExitStack() as stack:
        stop, stopped = stack.enter_context(stop_signals()), threading.Event()
        engine = Engine([functions_of(vfs, host_function=host_function)], pin=core, polled=not guests)
        stack.callback(engine.close)
        made = Card(
            engine, 0, name, vfs, mtu=mtu, line_rate_bps=rate, host_function=host_function, ena=ena, **rest
        )
        for allowance in allowances:
            allow(made, allowance)
        run = RunDirectory(directory or run_root() / name)
        stack.callback(run.close)
        click.echo("vfwire: compiling the card's loop, or loading it ...", err=True)
        engine.warm_up()
        engine.start()
        stop.arm(stopped.set)
        wrap = stack.enter_context(watching(made, trace, pcap, captured))
        hosted = HostedCard(made, run.path, mode=mode, wrap=wrap)
        stack.callback(hosted.close)
        if cable is not None:
            stack.callback(Cable(made, cable).close)
        manager = ManagementServer(run.path / MANAGEMENT, _verbs(hosted, stopped))
        stack.callback(manager.close)
        _print(hosted.describe(), as_json)
        _wait_stopped(stopped, engine)


def _wait_stopped(stopped: threading.Event, engine: Engine) -> None:
    """Until somebody asks for the end, or the loop has ended by itself, which is an error."""
    while not stopped.wait(1.0):
        if not engine.running:
            raise VfwireError("the card's loop has ended by itself", "see the log above")


def _verbs(hosted: HostedCard, stopped: threading.Event) -> dict[str, Any]:
    def change(request: dict[str, Any]) -> Any:
        changes = request.get("changes")
        if not isinstance(changes, dict) or not changes:
            raise UsageError("a request to set has changes")
        return hosted.card.change(request.get("vf", ""), changes).to_json()

    def send_event(request: dict[str, Any]) -> str:
        values = request.get("values", {})
        if not isinstance(values, dict) or any(type(value) is not int for value in values.values()):
            raise UsageError("an event's values are numbers by name")
        hosted.card.function(request.get("vf", "")).send_event(str(request.get("event")), values)
        return "sent"

    def fail(request: dict[str, Any]) -> str:
        hosted.card.function(request.get("vf", "")).fail(str(request.get("part")))
        return "failing"

    def stop(_request: dict[str, Any]) -> str:
        stopped.set()
        return "stopping"

    return {
        "show": lambda _request: hosted.describe(),
        "counters": lambda _request: hosted.counters(),
        "set": change,
        "event": send_event,
        "fail": fail,
        "stop": stop,
    }


def _print(described: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(described))
    else:
        rate = described["line_rate_bps"]
        speed = f"{rate / 1e9:g} Gbps" if rate else "no line rate"
        click.echo(f"{described['card']}: {described['model']}, MTU {described['mtu']}, {speed}")
        for vf in described["vfs"]:
            click.echo(f"  {vf['name']}  {vf['address']}  {vf['mac']}  {vf['socket']}")
            click.echo(f"    {vf['qemu']}")
        click.echo(f"QEMU needs shared memory, too: {described['qemu_memory']}")
        click.echo("Stop with Ctrl-C.")
    sys.stdout.flush()
