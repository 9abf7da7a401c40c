"""Faults on the server's own side: no descriptors left, a model that breaks or hangs. The card goes on, and says so."""

import errno
import os
import socket
from pathlib import Path

import pytest
from vfio_user_kit import EINVAL, FakeEndpoint, RawClient, access, serving, wait_until

from vfwire.bus.vfio_user import server as server_module
from vfwire.bus.vfio_user.server import Server
from vfwire.errors import ProtocolError, WaitTimeout
from vfwire.layouts.vfio_user import Command
from vfwire.pci.endpoint import RegionIndex


class Accepting:
    """A listening socket whose next accepts fail."""

    def __init__(self, real: socket.socket, errors: list[int]) -> None:
        self._real = real
        self.errors = errors

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise OSError(self.errors[0], os.strerror(self.errors.pop(0)))
        return self._real.accept()

    def fileno(self) -> int:
        return self._real.fileno()

    def close(self) -> None:
        self._real.close()


def test_a_card_without_descriptors_takes_the_client_when_it_has_some_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PAUSE_MS", 1)
    with serving(tmp_path / "vf0") as (_, server):
        assert server._listener is not None
        failing = [errno.ECONNABORTED, errno.EMFILE, errno.EMFILE, errno.ENFILE]
        server._listener.socket = Accepting(server._listener.socket, failing)  # type: ignore[assignment]
        with RawClient(tmp_path / "vf0") as client:
            assert client.error(Command.DEVICE_RESET) == 0
        assert failing == []
        assert server.errors == 3
    assert caplog.text.count("cannot take a connection") == 1


def test_a_model_that_cannot_say_its_regions_refuses_the_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "vf0") as (endpoint, server):
        with monkeypatch.context() as patch:
            patch.delattr(endpoint, "regions")
            with RawClient(tmp_path / "vf0", negotiated=False) as client:
                assert client.is_closed()
        with RawClient(tmp_path / "vf0"):
            assert (server.errors, endpoint.attached) == (1, 1)
    assert "fault in the device" in caplog.text


def test_a_fault_of_the_server_costs_one_client_its_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("a bug")

    with serving(tmp_path / "vf0") as (endpoint, server):
        with RawClient(tmp_path / "vf0") as client, monkeypatch.context() as patch:
            patch.setattr(server_module, "send_part", broken)
            client.send(Command.DEVICE_RESET)
            assert client.is_closed()
        assert (endpoint.detached, server.errors) == (1, 1)
        with RawClient(tmp_path / "vf0") as client:
            assert client.error(Command.DEVICE_RESET) == 0
    assert "fault in the server" in caplog.text


def test_a_read_that_returns_too_little_is_the_models_fault(tmp_path: Path) -> None:
    with serving(tmp_path / "vf0") as (endpoint, _), RawClient(tmp_path / "vf0") as client:
        endpoint.region_read = lambda *_: b"123"  # type: ignore[method-assign,assignment]
        assert client.error(Command.REGION_READ, access(0, RegionIndex.BAR3, 4)) == errno.EIO


@pytest.mark.parametrize(
    ("number", "sent"), [(errno.EBUSY, errno.EBUSY), (0, EINVAL), (-1, EINVAL), (9999, EINVAL)]
)
def test_the_errno_of_a_refusal_is_the_models_if_it_is_one(tmp_path: Path, number: int, sent: int) -> None:
    with serving(tmp_path / "vf0") as (endpoint, _), RawClient(tmp_path / "vf0") as client:
        endpoint.fault = ProtocolError("no", errno=number)
        assert client.error(Command.DEVICE_RESET) == sent
        endpoint.fault = None


def test_a_model_that_hangs_does_not_hang_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STOP_SECONDS", 0.05)
    endpoint = FakeEndpoint()
    server = Server(endpoint, tmp_path / "vf0")
    server.start()
    with RawClient(tmp_path / "vf0") as client:
        endpoint.gate.clear()
        client.send(Command.REGION_READ, access(0, RegionIndex.BAR3, 4))
        wait_until(lambda: endpoint.calls[-1].startswith("read"), "a read that hangs")
        with pytest.raises(WaitTimeout, match="hangs"):
            server.stop()
        assert not (tmp_path / "vf0").exists()
        endpoint.gate.set()
        monkeypatch.setattr(server_module, "STOP_SECONDS", 10)
        server.stop()
    assert endpoint.detached == 1
    endpoint.close()
