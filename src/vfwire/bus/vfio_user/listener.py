"""The socket file of a function: private from the start, taken over from a dead owner, never a live one."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from vfwire.errors import PermissionDenied, ResourceBusy, UsageError, VfwireError

_BACKLOG = 8


class Listener:
    """A listening, non-blocking UNIX stream socket at `path`; `close` removes the file if it is still this
    one.

    mode: permissions of the socket file (who may connect must be able to write it). Raises ResourceBusy,
    PermissionDenied or UsageError, each with a next step.
    """

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self._identity = (-1, -1)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Set before bind, the mode is the file's from its start: Linux takes it from the socket's inode.
            os.fchmod(self.socket.fileno(), mode)
            self._bind()
            self._identity = _identity(path)
            path.chmod(mode)
            self.socket.listen(_BACKLOG)
        except OSError as error:
            self.close()
            raise explain(error, path) from error
        except VfwireError:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening, and remove the file unless somebody has put another in its place."""
        if self.socket.fileno() < 0:
            return
        self.socket.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()

    def _bind(self) -> None:
        try:
            self.socket.bind(str(self.path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(self.path)
            self.socket.bind(str(self.path))


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on. Raises ResourceBusy if somebody does, or if it is no
    socket.
    """
    before = _identity(path)
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ResourceBusy(f"{path} exists and is not a socket", "choose another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            if _identity(path) == before:
                path.unlink()
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # a full backlog is somebody's
    raise ResourceBusy(f"{path} is served already", "stop the card that serves it, or choose another path")


def explain(error: OSError, path: Path) -> VfwireError:
    """The error for a person, of a socket that could not be made at `path`."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(f"no permission to make {path}", "choose a directory of your own")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return UsageError(f"{path.parent} is not a directory", "make it first")
    if error.errno == errno.EADDRINUSE:
        return ResourceBusy(f"{path} was taken by another just now", "choose another path")
    if error.errno is None or error.errno == errno.ENAMETOOLONG:
        return UsageError(f"socket path of {len(str(path))} characters is too long", "107 is the most")
    return VfwireError(f"cannot make {path}: {error.strerror}")
