"""A QEMU with vfio-user out of Debian's packages, unpacked beside the system: no root, no library of it touched."""

import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from vfwire.errors import UnsupportedMachine
from vfwire.guests.cache import held
from vfwire.guests.packages import Archive, unpack
from vfwire.guests.qemu import PROGRAM, Qemu, fetched_qemu, look_at

PACKAGES = ("qemu-system-x86", "qemu-utils", "seabios", "ovmf")
_PROGRAMS = (PROGRAM, "qemu-img")
_FIRMWARE = ("qemu", "seabios", "ovmf", "OVMF")

# Debian's name, loader and library directory for what uname calls the machine.
_MACHINES = {
    "x86_64": ("amd64", "lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
    "aarch64": ("arm64", "lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
}

# Started through the loader that came with it: it meets its own libraries, whatever the system's are.
_WRAPPER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")/root
export QEMU_MODULE_DIR="$here/usr/lib/{triplet}/qemu"
exec "$here/usr/{loader}" --argv0 {program} --library-path "$here/usr/lib/{triplet}" \\
    "$here/usr/bin/{program}" {options}"$@"
"""


def fetch_qemu(progress: Callable[[str], None] = lambda _text: None) -> Qemu:
    """Fetch, unpack and try it. Raises UnsupportedMachine, and what `Archive` raises."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise UnsupportedMachine(
            f"no QEMU is known for {machine}", "install QEMU 10.1 or later by other means"
        )
    architecture, loader, triplet = _MACHINES[machine]
    progress("fetching QEMU and its libraries from Debian")
    files = Archive(newer=True, architecture=architecture).fetch(PACKAGES)
    version = next(package.version for package in files if package.name == PACKAGES[0])
    base = fetched_qemu().parent.parent
    with held(base):
        place = base / version.replace(":", "-")
        if not (place / "packages.json").exists():
            progress(f"unpacking QEMU {version}")
            shutil.rmtree(place, ignore_errors=True)
            unpack(files.values(), place / "root")
            for program in _PROGRAMS:
                _write_wrapper(place, program, loader, triplet)
            manifest = [package.to_json() for package in files]
            (place / "packages.json").write_text(json.dumps(manifest, indent=1) + "\n")
        _point_to(place)
    qemu = look_at(fetched_qemu())
    if not qemu.vfio_user:
        raise UnsupportedMachine(
            f"the fetched {qemu} is of no use here", "install QEMU 10.1 or later by other means"
        )
    return qemu


def _write_wrapper(place: Path, program: str, loader: str, triplet: str) -> None:
    folders = [f'-L "$here/usr/share/{name}" ' for name in _FIRMWARE] if program == PROGRAM else []
    text = _WRAPPER.format(program=program, loader=loader, triplet=triplet, options="".join(folders))
    (place / program).write_text(text)
    (place / program).chmod(0o755)


def _point_to(place: Path) -> None:
    """`current` leads to the newest, at every moment."""
    link = place.parent / f"current.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(place.name)
    link.replace(place.parent / "current")
