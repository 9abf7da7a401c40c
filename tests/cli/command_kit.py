"""`vfwire` as a user runs it: a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

VFWIRE = [sys.executable, "-c", "from vfwire.cli import main; main()"]
SECONDS = 90


@contextmanager
def started(*arguments: object, lines: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A command, and the first lines that it printed. Killed at the end if it still runs."""
    command = [*VFWIRE, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            said = [process.stdout.readline() for _ in range(lines)]
            assert all(said), process.stderr.read()
            yield process, said
        finally:
            process.kill()
            process.wait(SECONDS)


def vfwire(*arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A command to its end. before: a program to run it with, as ("setpriv", "--bounding-set=-all")."""
    command = [*before, *VFWIRE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
