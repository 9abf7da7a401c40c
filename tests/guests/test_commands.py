"""What a guest answers, whatever it answers; what it says on its console, whatever it says."""

import asyncio
import base64
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.errors import PeerGone, ProtocolError, WaitTimeout
from vfwire.guests.commands import Done, Port, parse_answer
from vfwire.guests.console import Console, printable
from vfwire.guests.guest import _callers_are_told


@given(st.integers(0, 255), st.text())
def test_an_answer_is_read(code: int, text: str) -> None:
    encoded = base64.b64encode(text.encode("utf-8", "surrogatepass"))
    done = parse_answer(b"%d %s\n" % (code, encoded))
    assert done.code == code
    assert done.output == text.encode("utf-8", "surrogatepass").decode(errors="replace")


@given(st.binary(max_size=80))
def test_noise_is_an_answer_or_a_protocol_error(line: bytes) -> None:
    try:
        parse_answer(line)
    except ProtocolError:
        pass


def ask(answers: list[bytes], seconds: float = 5.0) -> Done:
    """Ask a port whose guest answers with these lines."""

    async def exchange() -> Done:
        ours, guest = socket.socketpair()
        with guest:
            port = Port("a", ours)
            serving = asyncio.ensure_future(port.serve())
            guest.setblocking(False)
            loop = asyncio.get_running_loop()
            guest.sendall(b"ready\n")
            await port.ready.wait()
            running = asyncio.ensure_future(port.run("true", seconds))
            assert await loop.sock_recv(guest, 100) == b"%d dHJ1ZQ==\n" % max(1, round(seconds))
            for answer in answers:
                await loop.sock_sendall(guest, answer)
            try:
                return await running
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    return asyncio.run(exchange())


def test_a_command_gets_its_answer() -> None:
    assert ask([b"3 ", b"aGk=\n"]) == Done("hi", 3)


@pytest.mark.parametrize("line", [b"x\n", b"0\n", b"1000 \n", b"0 a\n", b"-1 \n"])
def test_a_malformed_answer_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        ask([line])


def test_a_guest_that_starts_again_ends_the_command() -> None:
    with pytest.raises(PeerGone, match="started again"):
        ask([b"half an answ", b"ready\n"])


def test_a_command_that_its_guest_killed_was_too_late() -> None:
    with pytest.raises(WaitTimeout, match="'true' was not done in 2 s"):
        ask([b"137 \n"], 2)


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfwire.guests.commands.LONGEST_ANSWER", 1000)
    with pytest.raises(ProtocolError, match="more than 1000 bytes"):
        ask([b"0 " + b"A" * 3000])


@given(st.lists(st.binary(max_size=100)))
def test_a_console_takes_anything_and_shows_no_control_characters(chunks: list[bytes]) -> None:
    console = Console()
    for chunk in chunks:
        console.feed(chunk)
    assert console.last_line.isprintable() or not console.last_line.isascii()
    assert "\x1b" not in console.last_line + console.panic


@given(st.integers(0, 60))
def test_a_panic_is_found_wherever_it_is_cut(at: int) -> None:
    said = b"[    1.0] Kernel panic - not syncing: No working init found.\r\n"
    console = Console()
    for part in (said[:at], said[at:]):
        console.feed(part)
    assert console.panic == "No working init found."


@given(st.integers(0, 60))
def test_a_device_without_driver_is_told_once_wherever_it_is_cut(at: int) -> None:
    said = b"x\r\nvfwire: no driver for 0000:01:00.0 (0x8086:0x10ed)\r\n"
    console, told = Console(), []
    for part in (said[:at], said[at:], b"more\r\n"):
        console.feed(part)
        told += console.new_driverless()
    assert told == ["0000:01:00.0 (0x8086:0x10ed)"]


def test_a_console_forgets_its_beginning_not_its_end() -> None:
    console = Console()
    for number in range(300):
        console.feed(b"x" * 10_000 + b"\nline %d\n" % number)
    assert len(console.text) <= 1 << 20
    assert console.last_line == "line 299"


def test_words_of_a_guest_do_not_move_the_cursor() -> None:
    assert printable(b"\x1b[2J\x1b[31mred\x07\r") == "red"


@pytest.mark.parametrize(("error", "lines"), [(PeerGone("a has ended"), 0), (ValueError("ours"), 1)])
def test_a_command_under_way_at_the_guests_end_is_its_callers(
    error: Exception, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends with the guest's loop, by an error that is raised where it was asked for; others are logged."""

    async def command() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    async def life() -> "asyncio.Task[None]":
        asyncio.get_running_loop().set_exception_handler(_callers_are_told)
        task = asyncio.create_task(command())
        await asyncio.sleep(0)
        return task

    task = asyncio.run(life())
    assert task.exception() is error and len(caplog.records) == lines
