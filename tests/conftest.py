"""For all tests: how long they search, what they must not leave behind, and namespaces to put things in."""

import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from pyroute2 import netns

from vfwire.errors import UnsupportedMachine
from vfwire.guests.qemu import find_qemu

if TYPE_CHECKING:
    from tests.ec2_endpoint.server import Endpoint

# A first call compiles, so no example has a deadline (each test has one, by pytest).
settings.register_profile("vfwire", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile("vfwire")

# Kept by what outlives a test on purpose: multiprocessing's helpers.
HELPERS = ("resource_tracker", "forkserver")
CLOSING_SECONDS = 5.0
NOT_RUN = pytest.StashKey[str]()
HELD_KINDS = ("/memfd:", "socket:", "anon_inode:", "/dev/net/tun")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="the long runs: tests marked soak, and many more examples"
    )
    parser.addoption(
        "--guests", action="store_true", help="fail where there is no QEMU for the tests that need one"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: a long run, left to `make soak`")
    config.addinivalue_line("markers", "guests: boots real guests, so it needs a QEMU with vfio-user-pci")
    if config.getoption("--soak"):
        settings.load_profile("soak")
    # What a shell starts in its background ignores SIGINT, and so would the commands that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --soak the long runs are not part of the suite: each has a short twin that is."""
    if not config.getoption("--soak"):
        leave_out(config, items, [item for item in items if item.get_closest_marker("soak")])
    booting = [item for item in items if item.get_closest_marker("guests")]
    if not booting:
        return
    try:
        find_qemu()
    except UnsupportedMachine as error:
        if config.getoption("--guests"):
            raise pytest.UsageError(str(error)) from error
        leave_out(config, items, booting)
        config.stash[NOT_RUN] = f"NOT RUN: the {len(booting)} tests in tests/guests that boot guests: {error}"


def leave_out(config: pytest.Config, items: list[pytest.Item], chosen: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=chosen)
    items[:] = [item for item in items if item not in chosen]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if NOT_RUN in config.stash:
        terminalreporter.write_line(config.stash[NOT_RUN], yellow=True, bold=True)


@pytest.fixture
def soaking(request: pytest.FixtureRequest) -> bool:
    """True in `make soak`: for tests that repeat something, and repeat it more often there."""
    return bool(request.config.getoption("--soak"))


def held_descriptors() -> dict[int, str]:
    """Descriptors of this process that stand for shared memory, sockets, eventfds and taps."""
    held: dict[int, str] = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith(HELD_KINDS):
                held[int(entry.name)] = target
    return held


def live_children(pid: int | str = "self") -> dict[int, str]:
    """Processes below one that still run, without multiprocessing's own helpers."""
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                command = (
                    Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                if command and not any(name in command for name in HELPERS):  # a zombie has no command line
                    found[int(child)] = command
                found |= live_children(child)
    return found


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """A test that leaves a process or a descriptor behind fails; the process is ended: no other test meets it."""
    descriptors, children = held_descriptors(), live_children()
    yield
    left = {pid: name for pid, name in live_children().items() if pid not in children}
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"processes left behind: {left}"
    open_still = held_since(descriptors)
    if open_still:
        gc.collect()
    deadline = (
        time.monotonic() + CLOSING_SECONDS
    )  # a server's thread closes after its client, when it gets a core
    while (open_still := held_since(descriptors)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not open_still, f"descriptors left open: {open_still}"


def held_since(before: dict[int, str]) -> dict[int, str]:
    """Descriptors that are open now and were not then."""
    return {fd: target for fd, target in held_descriptors().items() if fd not in before}


@pytest.fixture
def netns_pair() -> Iterator[tuple[str, str]]:
    """Names of two fresh network namespaces, loopback only; they go at the end, with what is in them. Needs root."""
    names = (f"vfwire-test-{os.getpid()}-a", f"vfwire-test-{os.getpid()}-b")
    made: list[str] = []
    try:
        for name in names:
            netns.create(name)
            made.append(name)
        yield names
    finally:
        for name in made:
            netns.remove(name)


@pytest.fixture(scope="session")
def ec2_server() -> Iterator[tuple["Endpoint", str]]:
    """One local EC2 endpoint for all tests that ask for it: importing moto takes seconds, and nobody else needs it."""
    import botocore.session

    from tests.ec2_endpoint.server import serving

    # Each run of a command opens a session, and each session reads EC2's description again: a second of nothing else.
    loader = botocore.session.create_loader()
    with pytest.MonkeyPatch.context() as patched, serving() as served:
        patched.setattr(botocore.session, "create_loader", lambda *_: loader)
        yield served


@pytest.fixture
def ec2(ec2_server: tuple["Endpoint", str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Endpoint":
    """An empty EC2, and an environment in which boto3 and what a test starts talk to it and nobody else."""
    from tests.ec2_endpoint.server import CREDENTIALS

    endpoint, url = ec2_server
    endpoint.clear()
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return endpoint
