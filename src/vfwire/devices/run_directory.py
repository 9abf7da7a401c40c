"""Where a card's sockets lie: `$XDG_RUNTIME_DIR/vfwire/<card>`, or `/run/vfwire/<card>` for root.

A card holds a lock on its directory while it lives. A directory without a holder is what a killed card has
left: the next card of that name clears it away.
"""

import errno
import fcntl
import os
import stat
from pathlib import Path

from vfwire.errors import PermissionDenied, ResourceBusy, UnsupportedMachine, UsageError

LOCK = "card.lock"
MANAGEMENT = "manage.sock"
_LONGEST_SOCKET_PATH = 107  # unix(7): 108 bytes with the closing zero
_LONGEST_NAME = len("/manage.sock")


def run_root() -> Path:
    """The directory of all of this user's cards. Raises UnsupportedMachine where there is no place for it."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "vfwire"
    if os.geteuid() == 0:
        return Path("/run/vfwire")
    raise UnsupportedMachine("XDG_RUNTIME_DIR is not set", "set it, or say where with --dir")


def vf_socket(directory: Path, index: int | str) -> Path:
    """The socket of VF `index` (or "host")."""
    return directory / (f"vf{index}.sock" if isinstance(index, int) else f"{index}.sock")


class RunDirectory:
    """A directory (0700) that this process holds until `close`, which removes it.

    Raises ResourceBusy when a living card holds it, PermissionDenied, and UsageError for a path that is too
    long for sockets or that holds what is not a card's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if len(os.fsencode(self.path)) + _LONGEST_NAME > _LONGEST_SOCKET_PATH:
            raise UsageError(f"{self.path} is too long a path for sockets", "choose a shorter one with --dir")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = self._take()
        except PermissionError as error:
            raise PermissionDenied(
                f"cannot use {self.path}: {error.strerror}", "choose another directory with --dir"
            ) from error
        except OSError as error:
            raise UsageError(f"cannot use {self.path}: {error.strerror}") from error

    def _take(self) -> int:
        """Hold the lock of a directory that is there, whatever other cards start or end meanwhile."""
        while True:
            try:
                self.path.mkdir(mode=0o700)
            except FileExistsError:
                self._check_ours()
            try:
                lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue  # its holder ended in between
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_in_place(lock):
                    self._clear(keep=LOCK)
                    return lock
                os.close(lock)
            except BlockingIOError as error:
                os.close(lock)
                raise ResourceBusy(
                    f"a card runs already in {self.path}", "stop it, or choose another --name or --dir"
                ) from error
            except BaseException:
                os.close(lock)
                raise

    def _is_in_place(self, lock: int) -> bool:
        """The lock file that we hold is the one that others will find."""
        try:
            return os.path.samestat(os.fstat(lock), (self.path / LOCK).lstat())
        except FileNotFoundError:
            return False

    def _check_ours(self) -> None:
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it is not a directory of this user")
        strangers = [item.name for item in self.path.iterdir() if not _is_a_cards(item)]
        if strangers:
            raise UsageError(
                f"{self.path} holds what is no card's ({strangers[0]})", "choose another directory with --dir"
            )

    def _clear(self, keep: str = "") -> None:
        for item in self.path.iterdir():
            if item.name != keep and _is_a_cards(item):
                item.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the directory with all that is in it. Safe to call twice."""
        if self._lock < 0:
            return
        try:
            self._clear()
            self.path.rmdir()
        except OSError:
            pass  # somebody put a file of their own there, which stays
        os.close(self._lock)
        self._lock = -1


def _is_a_cards(item: Path) -> bool:
    return item.name == LOCK or (item.suffix == ".sock" and item.is_socket())


def living_cards(root: Path) -> list[Path]:
    """The directories under `root` whose cards live (somebody holds their lock)."""
    found = []
    for lock in sorted(root.glob(f"*/{LOCK}")):
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(lock.parent)
        except OSError:
            continue
    return found
