"""Lines of JSON that survive what writes them, so that an interrupted run can be taken up again."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from vfwire.errors import BadInput, PermissionDenied, ResourceBusy

_MOST_BYTES = 1 << 30


class Journal:
    """An open file of JSON objects, a line each, held by one process. A context manager.

    What was cut off in the middle of a line, by a kill or a full disk, is cut away when the file is opened again.
    Raises ResourceBusy when another process holds it, BadInput for a file that is no journal, PermissionDenied.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise PermissionDenied(f"{path}: {error.strerror}", "give another place") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cut_torn_end()
        except BlockingIOError:
            self._file.close()
            raise ResourceBusy(f"{path} is held by another run", "wait for it, or end it") from None
        except BaseException:
            self._file.close()
            raise

    def _cut_torn_end(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        if size > _MOST_BYTES:
            raise BadInput(f"{self.path} has {size} bytes", "give another journal")
        whole = 0
        self._file.seek(0)
        for line in self._file:
            if line.endswith(b"\n"):
                whole += len(line)
        self._file.truncate(whole)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What is in it, from its start. Raises BadInput at a line that is no JSON object."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    entry = None
                if not isinstance(entry, dict):
                    raise BadInput(
                        f"{self.path}, line {number}, is no journal", "give another file, or remove it"
                    )
                yield entry

    def write(self, entry: Mapping[str, Any], durable: bool = True) -> None:
        """Returns when it is on the disk; when not `durable`, when it outlives this process."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        if durable:
            os.fdatasync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
