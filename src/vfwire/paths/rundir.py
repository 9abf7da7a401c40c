"""The run directory: where the sockets of one run lie, named by its process, removed at its end or by the
next run.
"""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from vfwire.errors import UsageError

_NAME = re.compile(r"vfwire-run-(\d+)-\w+")
_LONGEST_SOCKET_PATH = 107  # unix(7): 108 bytes with the closing zero
_ROOM = 24  # for a socket's name


class RunDirectory:
    """A private directory (0700) under the system's directory for temporary files. `close` removes it, safely
    twice.

    Raises UsageError where paths would be too long for sockets.
    """

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=f"vfwire-run-{os.getpid()}-"))
        if len(os.fsencode(self.path)) + _ROOM > _LONGEST_SOCKET_PATH:
            remove_directory(self.path)
            raise UsageError(f"{self.path} is too long a path for sockets", "set TMPDIR to a shorter one")

    def close(self) -> None:
        remove_directory(self.path)


def remove_directory(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def sweep() -> None:
    """Remove what runs of ours have left that were killed with all their processes."""
    with contextlib.suppress(OSError):
        for path in Path(tempfile.gettempdir()).iterdir():
            match = _NAME.fullmatch(path.name)
            if match and not _alive(int(match[1])) and path.stat().st_uid == os.getuid():
                remove_directory(path)


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
