"""`vfwire vf`: what `ip link show` and `ip link set … vf` are for a card, for one of ours."""

import json
from pathlib import Path
from typing import Any

import click

from vfwire.cli.vf_events import event, fail
from vfwire.cli.vf_name import DIRECTORY, connect, one_function, split_name
from vfwire.devices.run_directory import living_cards, run_root
from vfwire.devices.settings import LINK_STATES
from vfwire.errors import PeerGone, UsageError

_SWITCH = click.Choice(["on", "off"])


@click.group()
def vf() -> None:
    """Show and change the virtual functions of a running card."""


@vf.command()
@click.argument("name", required=False)
@DIRECTORY
@click.option("--counters", is_flag=True, help="Counters and drops by cause as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str | None, directory: Path | None, counters: bool, as_json: bool) -> None:
    """Show all cards, one card (card0), or one function (card0/0)."""
    cards = [(name, directory)] if name else [(path.name, path) for path in living_cards(run_root())]
    if not cards:
        raise PeerGone(f"no card runs in {run_root()}", "start one with vfwire card")
    shown = [_ask(card, where, counters) for card, where in cards]
    if as_json:
        click.echo(json.dumps(shown[0] if name else {"cards": shown}))
        return
    for described in shown:
        _print_card(described)


def _ask(name: str, directory: Path | None, counters: bool) -> dict[str, Any]:
    """What a card says of itself, only the function that `name` names of it."""
    card, index = split_name(name)
    with connect(card, directory) as client:
        described: dict[str, Any] = client.ask("show")
        counted = client.ask("counters") if counters else None
    if index is not None:
        described["vfs"] = [vf for vf in described["vfs"] if vf["vf"] == index]
        if not described["vfs"]:
            raise UsageError(f"{card} has no VF {index}", f"vfwire vf show {card} lists them")
    if counted is not None:
        for function in described["vfs"]:
            function["counters"] = counted["vfs"][str(function["vf"])]
        described["counters"] = {key: value for key, value in counted.items() if key not in ("card", "vfs")}
    return described


def _print_card(described: dict[str, Any]) -> None:
    rate = described["line_rate_bps"]
    click.echo(
        f"{described['card']}: {described['model']}  mtu {described['mtu']}  "
        f"rate {f'{rate / 1e9:g}G' if rate else 'off'}  link {'up' if described['link_up'] else 'down'}"
    )
    for function in described["vfs"]:
        switches = " ".join(
            f"{name} {'on' if function[name] else 'off'}" for name in ("spoofchk", "trust", "query_rss")
        )
        rate = f"{function['max_tx_rate']} Mbps" if function["max_tx_rate"] else "none"
        click.echo(
            f"  {function['name']}  {function['address']}  mac {function['active_mac']}  vlan {function['vlan']} "
            f"qos {function['qos']}  {switches}  state {function['state']}  max_tx_rate {rate}  "
            f"{'in use' if function['in_use'] else 'free'}"
        )
        click.echo(f"    {function['socket']}")
        if function.get("host"):
            host = function["host"]
            click.echo(
                f"    driven by {host['os']} {host['release']} ({host['build']}), driver {host['driver_version']}"
            )
        _print_counters(function.get("counters"))


def _print_counters(counters: dict[str, Any] | None) -> None:
    if counters is None:
        return
    plain = {key: value for key, value in counters.items() if key not in ("drops", "fault")}
    click.echo("    " + "  ".join(f"{key} {value}" for key, value in plain.items()))
    for cause, count in counters["drops"].items():
        click.echo(f"    dropped: {count} ({cause})")
    if counters["fault"]:
        click.echo(f"    stopped: {counters['fault']}")


@vf.command(name="set")
@click.argument("name")
@DIRECTORY
@click.option("--mac", help="Six bytes; all zeros for none.")
@click.option("--vlan", type=int, help="Port VLAN, 0 for none.")
@click.option("--qos", type=int, help="Priority in the port VLAN's tag, 0 to 7.")
@click.option("--spoofchk", type=_SWITCH, help="Check the sender's MAC and VLAN.")
@click.option(
    "--trust", type=_SWITCH, help="May change its MAC and hear all multicast; an ENA hears everything."
)
@click.option("--query-rss", type=_SWITCH, help="May ask for the RSS table and key.")
@click.option("--state", type=click.Choice(LINK_STATES), help="Link state.")
@click.option("--max-tx-rate", type=int, help="Mbps, 0 for the line rate.")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as one JSON object.")
def set_(name: str, directory: Path | None, as_json: bool, **options: Any) -> None:
    """Change settings of a function (card0/0) while traffic runs."""
    card, index = one_function(name)
    changes = {key: value for key, value in options.items() if value is not None}
    if not changes:
        raise UsageError("there is nothing to set", "see vfwire vf set --help")
    with connect(card, directory) as client:
        settings = client.ask("set", vf=index, changes=changes)
    if as_json:
        click.echo(json.dumps(settings))


vf.add_command(event)
vf.add_command(fail)
