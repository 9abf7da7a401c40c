"""Commands in a guest: a line each over a virtio port, answered by the few lines of `init.sh`.

    host -> guest    <seconds> <base64 of a shell script>
    guest -> host    <exit code> <base64 of what it printed>, or `ready` when the guest has (re)started

The guest is not trusted: what it answers is bounded and checked.
"""

import asyncio
import base64
import binascii
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

from vfwire.errors import PeerGone, ProtocolError, VfwireError, WaitTimeout

LONGEST_ANSWER = 64 << 20
READY = b"ready"
_ANSWER = re.compile(rb"(\d{1,3}) ([A-Za-z0-9+/=]*)\r?\n")
_GRACE_SECONDS = 5.0  # for the answer to arrive after the guest itself has ended the command
KILLED = 137  # what a shell makes of SIGKILL: the command was not done in time


@dataclass(frozen=True)
class Done:
    """A command's end. output: standard output and error together."""

    output: str
    code: int


class Port:
    """One port of a guest; one command at a time. Lives in the guest's event loop."""

    def __init__(self, guest: str, ours: socket.socket) -> None:
        self.ready = asyncio.Event()
        self._guest = guest
        self._ours = ours
        self._answer: asyncio.Future[Done] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self) -> None:
        """Read what the guest says until the port's end."""
        reader, self._writer = await asyncio.open_connection(sock=self._ours, limit=LONGEST_ANSWER)
        try:
            while line := await reader.readline():
                self._take(line)
        except ValueError:
            self.fail(
                ProtocolError(f"{self._guest} answered a command with more than {LONGEST_ANSWER} bytes")
            )
        except OSError:
            pass  # QEMU's end; whoever waits is told by the guest
        finally:
            self.ready.clear()
            self._writer.close()

    def _take(self, line: bytes) -> None:
        if line.strip().endswith(READY):
            self.fail(PeerGone(f"{self._guest} started again in the middle of a command"))
            self.ready.set()
            return
        if self._answer is None or self._answer.done():
            return
        try:
            self._answer.set_result(parse_answer(line))
        except ProtocolError as error:
            self.fail(ProtocolError(f"{self._guest}: {error.message}"))

    async def run(self, command: str, seconds: float) -> Done:
        """Raises WaitTimeout when it was not done in time (it is killed then), PeerGone, ProtocolError."""
        assert self._writer is not None
        self._answer = asyncio.get_running_loop().create_future()
        encoded = base64.b64encode(command.encode())
        self._writer.write(b"%d %s\n" % (max(1, round(seconds)), encoded))
        too_late = WaitTimeout(
            f"{self._guest}: {command.splitlines()[0][:80]!r} was not done in {seconds:g} s"
        )
        try:
            done = await asyncio.wait_for(self._answer, seconds + _GRACE_SECONDS)
        except TimeoutError:
            self.ready.clear()  # what it may still say belongs to no command
            raise too_late from None
        finally:
            self._answer = None
        if done.code == KILLED:
            raise too_late
        return done

    def fail(self, error: VfwireError) -> None:
        """Tell whoever waits for an answer that none comes."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def restarted(self) -> None:
        """The guest was reset: nothing can be asked until it says that it is ready."""
        self.ready.clear()
        self.fail(PeerGone(f"{self._guest} was reset in the middle of a command"))


def parse_answer(line: bytes) -> Done:
    """Raises ProtocolError for what no guest of ours says."""
    found = _ANSWER.fullmatch(line)
    if found is None:
        raise ProtocolError("an answer to a command is malformed")
    try:
        output = base64.b64decode(found[2], validate=True)
    except binascii.Error as error:
        raise ProtocolError("an answer to a command is not base64") from error
    return Done(output.decode(errors="replace"), int(found[1]))


class Ports:
    """All ports of a guest: a command takes the next free one."""

    def __init__(self, guest: str, sockets: list[socket.socket]) -> None:
        self.ports = [Port(guest, ours) for ours in sockets]
        self._guest = guest
        self._free: asyncio.Queue[Port] = asyncio.Queue()
        for port in self.ports:
            self._free.put_nowait(port)

    async def wait_ready(self) -> None:
        await self.ports[0].ready.wait()

    async def run(self, command: str, seconds: float) -> Done:
        port = await self._free.get()
        try:
            await port.ready.wait()
            return await port.run(command, seconds)
        finally:
            self._free.put_nowait(port)

    def each(self, call: Callable[[Port], None]) -> None:
        for port in self.ports:
            call(port)
