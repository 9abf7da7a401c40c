"""Two DPDK testpmd processes joined by a shared-memory port: one sends, one receives and drops.

What virtio-user to vhost-user and memif have in common: how testpmd is started, spoken to, read and ended.
"""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click

from bench.common import (
    core_pair,
    describe_machine,
    one_line_errors,
    progress_line,
    stop_process,
)
from vfwire.errors import PeerGone, UnsupportedMachine, WaitTimeout

PROGRAM = "dpdk-testpmd"
PACKAGES = "apt-get install dpdk-dev librte-meta-net librte-meta-mempool"
PROMPT = "testpmd> "
MEMORY_MIB = 256
BURST = 64
FCS = 4
START_LIMIT_S = 15.0
SETTLE_S = 0.3
_RX_PPS = re.compile(r"Rx-pps:\s+(\d+)")
_TOTAL = re.compile(r"RX-packets: (\d+)")


@dataclass
class Testpmd:
    """One interactive testpmd on one core, its output read from a pseudo-terminal so that it comes line by line.

    It ends by itself when its standard input does, so it never outlives the process that started it.
    """

    process: subprocess.Popen[bytes]
    screen: int
    seen: str = ""
    keep: list[Any] = field(default_factory=list)

    @classmethod
    def start(cls, core: int, mode: str, vdev: str, folder: Path, eal: tuple[str, ...], *more: str) -> Self:
        """Start it with both of its lcores on `core`: the one that reads commands sleeps while the other forwards."""
        name = f"{mode}-{core}"
        arguments = [PROGRAM, f"--lcores=0@{core},1@{core}", "--no-pci", "--no-huge", "-m", str(MEMORY_MIB)]
        arguments += ["--no-telemetry", f"--file-prefix={name}", *eal, "--vdev", vdev, "--", "-i"]
        arguments += [f"--forward-mode={mode}", "--nb-cores=1", f"--burst={BURST}", "--no-mlockall"]
        arguments += ["--total-num-mbufs=16384", *more]
        screen, inner = pty.openpty()
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=inner,
                stderr=inner,
                env={**os.environ, "RUNTIME_DIRECTORY": str(folder), "LC_ALL": "C"},
            )
        finally:
            os.close(inner)
        return cls(process, screen)

    def say(self, command: str) -> None:
        if self.process.stdin is None or self.process.poll() is not None:
            raise PeerGone(f"testpmd ended by itself: {self.last_line()}")
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Read until `text` was seen `count` times in all. Raises WaitTimeout or PeerGone with the last line seen."""
        deadline = time.monotonic() + START_LIMIT_S
        while self.seen.count(text) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(
                    f"testpmd did not say {text!r} in {START_LIMIT_S:g} s; last: {self.last_line()}"
                )
            if select.select([self.screen], [], [], min(left, 0.2))[0]:
                self.read()

    def read(self) -> None:
        """Take what is on the screen now. Raises PeerGone when testpmd has ended."""
        try:
            self.seen += os.read(self.screen, 65536).decode(errors="replace")
        except OSError:  # the other end of a pseudo-terminal is closed: EIO
            raise PeerGone(f"testpmd ended by itself: {self.last_line()}") from None

    def last_line(self) -> str:
        lines = [
            line.strip() for line in self.seen.splitlines() if line.strip() and line.strip() != PROMPT.strip()
        ]
        return lines[-1] if lines else "nothing"

    def close(self) -> None:
        """End it by its id; it is gone on return."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        stop_process(self.process)
        os.close(self.screen)


def received_rate(screen: str) -> float:
    """Packets/s between the two last `show port stats` on a screen: testpmd's own figure."""
    rates = _RX_PPS.findall(screen)
    if len(rates) < 2:
        raise WaitTimeout("testpmd printed no port statistics")
    return float(rates[-1])


def missing() -> str:
    """What is not installed, or ""."""
    return "" if shutil.which(PROGRAM) else "dpdk-testpmd is not installed"


@dataclass(frozen=True)
class Recipe:
    """A kind of shared-memory port: the devices of server (receives) and client (sends), given the socket's path."""

    name: str
    server: Callable[[Path], str]
    client: Callable[[Path], str]
    eal: tuple[str, ...] = ()


def measure(recipe: Recipe, frame_bytes: int, seconds: float) -> dict[str, Any]:
    """One record: packets/s that the receiving testpmd counted over `seconds`.

    Raises UnsupportedMachine when testpmd is missing or there is one core, WaitTimeout or PeerGone when it fails.
    """
    if missing():
        raise UnsupportedMachine(missing(), PACKAGES)
    cores = core_pair()
    with tempfile.TemporaryDirectory(prefix="vfwire-bench-") as folder:
        place = Path(folder)
        socket = place / "port.sock"
        running: list[Testpmd] = []
        try:
            server = Testpmd.start(cores[0], "rxonly", recipe.server(socket), place, recipe.eal)
            running.append(server)
            wait_exists(socket, server)
            client_device = recipe.client(socket)
            size = f"--txpkts={frame_bytes - FCS}"
            client = Testpmd.start(cores[1], "txonly", client_device, place, recipe.eal, size)
            running.append(client)
            rate = _one_way(server, client, seconds)
        finally:
            for testpmd in reversed(running):
                testpmd.close()
    return {
        "rival": recipe.name,
        "frame_bytes": frame_bytes,
        "packets_per_second": rate,
        "rtt_us": None,
        "cores": {"receiver": cores[0], "sender": cores[1]},
    }


def _one_way(server: Testpmd, client: Testpmd, seconds: float) -> float:
    for testpmd in (client, server):
        testpmd.wait_for(PROMPT)
        testpmd.say("start")
    for testpmd in (client, server):
        testpmd.wait_for("packet forwarding")
    time.sleep(SETTLE_S)  # the measurement's own time, not a wait for something
    for number, pause in ((1, seconds), (2, 0.0)):
        server.say("show port stats 0")
        server.wait_for("Rx-bps", number)
        time.sleep(pause)
    return received_rate(server.seen)


def wait_exists(path: Path, server: Testpmd) -> None:
    """Until the server's socket is there. Raises PeerGone when the server ended instead, WaitTimeout past the limit."""
    deadline = time.monotonic() + START_LIMIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise WaitTimeout(f"testpmd made no socket in {START_LIMIT_S:g} s; last: {server.last_line()}")
        if select.select([server.screen], [], [], 0.02)[0]:
            server.read()


def command(recipes: dict[str, Recipe]) -> click.Command:
    """The command line of a rival that comes in one or more kinds."""

    @click.command()
    @click.option("--seconds", default=1.0, show_default=True, help="How long each measurement takes.")
    @click.option(
        "--size", "sizes", multiple=True, default=(64, 1518), show_default=True, help="Frame size with FCS."
    )
    @click.option("--kind", type=click.Choice([*recipes, "all"]), default="all", show_default=True)
    @click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    def main(seconds: float, sizes: tuple[int, ...], kind: str, as_json: bool) -> None:
        """Packets/s from one testpmd to another, as the receiver counts them."""
        with one_line_errors():
            records = []
            for recipe in recipes.values() if kind == "all" else [recipes[kind]]:
                for size in sizes:
                    progress_line(f"{recipe.name}: {size} B")
                    records.append(measure(recipe, size, seconds))
            if as_json:
                click.echo(json.dumps({"machine": describe_machine(), "records": records}))
                return
            for record in records:
                click.echo(json.dumps(record))

    return main
