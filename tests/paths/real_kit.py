"""Two hosts for the kernel's own traffic: two cards joined by a link, in this process, and `vfwire attach` and
`vfwire layer` as processes that a user would start.
"""

import functools
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.devices.hosting import HostedCard

VFWIRE = [sys.executable, "-X", "faulthandler", "-c", "from vfwire.cli import main; main()"]
SECONDS = 60.0
TAP = "vf0"
IPV4 = ("10.9.0.1", "10.9.0.2")
IPV6 = ("fd09::1", "fd09::2")


@contextmanager
def two_hosts(*, host_function: bool, model: str = "82599") -> Iterator[tuple[list[Card], list[Path]]]:
    """(cards, one socket of each): VF 0's, or that of the host's own function."""
    Engine.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    functions = functions_of(1, host_function=host_function)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions] * 2)
        stack.callback(engine.close)
        cards = []
        for number in range(2):
            card = Card(engine, number, f"host{number}", 1, host_function=host_function, model=model)
            stack.callback(card.close)
            cards.append(card)
        cards[0].join(cards[1])
        engine.start()
        sockets = []
        for card in cards:
            (directory / card.name).mkdir()
            hosted = HostedCard(card, directory / card.name)
            stack.callback(hosted.close)
            sockets.append(hosted.socket("host" if host_function else 0))
        yield cards, sockets


def wait_line(stream: IO[bytes], text: str, seconds: float = SECONDS) -> str:
    """Read lines of a process until one contains `text`; AssertionError with all of them when none does in time."""
    deadline = time.monotonic() + seconds
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            data = os.read(stream.fileno(), 4096)
            seen += data
            for line in seen.decode(errors="replace").splitlines():
                if text in line:
                    return line
            if not data:
                break
    raise AssertionError(f"no line with {text!r}, but {seen.decode(errors='replace')!r}")


@contextmanager
def running(*arguments: str, until: str) -> Iterator[subprocess.Popen[bytes]]:
    """`vfwire ARGUMENTS` as a process, once it has printed a line with `until`. Ended by SIGTERM, and must obey."""
    command = [*VFWIRE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0) as process:
        try:
            assert process.stdout is not None
            wait_line(process.stdout, until)
            yield process
            assert process.poll() is None, f"{arguments[0]} ended by itself: {process.stdout.read()!r}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
            process.wait(SECONDS)
            if sys.exc_info()[0] is not None and process.stdout is not None:
                print(f"{arguments}, {process.returncode}: {process.stdout.read().decode(errors='replace')}")


@contextmanager
def enhanced(namespaces: tuple[str, str], *options: str, model: str = "82599") -> Iterator[list[Card]]:
    """A VF of each card on a tap `vf0` in each namespace, with addresses of both families."""
    with two_hosts(host_function=False, model=model) as (cards, sockets), ExitStack() as stack:
        for socket, namespace in zip(sockets, namespaces, strict=True):
            stack.enter_context(attached(socket, namespace, *options))
        give_addresses(namespaces)
        yield cards


@contextmanager
def default(namespaces: tuple[str, str], *options: str, model: str = "82599") -> Iterator[list[Card]]:
    """The same over a virtualization layer on each card: the tap is on a netfront."""
    with two_hosts(host_function=True, model=model) as (cards, sockets), ExitStack() as stack:
        for socket, namespace in zip(sockets, namespaces, strict=True):
            listen = socket.with_name("layer")
            layer = ("layer", "--function", str(socket), "--listen", str(listen))
            stack.enter_context(running(*layer, until="netfronts connect"))
            stack.enter_context(attached(listen, namespace, "--xen", *options))
        give_addresses(namespaces)
        yield cards


PATHS = {
    "enhanced": enhanced,
    "default": default,
    "enhanced, ena": functools.partial(enhanced, model="ena"),
    "default, ena": functools.partial(default, model="ena"),
}


def attached(socket: Path, namespace: str, *options: str):  # type: ignore[no-untyped-def]
    arguments = ("attach", str(socket), "--tap", TAP, "--netns", namespace, *options)
    return running(*arguments, until="link up")


def give_addresses(namespaces: tuple[str, str]) -> None:
    for namespace, ipv4, ipv6 in zip(namespaces, IPV4, IPV6, strict=True):
        run("ip", "-n", namespace, "address", "add", f"{ipv4}/24", "dev", TAP)
        run("ip", "-n", namespace, "address", "add", f"{ipv6}/64", "dev", TAP, "nodad")


def run(*command: str, seconds: float = SECONDS) -> str:
    """A command to its end, which must be a good one; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def inside(namespace: str, *command: str, seconds: float = SECONDS) -> str:
    return run("ip", "netns", "exec", namespace, *command, seconds=seconds)
