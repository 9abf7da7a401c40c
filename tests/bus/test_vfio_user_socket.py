"""The socket file: private, taken over from the dead only, removed at the end; and errors that name the next step."""

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_user_kit import FakeEndpoint, RawClient, serving

from vfwire.bus.vfio_user import listener
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.connection import wait_connected
from vfwire.bus.vfio_user.server import Server
from vfwire.errors import PeerGone, PermissionDenied, ResourceBusy, UsageError, VfwireError
from vfwire.memory.shared import PAGE, SharedMemory
from vfwire.pci.endpoint import MappedArea, Region


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    made = FakeEndpoint()
    yield made
    made.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_it_is_private_unless_told_otherwise(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    with serving(tmp_path / "vf0"):
        assert mode_of(tmp_path / "vf0") == 0o600
    server = Server(endpoint, tmp_path / "shared", mode=0o666)
    server.start()
    assert mode_of(tmp_path / "shared") == 0o666
    server.stop()


def test_it_is_private_from_its_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at between bind and chmod."""
    seen: list[int] = []
    monkeypatch.setattr(Path, "chmod", lambda path, _mode: seen.append(mode_of(path)))
    old = os.umask(0)
    try:
        listener.Listener(tmp_path / "vf0", 0o600).close()
    finally:
        os.umask(old)
    assert seen == [0o600]


def leave_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_the_socket_of_a_dead_server_is_taken_over(tmp_path: Path) -> None:
    leave_stale(tmp_path / "vf0")
    with serving(tmp_path / "vf0"), RawClient(tmp_path / "vf0"):
        assert mode_of(tmp_path / "vf0") == 0o600


def test_the_socket_of_a_live_server_is_not(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    with serving(tmp_path / "vf0"):
        second = Server(endpoint, tmp_path / "vf0")
        with pytest.raises(ResourceBusy, match="served already") as busy:
            second.start()
        assert busy.value.hint
        second.stop()
        with RawClient(tmp_path / "vf0"):
            assert mode_of(tmp_path / "vf0") == 0o600


def test_a_server_whose_queue_is_full_is_alive(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "vf0"))
        deaf.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(tmp_path / "vf0"))
        with pytest.raises(ResourceBusy):
            Server(endpoint, tmp_path / "vf0").start()
        with pytest.raises(ResourceBusy, match="takes no connections"):
            wait_connected(tmp_path / "vf0", 0.05, 0.0)
        waiting.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    (tmp_path / "vf0").write_text("precious")
    with pytest.raises(ResourceBusy, match="not a socket"):
        Server(endpoint, tmp_path / "vf0").start()
    assert (tmp_path / "vf0").read_text() == "precious"
    with pytest.raises(PeerGone, match="no socket"):
        VfioUserFunction(tmp_path / "vf0", wait=0)


def test_places_where_no_socket_can_be(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        Server(endpoint, tmp_path / "none" / "vf0").start()
    with pytest.raises(UsageError, match="too long"):
        Server(endpoint, tmp_path / ("x" * 120)).start()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, PermissionDenied),
        (errno.EROFS, PermissionDenied),
        (errno.EADDRINUSE, ResourceBusy),
        (errno.EIO, VfwireError),
    ],
)
def test_errors_of_making_a_socket(number: int, kind: type[VfwireError]) -> None:
    error = listener.explain(OSError(number, os.strerror(number)), Path("/somewhere/vf0"))
    assert type(error) is kind
    assert "/somewhere/vf0" in str(error)


def test_stop_leaves_a_socket_that_is_another_servers(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    first = Server(endpoint, tmp_path / "vf0")
    first.start()
    (tmp_path / "vf0").unlink()
    with serving(tmp_path / "vf0"):
        first.stop()
        with RawClient(tmp_path / "vf0"):
            assert (tmp_path / "vf0").exists()


def test_start_and_stop_over_and_over(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    server = Server(endpoint, tmp_path / "vf0")
    server.stop()
    for _ in range(3):
        server.start()
        server.start()
        with RawClient(tmp_path / "vf0"):
            assert server.client_connected
        server.stop()
        server.stop()
        assert not (tmp_path / "vf0").exists()
    assert (endpoint.attached, endpoint.detached) == (3, 3)


def test_a_client_waits_for_the_socket_to_appear(tmp_path: Path) -> None:
    path = tmp_path / "vf0"
    found: list[int] = []

    def connect() -> None:
        function = VfioUserFunction(path, wait=20)
        found.append(function.config_read(0, 4))
        function.close()

    waiting = threading.Thread(target=connect)
    waiting.start()
    with serving(path):
        waiting.join(20)
        assert found == [0]


def test_a_client_without_a_server_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no socket") as missing:
        VfioUserFunction(tmp_path / "vf0", wait=0.02)
    assert "start the card" in missing.value.hint
    leave_stale(tmp_path / "vf0")
    with pytest.raises(PeerGone, match="nobody serves"):
        VfioUserFunction(tmp_path / "vf0", wait=0)
    with pytest.raises(UsageError, match="too long"):
        VfioUserFunction(tmp_path / ("x" * 120), wait=0)

    class Denied(socket.socket):
        def connect(self, _address: object) -> None:
            raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(socket, "socket", Denied)
    with pytest.raises(PermissionDenied):
        VfioUserFunction(tmp_path / "vf0", wait=0)


def put_in_bar0(endpoint: FakeEndpoint, areas: tuple[MappedArea, ...]) -> SharedMemory:
    memory = SharedMemory.create("bar", 8 * PAGE)
    endpoint.regions = (Region(4 * PAGE, memory, areas), *endpoint.regions[1:])
    return memory


@pytest.mark.parametrize(
    "areas",
    [
        (MappedArea(PAGE, PAGE, 0),),
        (MappedArea(0, PAGE, 0), MappedArea(PAGE, PAGE, 3 * PAGE)),
        (MappedArea(8, PAGE, 8),),
        (MappedArea(3 * PAGE, 2 * PAGE, 3 * PAGE),),
    ],
)
def test_areas_that_cannot_be_put_on_this_wire_are_refused_at_once(
    tmp_path: Path, endpoint: FakeEndpoint, areas: tuple[MappedArea, ...]
) -> None:
    put_in_bar0(endpoint, areas)
    with pytest.raises(UsageError):
        Server(endpoint, tmp_path / "vf0")


def test_a_device_without_its_nine_regions_is_refused_at_once(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    endpoint.regions = endpoint.regions[:3]
    with pytest.raises(UsageError):
        Server(endpoint, tmp_path / "vf0")


def test_pages_may_lie_further_in_their_file(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    memory = put_in_bar0(endpoint, (MappedArea(PAGE, 2 * PAGE, 5 * PAGE),))
    server = Server(endpoint, tmp_path / "vf0")
    server.start()
    function = VfioUserFunction(tmp_path / "vf0")
    function.write32(0, 2 * PAGE + 4, 0x55)
    assert memory.array[6 * PAGE + 4] == 0x55
    function.close()
    server.stop()
