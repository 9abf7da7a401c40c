"""A cable between two cards of two engines: plugged, pulled, plugged in again, and never trusted."""

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_kit import Guest
from test_card_engine import wait_until

from vfwire.datapath.link import LINK_MEMORY
from vfwire.devices.card import Card
from vfwire.devices.engine import Engine
from vfwire.devices.link import Cable
from vfwire.errors import PermissionDenied, UsageError
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts import ixgbevf as regs
from vfwire.memory.shared import SharedMemory


@pytest.fixture
def cards() -> Iterator[list[Card]]:
    made = [Card(Engine([1]), 0, name, 1) for name in ("a", "b", "c")]
    Engine.warm_up()
    for card in made[:2]:
        card.engine.start()
    yield made
    for card in made:
        card.close()
        card.engine.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cable"


def plugged(*cables: Cable) -> bool:
    return all(cable.plugged and cable.card.link_up for cable in cables)


def test_both_ends_come_up_and_share_two_rings(cards: list[Card], path: Path) -> None:
    guest = Guest(cards[1].vfs[0])
    guest.reset()
    one, two = Cable(cards[0], path), Cable(cards[1], path)
    assert not cards[0].link_up
    wait_until(lambda: plugged(one, two))
    assert guest.read(regs.VFLINKS) == regs.LINKS_UP | regs.LINKS_SPEED_10G
    assert guest.receive(1) == [msg.PF_CONTROL_MSG | msg.MSGTYPE_CTS]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    records = [card.engine.state.cards[0] for card in cards[:2]]
    assert len({int(end) for record in records for end in (record.ring_in, record.ring_out)}) == 4
    one.close()
    wait_until(lambda: not cards[1].link_up)
    two.close()
    assert [record.ring_in for record in records] == [0, 0]
    assert list(path.parent.iterdir()) == []


def connect(connection: socket.socket, path: Path) -> None:
    """Connect as soon as somebody listens there."""
    connection.settimeout(5)
    wait_until(lambda: connection.connect_ex(str(path)) == 0)


@pytest.mark.parametrize("first", [0, 1])
def test_an_end_that_goes_can_come_back(cards: list[Card], path: Path, first: int) -> None:
    cables = [Cable(cards[0], path), Cable(cards[1], path)]
    wait_until(lambda: plugged(*cables))
    cables[first].close()
    wait_until(lambda: not cables[1 - first].plugged)
    cables[first] = Cable(cards[first], path)
    wait_until(lambda: plugged(*cables))
    for cable in cables:
        cable.close()


def test_a_third_end_waits_for_its_turn(cards: list[Card], path: Path) -> None:
    cards[2].engine.start()
    cables = [Cable(card, path) for card in cards]
    wait_until(lambda: sum(cable.plugged for cable in cables) == 2)
    third = next(cable for cable in cables if not cable.plugged)
    next(cable for cable in cables if cable.plugged).close()
    wait_until(lambda: third.plugged)
    for cable in cables:
        cable.close()


def test_a_ring_that_makes_no_sense_pulls_the_cable(cards: list[Card], path: Path) -> None:
    """The other end writes a position that cannot be; it is unplugged, and may come again."""
    one = Cable(cards[0], path)
    with socket.socket(socket.AF_UNIX) as connection:
        connect(connection, path)
        greeting, fds, _, _ = socket.recv_fds(connection, 4096, 2)
        assert json.loads(greeting) == {"cable": 1, "card": "a", "bytes": LINK_MEMORY}
        size = os.fstat(fds[0]).st_size
        _theirs, ours = (SharedMemory.adopt(fd, 0, size) for fd in fds)
        connection.sendall(b'{"cable": 1, "card": "evil"}')
        wait_until(lambda: one.plugged)
        ours.array[64:72] = 0xFF
        wait_until(lambda: not cards[0].link_up)
        _theirs.close()
        ours.close()
    one.close()


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"[]", b'{"cable": 2}', b"[" * 4000])
def test_whoever_does_not_speak_it_is_not_plugged_in(cards: list[Card], path: Path, answer: bytes) -> None:
    one = Cable(cards[0], path)
    with socket.socket(socket.AF_UNIX) as connection:
        connect(connection, path)
        _, fds, _, _ = socket.recv_fds(connection, 4096, 2)
        for fd in fds:
            os.close(fd)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert not one.plugged
    two = Cable(cards[1], path)
    wait_until(lambda: plugged(one, two))
    one.close()
    two.close()


def test_what_a_killed_card_left_is_in_nobodys_way(cards: list[Card], path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    Path(f"{path}.lock").touch()
    one, two = Cable(cards[0], path), Cable(cards[1], path)
    wait_until(lambda: plugged(one, two))
    one.close()
    two.close()


def test_paths_that_cannot_be_used(
    cards: list[Card], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError):
        Cable(cards[0], tmp_path / "missing" / "cable")

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched, pytest.raises(PermissionDenied):
        patched.setattr(os, "open", denied)
        Cable(cards[0], tmp_path / "cable")
