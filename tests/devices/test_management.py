"""The management socket: requests and answers, errors that keep their kind, and input that is none."""

import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfwire.devices.management import LONGEST_LINE, ManagementClient, ManagementServer
from vfwire.errors import PeerGone, ResourceBusy, UsageError, VfwireError


def fail(_request: dict[str, Any]) -> None:
    raise UsageError("this cannot be", "ask for something else")


def stumble(_request: dict[str, Any]) -> None:
    raise RuntimeError("a fault of ours")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ManagementServer]:
    verbs = {"echo": lambda request: request, "fail": fail, "stumble": stumble}
    made = ManagementServer(tmp_path / "manage.sock", verbs)
    yield made
    made.close()


def test_requests_are_answered_one_after_the_other(server: ManagementServer) -> None:
    with ManagementClient(server.path) as client, ManagementClient(server.path) as other:
        assert client.ask("echo", vf=3) == {"do": "echo", "vf": 3}
        assert other.ask("echo") == {"do": "echo"}
        assert client.ask("echo", text="ü") == {"do": "echo", "text": "ü"}


def test_errors_keep_kind_and_hint(server: ManagementServer) -> None:
    with ManagementClient(server.path) as client:
        with pytest.raises(UsageError) as error:
            client.ask("fail")
        assert (error.value.message, error.value.hint) == ("this cannot be", "ask for something else")
        with pytest.raises(UsageError, match="no such request"):
            client.ask("reboot")
        with pytest.raises(VfwireError, match="a fault of ours"):
            client.ask("stumble")
        assert client.ask("echo") == {"do": "echo"}


def test_the_socket_is_the_owners_and_goes(server: ManagementServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    with pytest.raises(ResourceBusy):
        ManagementServer(server.path, {})
    server.close()
    assert not server.path.exists()
    with pytest.raises(PeerGone):
        ManagementClient(server.path)


def exchange(path: Path, data: bytes) -> bytes:
    """Everything that comes back for `data`, sent at once and then nothing more."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return b""
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return received
        return received


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    data=st.binary(max_size=200)
    | st.sampled_from([b"[" * 60_000, b"{}", b"null\n", b'{"do": {}}\n', b"1e999\n"])
)
def test_input_that_is_none_is_refused_and_harms_nobody(server: ManagementServer, data: bytes) -> None:
    for line in exchange(server.path, data).splitlines():
        assert line.startswith(b'{"ok": false')
    with ManagementClient(server.path) as client:
        assert client.ask("echo") == {"do": "echo"}


def test_a_line_without_end_is_cut_off(server: ManagementServer) -> None:
    answer = exchange(server.path, b"x" * (3 * LONGEST_LINE))
    assert answer.count(b"\n") <= 1 and b'"ok": true' not in answer
    with ManagementClient(server.path) as client:
        assert client.ask("echo") == {"do": "echo"}


def test_too_many_connections_are_turned_away(server: ManagementServer) -> None:
    clients = [ManagementClient(server.path) for _ in range(8)]
    assert [client.ask("echo") for client in clients] == [{"do": "echo"}] * 8
    with ManagementClient(server.path) as one_more, pytest.raises(ResourceBusy, match="8 others"):
        one_more.ask("echo")
    for client in clients:
        client.close()
    with ManagementClient(server.path) as next_one:
        assert next_one.ask("echo") == {"do": "echo"}


def test_who_comes_and_goes_quickly_is_never_turned_away(server: ManagementServer) -> None:
    """The place of a client that has gone is free when its thread has noticed; the next one waits for that."""
    for _ in range(500):
        with ManagementClient(server.path) as client:
            assert client.ask("echo") == {"do": "echo"}


def test_a_client_is_told_when_the_card_ends(server: ManagementServer) -> None:
    with ManagementClient(server.path) as client:
        client.ask("echo")
        server.close()
        with pytest.raises(PeerGone):
            client.ask("echo")
