"""A driver's end against devices that lie: every answer is checked, nothing hangs, no descriptor is lost."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vfio_user_kit import eventfd, open_descriptors

from vfwire.bus.info_capabilities import sparse_areas
from vfwire.bus.vfio_user import version
from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.bus.vfio_user.wire import EndOfStream, Message, Receiver, pack, send_part
from vfwire.errors import PeerGone, ProtocolError, ResourceBusy, UnsupportedMachine
from vfwire.layouts.vfio_user import ERROR, NO_REPLY, TYPE_REPLY, Command
from vfwire.memory.shared import PAGE, SharedMemory

Answer = bytes | Callable[[socket.socket, Message], bool]
"""A payload to answer with, or what to do instead; returning False ends the connection."""

HONEST: dict[int, Answer] = {
    Command.VERSION: version.pack(0, 1, {"max_msg_fds": 8}),
    Command.DEVICE_GET_INFO: struct.pack("<IIII", 16, 3, 9, 5),
    Command.DEVICE_GET_REGION_INFO: struct.pack("<IIIIQQ", 32, 3, 0, 0, PAGE, 0),
    Command.DEVICE_RESET: b"",
    Command.REGION_WRITE: bytes(16),
}


def serve(listener: socket.socket, answers: dict[int, Answer]) -> None:
    sock, _ = listener.accept()
    with sock:
        receiver = Receiver(sock)
        while True:
            try:
                message = receiver.step()
            except (EndOfStream, ConnectionResetError):
                return
            assert message is not None
            with message:
                answer = answers.get(message.command, b"")
                if callable(answer):
                    if not answer(sock, message):
                        return
                elif not message.flags & NO_REPLY:
                    send_part(sock, pack(message.id, message.command, TYPE_REPLY, answer))


@contextmanager
def device(path: Path, **answers: Answer) -> Iterator[Path]:
    """A device that is honest but for `answers`, by command name; it serves one client."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        table = HONEST | {Command[name]: answer for name, answer in answers.items()}
        thread = threading.Thread(target=serve, args=(listener, table), daemon=True)
        thread.start()
        yield path
        thread.join(10)
        assert not thread.is_alive()


def reply(payload: bytes, fds: list[int] | None = None) -> Answer:
    def answer(sock: socket.socket, message: Message) -> bool:
        return bool(send_part(sock, pack(message.id, message.command, TYPE_REPLY, payload), fds or []))

    return answer


def raw(data: bytes) -> Answer:
    return lambda sock, _: bool(send_part(sock, data))


def hang_up(_sock: socket.socket, _message: Message) -> bool:
    return False


def say_nothing(_sock: socket.socket, _message: Message) -> bool:
    return True


def test_the_honest_device_is_accepted(tmp_path: Path) -> None:
    with device(tmp_path / "vf0") as path:
        function = VfioUserFunction(path)
        function.reset()
        function.close()


@pytest.mark.parametrize(
    ("command", "answer", "error"),
    [
        ("VERSION", b"\0", ProtocolError),
        ("VERSION", version.pack(1, 0, {}), ProtocolError),
        ("VERSION", version.pack(0, 2, {}), ProtocolError),
        ("VERSION", b"\0\0\0\0{", ProtocolError),
        ("VERSION", hang_up, ResourceBusy),
        ("VERSION", say_nothing, PeerGone),
        ("DEVICE_GET_INFO", b"", ProtocolError),
        ("DEVICE_GET_INFO", struct.pack("<IIII", 16, 1, 9, 5), ProtocolError),
        ("DEVICE_GET_INFO", struct.pack("<IIII", 16, 3, 8, 5), ProtocolError),
        ("DEVICE_GET_INFO", struct.pack("<IIII", 16, 3, 1 << 31, 5), ProtocolError),
        ("DEVICE_GET_REGION_INFO", bytes(31), ProtocolError),
        ("DEVICE_GET_REGION_INFO", hang_up, PeerGone),
        ("DEVICE_GET_REGION_INFO", say_nothing, PeerGone),
        ("DEVICE_GET_REGION_INFO", raw(bytes(100)), PeerGone),
        ("DEVICE_GET_REGION_INFO", raw(b"\xff" * 100), PeerGone),
    ],
)
def test_a_device_that_lies_from_the_start(
    tmp_path: Path, command: str, answer: Answer, error: type[Exception]
) -> None:
    before = open_descriptors()
    with device(tmp_path / "vf0", **{command: answer}) as path, pytest.raises(error) as caught:
        VfioUserFunction(path, timeout=0.1)
    assert str(path) in str(caught.value) or "version" in str(caught.value)
    assert open_descriptors() == before


def mismatch(number: int, command: int) -> Answer:
    def answer(sock: socket.socket, message: Message) -> bool:
        return bool(send_part(sock, pack(message.id + number, message.command + command, TYPE_REPLY)))

    return answer


@pytest.mark.parametrize("answer", [mismatch(1, 0), mismatch(0, 1), raw(bytes(16)[:8]), say_nothing, hang_up])
def test_once_an_answer_is_wrong_no_other_is_trusted(tmp_path: Path, answer: Answer) -> None:
    with device(tmp_path / "vf0", DEVICE_RESET=answer) as path:
        function = VfioUserFunction(path, timeout=0.1)
        for _ in range(2):
            with pytest.raises(PeerGone):
                function.reset()
        function.close()


def drip(sock: socket.socket, message: Message) -> bool:
    """A byte now and then: each in time, all of them not."""
    try:
        for byte in pack(message.id, message.command, TYPE_REPLY, bytes(1000)):
            sock.send(bytes([byte]))
            threading.Event().wait(0.02)
    except BrokenPipeError:
        return False
    return True


def test_an_answer_that_drips_is_given_up_in_time(tmp_path: Path) -> None:
    with device(tmp_path / "vf0", DEVICE_RESET=drip) as path:
        function = VfioUserFunction(path, timeout=0.1)
        with pytest.raises(PeerGone, match="no answer within"):
            function.reset()
        function.close()


def test_an_error_reply_carries_its_errno_and_the_next_request_works(tmp_path: Path) -> None:
    def refuse(sock: socket.socket, message: Message) -> bool:
        data = pack(message.id, message.command, TYPE_REPLY | ERROR, error=errno.EBUSY)
        return bool(send_part(sock, data))

    with device(tmp_path / "vf0", DEVICE_RESET=refuse) as path:
        function = VfioUserFunction(path)
        for _ in range(2):
            with pytest.raises(ProtocolError, match=r"refused DEVICE_RESET \(EBUSY\)") as error:
                function.reset()
            assert error.value.errno == errno.EBUSY
        function.write32(0, 0, 1)
        function.close()


@pytest.mark.parametrize("size", [0, 15, 17, 19, 21, 4096])
def test_a_read_of_another_length_is_refused(tmp_path: Path, size: int) -> None:
    with device(tmp_path / "vf0", REGION_READ=bytes(size)) as path:
        function = VfioUserFunction(path)
        with pytest.raises(ProtocolError, match="answered a read of 4 bytes"):
            function.read32(0, 0)
        function.close()


def test_requests_of_the_device_are_declined(tmp_path: Path) -> None:
    """It may ask for DMA by message before it answers; a posted question is not answered."""
    answers: list[tuple[int, int, int, int]] = []

    def ask_back(sock: socket.socket, message: Message) -> bool:
        send_part(sock, pack(7, Command.DMA_WRITE, NO_REPLY, bytes(16)))
        send_part(sock, pack(8, Command.DMA_READ, 0, bytes(16)))
        back = Receiver(sock).step()
        assert back is not None
        answers.append((back.id, back.command, back.flags, back.error))
        return bool(send_part(sock, pack(message.id, message.command, TYPE_REPLY)))

    with device(tmp_path / "vf0", DEVICE_RESET=ask_back) as path:
        function = VfioUserFunction(path)
        function.reset()
        function.close()
    assert answers == [(8, Command.DMA_READ, TYPE_REPLY | ERROR, errno.EOPNOTSUPP)]


def test_descriptors_that_nobody_asked_for_are_closed(tmp_path: Path) -> None:
    fd = eventfd()
    before = open_descriptors()
    with device(
        tmp_path / "vf0",
        DEVICE_RESET=reply(b"", [fd] * 8),
        REGION_WRITE=reply(bytes(16), [fd] * 9),
        DEVICE_GET_REGION_INFO=reply(struct.pack("<IIIIQQ", 32, 3, 0, 0, PAGE, 0), [fd] * 3),
    ) as path:
        function = VfioUserFunction(path)
        function.reset()
        with pytest.raises(ProtocolError, match="more than 8 descriptors"):
            function.write32(0, 0, 1)
        function.close()
    assert open_descriptors() == before
    os.close(fd)


def region(flags: int, size: int, base: int, caps: bytes = b"", cap: int = 32) -> bytes:
    return struct.pack("<IIIIQQ", 32 + len(caps), flags, 0, cap, size, base) + caps


def sparse(*areas: tuple[int, int], count: int | None = None, following: int = 0) -> bytes:
    number = len(areas) if count is None else count
    return struct.pack("<HHIII", 1, 1, following, number, 0) + b"".join(struct.pack("<QQ", *a) for a in areas)


@contextmanager
def offering(path: Path, fd: int, info: bytes) -> Iterator[Path]:
    with device(path, DEVICE_GET_REGION_INFO=reply(info, [fd])) as served:
        yield served


@pytest.mark.parametrize(
    "info",
    [
        region(15, 4 * PAGE, 0, sparse((0, 8 * PAGE))),
        region(15, 4 * PAGE, 0, sparse((0, PAGE), ((1 << 64) - PAGE, PAGE))),
        region(15, 4 * PAGE, 0, sparse((0, PAGE), (PAGE, 0))),
        region(15, 4 * PAGE, 0, sparse((0, PAGE), count=2)),
        region(15, 4 * PAGE, 0, sparse((0, PAGE), count=0xFFFFFFFF)),
        region(15, 4 * PAGE, 0, sparse((0, PAGE))[:8]),
        region(15, 4 * PAGE, 0, sparse((0, PAGE)), cap=8),
        region(15, 4 * PAGE, 0, sparse((0, PAGE)), cap=60),
        region(15, 4 * PAGE, 0, sparse((0, PAGE)), cap=0xFFFFFFF0),
        region(15, 4 * PAGE, 0, struct.pack("<HHI", 9, 1, 32)),
        region(15, 4 * PAGE, 0, struct.pack("<HHI", 9, 1, 1 << 31)),
    ],
)
def test_pages_that_cannot_be_there_are_refused(tmp_path: Path, info: bytes) -> None:
    before = open_descriptors()
    with (
        SharedMemory.create("bar", 4 * PAGE) as memory,
        offering(tmp_path / "vf0", memory.fd, info) as path,
        pytest.raises(ProtocolError),
    ):
        VfioUserFunction(path)
    assert open_descriptors() == before


def test_a_region_is_mapped_whole_where_it_names_no_areas(tmp_path: Path) -> None:
    other = struct.pack("<HHI", 9, 1, 0)
    for info in (region(7, 2 * PAGE, PAGE), region(15, 2 * PAGE, PAGE, other)):
        path = tmp_path / f"vf{len(info)}"
        with SharedMemory.create("bar", 4 * PAGE) as memory, offering(path, memory.fd, info):
            memory.array[2 * PAGE + 4] = 9
            function = VfioUserFunction(path)
            assert function.read32(0, PAGE + 4) == 9
            assert function.mapped(0, 0, 2 * PAGE) + PAGE == function.mapped(0, PAGE, PAGE)
            assert function.traps == 0
            function.close()


def test_a_capability_behind_another_is_found() -> None:
    first = struct.pack("<HHI", 9, 1, 40)
    info = region(15, 4 * PAGE, 0, first + sparse((PAGE, PAGE)))
    assert sparse_areas(info, 32, []) == [(PAGE, PAGE)]
    assert sparse_areas(info, 0, [(1, 2)]) == [(1, 2)]


def test_pages_that_could_go_away_stay_trapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fd = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE)
    before = open_descriptors()
    with offering(tmp_path / "vf0", fd, region(15, PAGE, 0, sparse((0, PAGE)))) as path:
        function = VfioUserFunction(path)
        with pytest.raises(UnsupportedMachine):
            function.mapped(0, 0, 4)
        function.write32(0, 0, 1)
        assert function.traps == 1
        function.close()
    assert "stay trapped" in caplog.text
    assert open_descriptors() == before
    os.close(fd)


def test_interrupts_for_a_device_that_takes_no_descriptors(tmp_path: Path) -> None:
    with device(tmp_path / "vf0", VERSION=version.pack(0, 1, {"max_msg_fds": 0})) as path:
        function = VfioUserFunction(path)
        with pytest.raises(UnsupportedMachine, match="takes no eventfds"):
            function.enable_interrupts([0])
        function.close()


def test_a_device_that_does_not_read_is_given_up_in_time(tmp_path: Path) -> None:
    def wait_for_the_end(_sock: socket.socket, _message: Message) -> bool:
        assert done.wait(10)
        return False

    done = threading.Event()
    with device(tmp_path / "vf0", DEVICE_FEATURE=wait_for_the_end) as path:
        function = VfioUserFunction(path, timeout=0.1)
        with pytest.raises(PeerGone):
            for _ in range(100):
                function.request(Command.DEVICE_FEATURE, bytes(100_000), no_reply=True)
        done.set()
        function.close()
