"""Clients that mean harm or die: the server lives, the next client works, and no descriptor is lost."""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vfio_user_kit import (
    EINVAL,
    FakeEndpoint,
    RawClient,
    access,
    dma_map,
    eventfd,
    irq_set,
    open_descriptors,
    serving,
    wait_until,
)

from vfwire.bus.vfio_user import server as server_module
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.server import Server
from vfwire.bus.vfio_user.wire import send_part
from vfwire.errors import ResourceBusy
from vfwire.layouts.vfio_user import NO_REPLY, Command
from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.pci.endpoint import IrqIndex, RegionIndex

words = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 9, 16, 20, 32, 33, 36, 80, 4096, 1 << 20, 0xFFFFFFFF])
small = st.integers(0, 70000) | words
payloads = st.binary(max_size=80) | st.lists(words, max_size=10).map(lambda v: struct.pack(f"<{len(v)}I", *v))
messages = st.tuples(
    st.integers(0, 20) | st.integers(0, 65535),  # command
    st.sampled_from([0, 0, 0, 1, NO_REPLY, 0x20, 0xFFFFFFFF]),  # flags
    st.none() | small,  # a size that is not the message's
    payloads,
    st.lists(st.sampled_from(["eventfd", "memory", "pipe"]), max_size=10),
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeEndpoint, Server]]:
    with serving(tmp_path_factory.mktemp("hostile") / "vf0") as ends:
        yield ends


@pytest.fixture(scope="module")
def stuff() -> Iterator[dict[str, int]]:
    memory = SharedMemory.create("guest", 4 * PAGE)
    reader, writer = os.pipe()
    fds = {"eventfd": eventfd(), "memory": memory.fd, "pipe": writer}
    yield fds
    os.close(reader)
    os.close(writer)
    os.close(fds["eventfd"])
    memory.close()


def swallow(client: RawClient) -> None:
    """Take what has come, so that the server is not held up; close descriptors with it."""
    poller = select.poll()
    poller.register(client.sock, select.POLLIN)
    while poller.poll(0):
        data, fds, *_ = socket.recv_fds(client.sock, 65536, 64)
        for fd in fds:
            os.close(fd)
        if not data:
            break


def prove_alive(endpoint: FakeEndpoint, server: Server, before: int) -> None:
    """All clients were detached, all descriptors are closed, and a good client is served."""
    wait_until(lambda: open_descriptors() == before, f"{before} open descriptors")
    assert endpoint.attached == endpoint.detached
    assert endpoint.maps == {}
    assert endpoint.eventfds == {}
    with RawClient(server.path) as client:
        assert client.error(Command.REGION_READ, access(0, RegionIndex.CONFIG, 4)) == 0
    wait_until(lambda: open_descriptors() == before, f"{before} open descriptors after a good client")


@settings(max_examples=150)
@given(data=st.binary(max_size=300), negotiated=st.booleans())
def test_random_bytes(target: tuple[FakeEndpoint, Server], data: bytes, negotiated: bool) -> None:
    endpoint, server = target
    before = open_descriptors()
    with RawClient(server.path, negotiated=negotiated) as client:
        client.sock.send(data or b"\0")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_closed()
    prove_alive(endpoint, server, before)


@settings(max_examples=250)
@given(plan=st.lists(messages, min_size=1, max_size=8), negotiated=st.sampled_from([True, True, False]))
def test_random_messages(
    target: tuple[FakeEndpoint, Server],
    stuff: dict[str, int],
    plan: list[tuple[int, int, int | None, bytes, list[str]]],
    negotiated: bool,
) -> None:
    endpoint, server = target
    before = open_descriptors()
    with RawClient(server.path, negotiated=negotiated) as client:
        try:
            for number, (command, flags, wrong, payload, things) in enumerate(plan):
                size = 16 + len(payload) if wrong is None else wrong
                header = struct.pack("<HHIII", number, command, size, flags, 0)
                send_part(client.sock, header + payload, [stuff[thing] for thing in things])
                swallow(client)
            client.sock.shutdown(socket.SHUT_WR)
            while client.sock.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has had enough of us, as it should
    prove_alive(endpoint, server, before)


def test_descriptors_with_half_a_message_are_closed(target: tuple[FakeEndpoint, Server]) -> None:
    endpoint, server = target
    before = open_descriptors()
    fds = [eventfd() for _ in range(4)]
    with RawClient(server.path) as client:
        header = struct.pack("<HHIII", 1, Command.DEVICE_SET_IRQS, 100, 0, 0)
        send_part(client.sock, header, fds)
        send_part(client.sock, b"12345", fds)
        send_part(client.sock, b"12345", fds)
    for fd in fds:
        os.close(fd)
    prove_alive(endpoint, server, before)


def test_descriptors_of_a_pipelined_message_are_its_own(target: tuple[FakeEndpoint, Server]) -> None:
    """Also when they come with the second half of it, behind messages that are still waiting."""
    endpoint, server = target
    fd = eventfd()
    request = irq_set(32 | 4, IrqIndex.MSIX, 0, 1)
    header = struct.pack("<HHIII", 2, Command.DEVICE_SET_IRQS, 16 + len(request), 0, 0)
    with RawClient(server.path) as client:
        endpoint.gate.clear()
        for _ in range(20):
            client.send(Command.REGION_READ, access(0, RegionIndex.BAR3, 4))
        send_part(client.sock, header)
        send_part(client.sock, request, [fd])
        client.send(Command.REGION_READ, access(0, RegionIndex.BAR3, 4))
        endpoint.gate.set()
        for _ in range(22):
            with client.receive() as reply:
                assert not reply.error
        assert list(endpoint.eventfds) == [(IrqIndex.MSIX, 0)]
    os.close(fd)


def test_a_client_that_stops_reading_holds_up_nobody(tmp_path: Path) -> None:
    """Its thread waits for it without reading more of it; a stop, and another function, are not held up."""
    with serving(tmp_path / "vf0") as (endpoint, server), serving(tmp_path / "vf1"):
        with RawClient(tmp_path / "vf0") as client:
            client.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                while True:
                    client.send(Command.REGION_READ, access(0, RegionIndex.CONFIG, 4096))
            other = VfioUserFunction(tmp_path / "vf1")
            assert other.config_read(0, 4) == 0
            other.close()
            with pytest.raises(ResourceBusy):
                VfioUserFunction(tmp_path / "vf0")
            started = time.monotonic()
            server.stop()
            assert time.monotonic() - started < 2
        assert endpoint.detached == 1


def test_a_slow_reader_gets_every_reply(tmp_path: Path) -> None:
    with serving(tmp_path / "vf0"), RawClient(tmp_path / "vf0") as client:

        def send() -> None:
            for _ in range(300):
                client.send(Command.REGION_READ, access(0, RegionIndex.CONFIG, 4096))

        sender = threading.Thread(target=send)
        first = client.number + 1
        sender.start()
        for number in range(first, first + 300):
            with client.receive() as reply:
                assert (reply.id, len(reply.payload)) == (number, 16 + 4096)
        sender.join()


def test_a_silent_client_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "NEGOTIATION_SECONDS", 0.05)
    with (
        serving(tmp_path / "vf0") as (endpoint, server),
        RawClient(tmp_path / "vf0", negotiated=False) as silent,
    ):
        assert silent.is_closed()
        assert server.errors == 1
        with RawClient(tmp_path / "vf0"):
            assert endpoint.attached == 1


def test_a_second_client_is_refused_and_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path / "vf0") as (endpoint, server), RawClient(tmp_path / "vf0") as first:
        for _ in range(3):
            with pytest.raises(ResourceBusy, match="closed the connection at once") as busy:
                VfioUserFunction(tmp_path / "vf0")
            assert "take another VF" in busy.value.hint
        assert first.error(Command.DEVICE_RESET) == 0
        assert (endpoint.attached, server.errors) == (1, 3)
    assert [record.message for record in caplog.records] == [
        "fake: a second client was refused: the function is in use"
    ]


CHILD = """
import sys
from pathlib import Path
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.memory.shared import SharedMemory
import os
function = VfioUserFunction(Path(sys.argv[1]))
memory = SharedMemory.create("guest", 1 << 16)
function.dma_map(memory, 0)
function.enable_interrupts([os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)])
print("ready", flush=True)
while True:
    function.write32(3, 0, function.read32(3, 0) + 1)
"""


def test_clients_that_are_killed_leave_nothing_behind(target: tuple[FakeEndpoint, Server]) -> None:
    endpoint, server = target
    before = open_descriptors()
    for _ in range(3):
        rounds = endpoint.detached
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(server.path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert len(endpoint.eventfds) == 3
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        wait_until(lambda rounds=rounds: endpoint.detached == rounds + 1, "detach")
        prove_alive(endpoint, server, before)


def test_a_client_that_is_stopped_keeps_its_place_and_goes_on(target: tuple[FakeEndpoint, Server]) -> None:
    endpoint, server = target
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(server.path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGSTOP)
    with pytest.raises(ResourceBusy):
        VfioUserFunction(server.path)
    child.send_signal(signal.SIGCONT)
    calls = len(endpoint.calls)
    wait_until(lambda: len(endpoint.calls) > calls + 10, "more accesses")
    child.kill()
    child.wait()
    child.stdout.close()
    wait_until(lambda: endpoint.attached == endpoint.detached, "detach")
    endpoint.calls.clear()


def test_a_detach_that_fails_is_logged_and_the_next_client_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path / "vf0") as (endpoint, server):
        detach = endpoint.detach

        def broken() -> None:
            detach()
            raise ZeroDivisionError("a bug")

        endpoint.detach = broken  # type: ignore[method-assign]
        for rounds in (1, 2):
            with RawClient(tmp_path / "vf0") as client:
                assert client.error(Command.DMA_MAP, dma_map(0, PAGE // 2)) == EINVAL
            wait_until(lambda rounds=rounds: endpoint.detached == rounds, "detach")
        endpoint.detach = detach  # type: ignore[method-assign]
        wait_until(lambda: server.errors == 4, "two refusals and two faults")
    assert caplog.text.count("at detach") == 2
