"""A card on sockets: a client resets a VF, talks to its PF and sees its link; files and sockets go when it ends."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_kit import mac_words

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.devices.card import Card
from vfwire.devices.engine import Engine
from vfwire.devices.hosting import HostedCard, qemu_option
from vfwire.devices.run_directory import LOCK, RunDirectory, living_cards, run_root
from vfwire.errors import ResourceBusy, UnsupportedMachine, UsageError
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts import pci


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[HostedCard]:
    engine = Engine([3])
    engine.warm_up()
    card = Card(engine, 0, "card0", 2, host_function=True)
    engine.start()
    made = HostedCard(card, tmp_path)
    yield made
    made.close()
    card.close()
    engine.close()


def ask(function: VfioUserFunction, words: list[int]) -> list[int]:
    """One message to the PF and its answer."""
    function.write32(0, regs.VFMAILBOX, regs.MAILBOX_VFU)
    for index, word in enumerate(words):
        function.write32(0, regs.VFMBMEM + 4 * index, word)
    function.write32(0, regs.VFMAILBOX, regs.MAILBOX_REQ)
    bits = function.read32(0, regs.VFMAILBOX)
    assert bits & regs.MAILBOX_PFSTS and bits & regs.MAILBOX_PFACK
    answer = [function.read32(0, regs.VFMBMEM + 4 * index) for index in range(regs.MAILBOX_WORDS)]
    function.write32(0, regs.VFMAILBOX, regs.MAILBOX_ACK)
    return answer


def test_a_client_resets_negotiates_and_finds_its_mac_and_link(hosted: HostedCard) -> None:
    function = VfioUserFunction(hosted.socket(1))
    try:
        assert function.config_read(pci.VENDOR_ID, 4) == 0x10ED8086
        function.config_write(pci.COMMAND, pci.COMMAND_MASTER | pci.COMMAND_MEMORY, 2)
        function.write32(0, regs.VFCTRL, regs.CTRL_RST)
        assert function.read32(0, regs.VFMAILBOX) & regs.MAILBOX_RSTD
        answer = ask(function, [msg.VF_RESET])
        assert answer[0] == msg.VF_RESET | msg.MSGTYPE_ACK
        assert answer[1:3] == mac_words(hosted.card.settings(1).mac)
        refused = ask(function, [msg.VF_API_NEGOTIATE, msg.API_15])
        assert refused[0] & msg.MSGTYPE_NACK
        agreed = ask(function, [msg.VF_API_NEGOTIATE, msg.API_17])
        assert agreed[0] == msg.VF_API_NEGOTIATE | msg.MSGTYPE_ACK | msg.MSGTYPE_CTS
        assert function.read32(0, regs.VFLINKS) == regs.LINKS_UP | regs.LINKS_SPEED_10G
        assert hosted.card.engine.state.functions[1].dma == 1
        assert hosted.describe()["vfs"][1]["in_use"]
    finally:
        function.close()


def test_queue_registers_are_mapped_and_the_control_page_traps(hosted: HostedCard) -> None:
    function = VfioUserFunction(hosted.socket(0))
    try:
        before = function.traps
        function.write32(0, regs.VFTDT, 3)
        assert function.read32(0, regs.VFTDT) == 3
        assert function.traps == before
        function.write32(0, regs.VTEIMS, 1)
        assert function.traps == before + 1
    finally:
        function.close()


def test_sockets_are_the_owners_and_what_qemu_needs_is_said(hosted: HostedCard) -> None:
    described = hosted.describe()
    for vf, name in zip(described["vfs"], ("vf0.sock", "vf1.sock", "host.sock"), strict=True):
        path = Path(vf["socket"])
        assert path.name == name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert vf["qemu"] == qemu_option(path)
    assert qemu_option(Path("/r/vf0.sock")) == (
        """-device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/r/vf0.sock"}}'"""
    )
    assert hosted.counters()["vfs"]["0"]["protocol_errors"] == 0


def test_closing_takes_the_sockets_away(hosted: HostedCard, tmp_path: Path) -> None:
    assert len(list(tmp_path.glob("*.sock"))) == 3
    hosted.close()
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_is_private_held_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "cards" / "card0"
    held = RunDirectory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(ResourceBusy):
        RunDirectory(path)
    assert living_cards(tmp_path / "cards") == [path]
    held.close()
    held.close()
    assert not path.exists()
    assert living_cards(tmp_path / "cards") == []


def test_what_a_killed_card_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "card0"
    path.mkdir()
    (path / LOCK).touch()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path / "vf0.sock"))
    dead.close()
    assert living_cards(tmp_path) == []
    held = RunDirectory(path)
    assert [item.name for item in path.iterdir()] == [LOCK]
    held.close()


def test_a_directory_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="no card's"):
        RunDirectory(tmp_path)
    file = tmp_path / "letter.txt"
    with pytest.raises(UsageError):
        RunDirectory(file / "card0")
    assert file.read_text() == "dear"


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "card0"
    held = RunDirectory(path)
    (path / "note").write_text("x")
    held.close()
    assert [item.name for item in path.iterdir()] == ["note"]


def test_paths_too_long_for_sockets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        RunDirectory(tmp_path / ("x" * 90))


def test_where_cards_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert run_root() == Path("/run/user/7/vfwire")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run_root() == Path("/run/vfwire")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    with pytest.raises(UnsupportedMachine):
        run_root()
