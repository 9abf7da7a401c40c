"""Real guests for tests: the image (built once in the user's cache), machines that boot fast, cards as processes."""

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vfwire.guests.image import QUICK_BOOT, Image, cached_image
from vfwire.guests.machine import Machine

VFWIRE = [sys.executable, "-c", "from vfwire.cli import main; main()"]
READY_SECONDS = 150.0
CARD_SECONDS = 90.0


@functools.cache
def guest_image(*extra: str) -> Image:
    """The test guest, with extra packages by name. The first on a machine takes half a minute and the network."""
    return cached_image(extra, progress=lambda text: print(f"guest image: {text}", file=sys.stderr))


def machine(name: str = "a", *, append: str = "", image: Image | None = None, **rest: Any) -> Machine:
    """A machine with the test guest's kernel and initrd, and `rest` as `Machine` takes it."""
    chosen = image or guest_image()
    rest.setdefault("memory_mib", 256)
    words = f"{QUICK_BOOT} {append}".strip()
    return Machine(name, kernel=chosen.program, initrds=(chosen.initrd,), append=words, **rest)


class RunningCard:
    """`vfwire card` as a process. sockets: of its VFs, in order."""

    def __init__(self, process: subprocess.Popen[str], described: dict[str, Any]) -> None:
        self.process = process
        self.described = described
        self.directory = Path(described["directory"])
        self.sockets = [Path(vf["socket"]) for vf in described["vfs"] if vf["vf"] != "host"]

    def vf(self, *arguments: str) -> Any:
        """`vfwire vf ARGUMENTS --dir …`, its JSON where it prints some."""
        command = [*VFWIRE, "vf", *arguments, "--dir", str(self.directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CARD_SECONDS)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def counters(self) -> dict[str, Any]:
        """Each VF's counters by its number, as `vfwire vf show --counters` has them."""
        shown = self.vf("show", self.described["card"], "--counters", "--json")
        return {str(vf["vf"]): vf["counters"] for vf in shown["vfs"]}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(CARD_SECONDS)


@contextlib.contextmanager
def card(directory: Path, *options: str) -> Iterator[RunningCard]:
    """A card with its sockets in `directory` (a short path), ended at the end."""
    command = [*VFWIRE, "card", "--json", "--dir", str(directory), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield RunningCard(process, json.loads(line))
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CARD_SECONDS)
            process.kill()
