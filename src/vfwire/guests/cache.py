"""Where packages, a fetched QEMU and built guests are kept: `$XDG_CACHE_HOME/vfwire`, or `~/.cache/vfwire`."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from vfwire.errors import PermissionDenied


def cache_directory(*parts: str) -> Path:
    """A directory of this user's cache, made if need be. Raises PermissionDenied."""
    base = os.environ.get("XDG_CACHE_HOME")
    path = (Path(base) if base else Path.home() / ".cache").joinpath("vfwire", *parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionDenied(
            f"cannot use {path}: {error.strerror}", "set XDG_CACHE_HOME to a directory of yours"
        ) from error
    return path


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """One process at a time works in `directory`; others wait until it is done."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
