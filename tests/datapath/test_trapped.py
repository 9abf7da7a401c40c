"""Writes that trap and are answered without the interpreter: which these are, and what becomes of all others."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bus.vfio_user_kit import RawClient
from tests.devices.device_kit import card_of
from vfwire.bus.vfio_user.server import Server
from vfwire.bus.vfio_user.wire import pack
from vfwire.devices.ixgbevf import VirtualFunction82599
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts import vfio_user as layout
from vfwire.layouts.vfio_user import Command

BAR0 = 0
FAULT = errno.EIO


def access(offset: int, region: int = BAR0, count: int = 4) -> bytes:
    return layout.REGION_ACCESS.pack(offset, region, count)


def write_of(offset: int, value: int) -> bytes:
    return access(offset) + struct.pack("<I", value)


@pytest.fixture
def function() -> Iterator[VirtualFunction82599]:
    with card_of() as card:
        yield card.vfs[1]


@pytest.fixture
def client(function: VirtualFunction82599, tmp_path: Path) -> Iterator[RawClient]:
    server = Server(function, tmp_path / "vf")
    server.start()
    try:
        with RawClient(tmp_path / "vf") as client:
            yield client
    finally:
        server.stop()


def read(client: RawClient, offset: int) -> int:
    with client.ask(Command.REGION_READ, access(offset)) as reply:
        return int.from_bytes(reply.payload[layout.REGION_ACCESS.size :], "little")


def test_what_a_driver_writes_for_each_interrupt_needs_no_interpreter(
    function: VirtualFunction82599, client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the interpreter was asked")

    monkeypatch.setattr(function, "_write_bar", refuse)
    traps = function.traps
    for offset, value in ((regs.VTEIMS, 0b111), (regs.VTEIMC, 0b010), (regs.VTEITR + 4, 0x190)):
        with client.ask(Command.REGION_WRITE, write_of(offset, value)) as reply:
            assert (reply.flags, reply.error) == (layout.TYPE_REPLY, 0)
            assert reply.payload == access(offset)
    assert read(client, regs.VTEIMS) == 0b101  # and what came before it is counted now
    assert function.traps == traps + 4
    assert client.error(Command.REGION_WRITE, write_of(regs.VTIVAR, 0x80)) == FAULT
    assert client.error(Command.REGION_WRITE, write_of(regs.VTEITR + 4 * regs.MSIX_VECTORS, 8)) == FAULT
    assert read(client, regs.VTEITR + 4) == 0x190


def test_an_interrupt_that_waited_for_its_mask_ends_the_nap(
    function: VirtualFunction82599, client: RawClient
) -> None:
    kick = int(function.port.engine.state.control[0].kick)
    assert client.error(Command.REGION_WRITE, write_of(regs.VTEIMS, 0b001)) == 0
    with pytest.raises(BlockingIOError):
        os.eventfd_read(kick)
    function.port.record.causes = 0b010
    assert client.error(Command.REGION_WRITE, write_of(regs.VTEIMS, 0b010)) == 0
    assert os.eventfd_read(kick) == 1


def test_all_else_is_answered_as_before(function: VirtualFunction82599, client: RawClient) -> None:
    before = function.bad_accesses
    assert client.error(Command.REGION_WRITE, access(regs.VTEIMS, count=2) + b"\x07\x00") == 0
    assert client.error(Command.REGION_WRITE, access(regs.VTEIMS) + b"\x07") == errno.EINVAL
    assert client.error(Command.REGION_WRITE, access(regs.VTEIMS, 99) + bytes(4)) == errno.EINVAL
    assert client.error(Command.REGION_WRITE, access(regs.VTEIMS + 1) + bytes(4)) == 0
    assert function.bad_accesses > before
    assert read(client, regs.VTEIMS) == 0


def test_descriptors_with_such_a_write_are_refused_and_closed(client: RawClient) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as pipe:
        assert client.error(Command.REGION_WRITE, write_of(regs.VTEIMS, 7), [theirs]) == errno.EINVAL
        os.close(theirs)
        assert pipe.read() == b""  # nobody else holds the other end
    assert read(client, regs.VTEIMS) == 0


def test_writes_without_a_reply_in_one_piece_and_in_many(client: RawClient) -> None:
    client.send(Command.REGION_WRITE, write_of(regs.VTEIMS, 0b001), flags=layout.NO_REPLY)
    message = pack(7, Command.REGION_WRITE, 0, write_of(regs.VTEIMS, 0b010))
    client.sock.sendall(message + message)
    for part in (message[:5], message[5:30], message[30:]):
        client.sock.sendall(part)
    for _ in range(3):
        with client.receive() as reply:
            assert (reply.id, reply.error) == (7, 0)
    assert read(client, regs.VTEIMS) == 0b011


def test_a_client_that_does_not_read_its_replies_gets_each_of_them(client: RawClient) -> None:
    """Until there is no room for them: then its writes stay where they are, and none is answered twice."""
    client.sock.setblocking(False)
    sent = 0
    try:
        while True:
            sent += client.sock.send(pack(sent & 0xFFFF, Command.REGION_WRITE, 0, write_of(regs.VTEIMS, 1)))
    except BlockingIOError:
        pass
    client.sock.settimeout(10)
    size = len(pack(0, Command.REGION_WRITE, 0, write_of(regs.VTEIMS, 1)))
    assert sent % size == 0
    for number in range(sent // size):
        with client.receive() as reply:
            assert reply.id == number * size & 0xFFFF
    assert read(client, regs.VTEIMS) == 1
