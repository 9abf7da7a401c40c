"""One initrd out of several: the kernel unpacks archives that stand one after the other, each over those before it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vfwire.guests.cpio import CpioWriter
from vfwire.guests.machine import Machine

_ALIGNMENT = 4


@contextlib.contextmanager
def joined_initrd(machine: Machine) -> Iterator[tuple[Path | None, list[int]]]:
    """The path to give to QEMU (None without initrds), and descriptors that it must inherit. Nothing is left behind."""
    if not machine.files and len(machine.initrds) < 2:
        yield (machine.initrds[0] if machine.initrds else None), []
        return
    descriptor = os.memfd_create("vfwire-initrd", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            for path in machine.initrds:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, stream)
                stream.write(bytes(-stream.tell() % _ALIGNMENT))
            if machine.files:
                with CpioWriter(stream) as archive:
                    for at, source_path in machine.files.items():
                        _add(archive, at.strip("/"), source_path)
        yield Path(f"/dev/fd/{descriptor}"), [descriptor]
    finally:
        os.close(descriptor)


def _add(archive: CpioWriter, at: str, source: Path) -> None:
    if source.is_dir():
        archive.directory(at)
        archive.tree(source, at=at)
    else:
        archive.file(at, source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)
