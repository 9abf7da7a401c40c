"""`vfwire attach`: a virtual function, or a netfront, as a network interface of this machine, until it is stopped."""

from pathlib import Path

import click

from vfwire.cli.stopping import stop_signals
from vfwire.errors import UsageError


@click.command()
@click.argument("socket", type=click.Path(path_type=Path))
@click.option("--tap", "name", required=True, metavar="NAME", help="The interface to make.")
@click.option("--netns", metavar="NAME", help="In this network namespace (see ip netns).")
@click.option("--mtu", type=int, help="1500, or what the layer has, unless told otherwise.")
@click.option("--queues", type=click.Choice(["1", "2", "4"]), default="1", show_default=True,
              help="Receive queues of the VF.")  # fmt: skip
@click.option(
    "--xen", is_flag=True, help="SOCKET is a virtualization layer's (vfwire layer): the default path."
)
@click.option("--no-offloads", is_flag=True, help="Leave checksums and segmentation to the kernel.")
def attach(
    socket: Path, name: str, netns: str | None, mtu: int | None, queues: str, xen: bool, no_offloads: bool
) -> None:
    """Put the function behind SOCKET on a tap, so that the kernel's own traffic crosses it.

    The interface has the function's MAC address (a card drops what comes from another one) and follows its link. It
    goes when this ends: Ctrl-C, SIGTERM, or the card's own end. Give it an address with `ip address add`.
    """
    if xen and queues != "1":
        raise UsageError("a netfront has one queue", "leave --queues out")
    with stop_signals() as stop:
        click.echo("vfwire: loading", err=True)
        from vfwire.bus.vfio_user.connection import check_socket
        from vfwire.paths.attach import Attachment, open_netfront, open_vf, warm_up_attach

        if not xen:
            check_socket(socket)  # told before anything is compiled
        warm_up_attach(lambda part: click.echo(f"vfwire: compiling {part} (once)", err=True))
        driver, pool = (
            open_netfront(socket, mtu) if xen else open_vf(socket, 1500 if mtu is None else mtu, int(queues))
        )
        with pool, driver, Attachment(driver, name, netns, offloads=not no_offloads) as attachment:
            stop.arm(attachment.stop)
            where = f" in {netns}" if netns else ""
            click.echo(
                f"{name}{where}: {driver.info.driver} on {socket}, {driver.mac.hex(':')}, MTU {driver.mtu}"
            )
            try:
                attachment.run(lambda up: click.echo(f"{name}: link {'up' if up else 'down'}"))
            finally:
                stop.disarm()
            moved = attachment.stats()
        click.echo(f"{name}: {moved['from_tap']} frames out, {moved['to_tap']} in, "
                   f"{moved['from_tap_dropped'] + moved['to_tap_dropped']} dropped")  # fmt: skip
