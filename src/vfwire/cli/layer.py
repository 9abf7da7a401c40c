"""`vfwire layer`: one virtualization layer in this process, until it is stopped."""

from pathlib import Path

import click

from vfwire.cli.stopping import stop_signals
from vfwire.devices.settings import parse_rate


@click.command()
@click.option("--function", required=True, type=click.Path(path_type=Path),
              help="Socket of the card's host function (vfwire card --host-function).")  # fmt: skip
@click.option(
    "--listen", required=True, type=click.Path(path_type=Path), help="The socket to make for netfronts."
)
@click.option(
    "--cap", default="5G", show_default=True, help="What its systems may send together: 5G, 500M, off."
)
def layer(function: Path, listen: Path, cap: str) -> None:
    """Run a host's virtualization layer: netback, a learning bridge, and the host's port on the card.

    Systems come in at the socket that it makes: `vfwire attach SOCKET --xen --tap NAME`.
    """
    cap_bps = parse_rate(cap)
    with stop_signals() as stop:
        click.echo("vfwire: loading", err=True)
        from vfwire.paths.attach import warm_up_attach
        from vfwire.paths.layer import VirtualizationLayer
        from vfwire.paths.uplink import UplinkedLayer

        warm_up_attach(lambda part: click.echo(f"vfwire: compiling {part} (once)", err=True))
        VirtualizationLayer.warm_up(
            lambda part: click.echo(f"vfwire: compiling {part}, or loading it", err=True)
        )
        with UplinkedLayer(function, listen, cap_bps) as uplinked:
            stop.arm(uplinked.stop)
            limit = f"capped at {cap_bps / 1e9:g} Gbps" if cap_bps else "no cap"
            try:
                uplinked.run(
                    lambda: click.echo(f"layer on {function}, {limit}: netfronts connect to {listen}")
                )
            finally:
                stop.disarm()
            moved = uplinked.stats()
        click.echo(f"layer: {moved['from_vifs_frames']} frames from systems, {moved['to_vifs_frames']} to them, "
                   f"{sum(moved['drops'].values())} dropped")  # fmt: skip
