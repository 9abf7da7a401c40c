"""Find a QEMU that can attach a vfio-user function (`vfio-user-pci`, QEMU 10.1 and later), or say how to get one."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vfwire.errors import UnsupportedMachine
from vfwire.guests.cache import cache_directory

PROGRAM = "qemu-system-x86_64"
VARIABLE = "VFWIRE_QEMU"
GET_ONE = "get one with `vfwire guest qemu` (Debian's packages, no root needed)"
_OLDEST = "10.1"
_DEVICE = re.compile(r'^name "vfio-user-pci"', re.MULTILINE)
_SECONDS = 30.0


@dataclass(frozen=True)
class Qemu:
    """A QEMU and what it can do. version: as it says, "" when it does not start."""

    path: Path
    version: str
    vfio_user: bool

    def __str__(self) -> str:
        what = f"version {self.version}" if self.version else "does not start"
        return f"{self.path} ({what}{'' if self.vfio_user or not self.version else ', no vfio-user-pci'})"


def fetched_qemu() -> Path:
    """Where `vfwire guest qemu` puts one."""
    return cache_directory("qemu") / "current" / PROGRAM


def find_qemu(chosen: Path | None = None) -> Qemu:
    """The QEMU to use: `chosen`, or $VFWIRE_QEMU, or the first fit one on PATH, or the fetched one.

    Raises UnsupportedMachine, naming those that were found and why they will not do.
    """
    named = chosen or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    places = [named] if named else [*_on_path(), fetched_qemu()]
    found = [look_at(place) for place in places if place.exists()]
    for qemu in found:
        if qemu.vfio_user:
            return qemu
    if named and not found:
        raise UnsupportedMachine(f"there is no {named}", GET_ONE)
    seen = ", ".join(map(str, found)) or f"no {PROGRAM} is on PATH"
    raise UnsupportedMachine(
        f"guests need QEMU {_OLDEST} or later with vfio-user-pci; found: {seen}", GET_ONE
    )


def look_at(path: Path) -> Qemu:
    """Ask a QEMU what it is."""
    version = re.search(r"version (\d+(?:\.\d+)+)", _ask(path, "--version"))
    if version is None:
        return Qemu(path, "", vfio_user=False)
    return Qemu(path, version[1], vfio_user=bool(_DEVICE.search(_ask(path, "-device", "help"))))


def _on_path() -> list[Path]:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    hits = (shutil.which(PROGRAM, path=folder) for folder in folders)
    return [Path(hit) for hit in dict.fromkeys(hits) if hit]


def _ask(path: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [str(path), *arguments], capture_output=True, text=True, check=False, timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
