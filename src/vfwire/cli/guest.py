"""`vfwire guest`: a guest on a card's virtual functions; what it needs, fetched and built."""

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vfwire.cli.stopping import stop_signals
from vfwire.errors import UsageError

if TYPE_CHECKING:
    from vfwire.guests.guest import Guest
    from vfwire.guests.machine import Machine

_FILE = click.Path(path_type=Path)
_ACCELERATORS = ("auto", "kvm", "tcg")
_READY_SECONDS = 120.0


def _memory(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """MiB of "512", "512M" or "2G"."""
    found = re.fullmatch(r"(\d{1,7})([MG]?)", value)
    if found is None:
        raise UsageError(f"{value!r} is no size of memory", "write it as 512M or 2G")
    return int(found[1]) * (1024 if found[2] == "G" else 1)


@click.group(invoke_without_command=True)
@click.option(
    "--vf", "vfs", multiple=True, metavar="CARD/N", help="A function, card0/0 or its socket's path. Repeat."
)
@click.option(
    "--kernel", type=_FILE, help="A Linux kernel [default: the small guest of `vfwire guest build`]."
)
@click.option("--initrd", "initrds", type=_FILE, multiple=True, help="Its initrd. Repeat: they are joined.")
@click.option("--disk", type=_FILE, help="Start from this disk image instead (raw or qcow2).")
@click.option("--image", type=_FILE, help="A directory that `vfwire guest build` has filled.")
@click.option("--name", default="guest", show_default=True)
@click.option("--vcpus", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--memory", default="512M", show_default=True, callback=_memory)
@click.option("--append", default="", metavar="WORDS", help="More words for the kernel's command line.")
@click.option(
    "--address", "addresses", multiple=True, metavar="eth0:ADDRESS/BITS", help="Set by the small guest."
)
@click.option(
    "--nic", "nics", multiple=True, metavar="NETDEV", help="A virtio-net on a QEMU -netdev: tap,ifname=t0"
)
@click.option(
    "--qemu", "chosen", type=_FILE, envvar="VFWIRE_QEMU", help="This QEMU [default: one that is fit]."
)
@click.option("--accel", type=click.Choice(_ACCELERATORS), default="auto", show_default=True)
@click.option(
    "--run", "command", metavar="COMMAND", help="Run this in the small guest, print what it says, end."
)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds that --run may take.")
@click.option(
    "--print", "show_line", is_flag=True, help="Print QEMU's line, and Cloud Hypervisor's; start nothing."
)
@click.option("--libvirt", is_flag=True, help="Print libvirt's domain XML; start nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --run or --print: one JSON object.")
@click.pass_context
def guest(context: click.Context, /, **options: Any) -> None:
    """Start a guest on virtual functions of a running card; its console is here. Ctrl-] ends it.

    The guest may be any x86-64 Linux; its own ixgbevf (or ena) binds. KVM is used where it works.
    """
    if context.invoked_subcommand is None:
        context.exit(_start(**options))


def _start(
    command: str | None, chosen: Path | None, accel: str, timeout: float, as_json: bool, libvirt: bool,
    show_line: bool, **rest: Any,
) -> int:  # fmt: skip
    from vfwire.guests.guest import Guest
    from vfwire.guests.qemu import find_qemu

    if as_json and not (command or show_line):
        raise UsageError("--json is for --run and --print", "a console is no JSON")
    begin = time.monotonic()
    qemu = find_qemu(chosen)
    machine = _machine(small=command is not None, **rest)
    if show_line or libvirt:
        _print_lines(qemu, machine, accel, libvirt, as_json)
        return 0
    from vfwire.cli.guest_console import show

    with stop_signals() as stop:
        hand_on = None if command else show
        with Guest(machine, qemu=qemu, accelerator=accel, hand_on=hand_on, note=_progress) as running:
            _progress(
                f"QEMU {qemu.version}, {running.accelerator}{'' if command else '; Ctrl-] ends the guest'}"
            )
            if command:
                return _run(running, command, timeout, begin, as_json)
            ended: list[bool] = []
            stop.arm(lambda: ended.append(True))
            return _stay(running, (bool(ended) for _ in itertools.count()))


def _run(running: "Guest", command: str, timeout: float, begin: float, as_json: bool) -> int:
    """Run one command; its exit code becomes ours."""
    _progress("the guest starts")
    running.wait_ready(_READY_SECONDS)
    ready = time.monotonic() - begin
    done = running.run(command, timeout)
    if as_json:
        seconds = {"ready_s": round(ready, 2), "answered_s": round(time.monotonic() - begin, 2)}
        answer = {
            "output": done.output,
            "exit_code": done.code,
            "accelerator": running.accelerator,
            **seconds,
        }
        click.echo(json.dumps(answer))
    else:
        click.echo(done.output, nl=False)
    return done.code


def _stay(running: "Guest", stopped: Iterator[bool]) -> int:
    """The console, to the end of the guest. Raises why it ended, unless it powered itself off or was told to end."""
    from vfwire.cli.guest_console import relay

    relay(running, stopped)
    if running.alive:
        if running.machine.disk is not None:
            _progress("pressing the power button; the guest has 30 s")
            running.power_off()
        return 0
    if running.end is not None:
        raise running.end
    return 0


def _machine(
    *, small: bool, vfs: tuple[str, ...], kernel: Path | None, initrds: tuple[Path, ...], disk: Path | None,
    image: Path | None, memory: int, **rest: Any,
) -> "Machine":  # fmt: skip
    from vfwire.guests.image import QUICK_BOOT, Image, cached_image
    from vfwire.guests.machine import Machine
    from vfwire.guests.models import check_one_model

    if small and (kernel or disk):
        raise UsageError("--run needs the small guest", "leave --kernel and --disk out")
    functions = tuple(_socket(vf) for vf in vfs)
    check_one_model(functions)
    if kernel is None and disk is None:
        built = Image(image) if image else cached_image(progress=_progress)
        if not built.whole:
            raise UsageError(f"{image} holds no built guest", f"fill it: vfwire guest build --out {image}")
        kernel, initrds = built.program, (built.initrd, *initrds)
        rest["append"] = f"{QUICK_BOOT} {rest['append']}".strip()
    return Machine(kernel=kernel, initrds=initrds, disk=disk, functions=functions, memory_mib=memory, **rest)


def _socket(vf: str) -> Path:
    """The socket of "card0/0"; a path stays what it is."""
    from vfwire.devices.run_directory import run_root, vf_socket

    if vf.endswith(".sock"):
        return Path(vf)
    card, slash, index = vf.partition("/")
    if not card or not slash or not index.isdecimal():
        raise UsageError(f"{vf!r} names no function", "write card0/0, or its socket's path")
    return vf_socket(run_root() / card, int(index))


def _print_lines(qemu: Any, machine: "Machine", accel: str, libvirt: bool, as_json: bool) -> None:
    from vfwire.guests import formats
    from vfwire.guests.accelerator import candidates

    accelerator = candidates(accel)[0]
    if libvirt:
        click.echo(formats.libvirt_xml(qemu, machine, accelerator))
        return
    line = formats.qemu_words(qemu, machine, accelerator)
    other = formats.cloud_hypervisor_words(machine)
    if as_json:
        note = formats.CLOUD_HYPERVISOR_NOTE
        click.echo(json.dumps({"qemu": line, "cloud_hypervisor": other, "cloud_hypervisor_note": note}))
        return
    click.echo(f"{formats.shell_line(line)}\n\n# {formats.CLOUD_HYPERVISOR_NOTE}")
    click.echo(formats.shell_line(other))


def _progress(text: str) -> None:
    click.echo(f"vfwire: {text}\r", err=True)


@guest.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where to put it."
)
@click.option("--package", "extra", multiple=True, metavar="NAME", help="One more package of Debian's in it.")
@click.option(
    "--with-python", is_flag=True, help="Python, NumPy, Numba and vfwire, too: for our own drivers."
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def build(out: Path, extra: tuple[str, ...], with_python: bool, as_json: bool) -> None:
    """Make a small guest: Debian's cloud kernel with its modules, busybox, ethtool, iproute2, iperf3.

    Needs neither root nor a mount. What was taken is pinned in manifest.json: each package's version and SHA256.
    """
    from vfwire.guests.image import MANIFEST
    from vfwire.guests.image import build as build_image
    from vfwire.guests.python import build_with_python

    image = (build_with_python if with_python else build_image)(out, extra, _progress)
    manifest = image.manifest
    if as_json:
        click.echo(json.dumps({**manifest, "directory": str(out)}))
        return
    click.echo(f"{image.kernel}  Debian {manifest['release']}, kernel {manifest['kernel']}")
    if image.program != image.kernel:
        click.echo(f"{image.program}  the same kernel, unpacked: what a guest starts from")
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
