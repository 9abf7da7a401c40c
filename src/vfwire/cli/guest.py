"""`vfwire guest`: a guest on a card's virtual functions; what it needs, fetched and built."""

import json
from pathlib import Path

import click


@click.group()
def guest() -> None:
    """Guests on a card: fetch a QEMU for them, build a small one from Debian's packages."""


def _progress(text: str) -> None:
    click.echo(f"vfwire: {text}", err=True)


@guest.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where to put it."
)
@click.option("--package", "extra", multiple=True, metavar="NAME", help="One more package of Debian's in it.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def build(out: Path, extra: tuple[str, ...], as_json: bool) -> None:
    """Make a small guest: Debian's cloud kernel with its modules, busybox, ethtool, iproute2, iperf3.

    Needs neither root nor a mount. What was taken is pinned in manifest.json: each package's version and SHA256.
    """
    from vfwire.guests.image import MANIFEST
    from vfwire.guests.image import build as build_image

    image = build_image(out, extra, _progress)
    manifest = image.manifest
    if as_json:
        click.echo(json.dumps({**manifest, "directory": str(out)}))
        return
    click.echo(f"{image.kernel}  Debian {manifest['release']}, kernel {manifest['kernel']}")
    click.echo(
        f"{image.initrd}  {image.initrd.stat().st_size >> 20} MiB, {len(manifest['packages'])} packages"
    )
    click.echo(f"{out / MANIFEST}  pins their versions and SHA256")


@guest.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def qemu(as_json: bool) -> None:
    """Fetch a QEMU that has vfio-user-pci, where none is installed. Needs no root; the system stays as it is."""
    from vfwire.errors import UnsupportedMachine
    from vfwire.guests.fetched_qemu import fetch_qemu
    from vfwire.guests.qemu import find_qemu

    try:
        found = find_qemu()
    except UnsupportedMachine:
        found = fetch_qemu(_progress)
    if as_json:
        click.echo(
            json.dumps({"path": str(found.path), "version": found.version, "vfio_user": found.vfio_user})
        )
    else:
        click.echo(f"QEMU {found.version}: {found.path}")
