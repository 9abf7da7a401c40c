"""One QEMU process and all that leads into it: its monitor, its console, its command ports.

Every channel is a socket pair whose other end QEMU inherits: nothing lies in the file system, nothing is left behind,
and the end of QEMU is the end of each of them.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from qemu.qmp import ExecInterruptedError, QMPClient
from qemu.qmp.error import QMPError

from vfwire.errors import PeerGone, VfwireError, WaitTimeout
from vfwire.guests.accelerator import OPTIONS
from vfwire.guests.commands import Ports
from vfwire.guests.console import Console, printable
from vfwire.guests.initrd import joined_initrd
from vfwire.guests.machine import COMMAND_PORTS, Machine, boot, hardware
from vfwire.guests.qemu import Qemu

_PR_SET_PDEATHSIG = 1
_KEPT_STDERR = 8192
_ANSWER_SECONDS = 30.0
_QUIT_SECONDS = 5.0
_LIBC = ctypes.CDLL(None)


class Emulator:
    """A QEMU that is started by `run`, which returns at its end. Lives in one event loop, and dies with its thread."""

    def __init__(self, qemu: Qemu, machine: Machine, accelerator: str, console: Console) -> None:
        self.accelerator = accelerator
        self.pid = 0
        self.gave_up = False  # by an "internal error" of its own: not the guest's doing
        self.exit_code = 0
        self.holds_dead_device = False  # see returning.py
        self.was_reset = False  # it ended because the guest asked to be reset
        self._qemu = qemu
        self._machine = machine
        self._console = console
        self._stderr = bytearray()
        self._monitor = QMPClient(machine.name)
        self._pairs = {name: socket.socketpair() for name in ("monitor", "console", *_port_names())}
        self.ports = Ports(machine.name, [self._pairs[name][0] for name in _port_names()])
        self._console_writer: asyncio.StreamWriter | None = None

    def command(self, initrd: Path | None) -> list[str]:
        """The whole line."""
        numbers = {name: pair[1].fileno() for name, pair in self._pairs.items()}
        return command_line(self._qemu, self._machine, self.accelerator, initrd, numbers)

    async def run(self, beside: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start; when the monitor answers run `beside`, and serve until QEMU has ended.

        Raises PeerGone when it does not come up.
        """
        complaints, theirs = os.pipe()
        try:
            with joined_initrd(self._machine) as (initrd, held):
                self._spawn(initrd, held, theirs)
        except BaseException:
            os.close(complaints)
            self._close_pairs(0)
            raise
        finally:
            os.close(theirs)
            self._close_pairs(1)
        exited = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(exited, ended.set)
        try:
            async with _together(
                self._read_complaints(complaints),
                self._read_console(),
                *(port.serve() for port in self.ports.ports),
            ):
                await self._connect(ended)
                async with _together(self._watch_events(), beside()):
                    await ended.wait()
        finally:
            loop.remove_reader(exited)
            os.close(exited)
            await self._reap()

    def _spawn(self, initrd: Path | None, held: Iterable[int], stderr: int) -> None:
        numbers = [pair[1].fileno() for pair in self._pairs.values()]
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            self.command(initrd), stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
            pass_fds=(*numbers, *held), start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, nothing that locks
        )  # fmt: skip
        self.pid = self._process.pid

    async def _connect(self, ended: asyncio.Event) -> None:
        connecting = asyncio.ensure_future(self._monitor.connect(self._pairs["monitor"][0]))
        waiting = asyncio.ensure_future(ended.wait())
        await asyncio.wait(
            {connecting, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=_ANSWER_SECONDS
        )
        waiting.cancel()
        if not connecting.done():
            connecting.cancel()
        with contextlib.suppress(QMPError, OSError, EOFError, asyncio.CancelledError):
            await connecting
            return
        await self._reap()
        raise PeerGone(f"QEMU ended before the guest started: {self.complaint}")

    @property
    def complaint(self) -> str:
        """The last line that QEMU wrote on its standard error, without its own name in front."""
        lines = [shown for line in bytes(self._stderr).splitlines() if (shown := printable(line))]
        return lines[-1].partition(": ")[2] or lines[-1] if lines else f"exit code {self.exit_code}"

    async def _read_complaints(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb", buffering=0) as pipe:
            async for data in _chunks_of_pipe(pipe):
                self._stderr += data
                del self._stderr[:-_KEPT_STDERR]

    async def _read_console(self) -> None:
        reader, self._console_writer = await asyncio.open_connection(sock=self._pairs["console"][0])
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self._console.feed(data)
        self._console_writer.close()

    def write_console(self, data: bytes) -> None:
        """As typed on the console."""
        if self._console_writer is not None and not self._console_writer.is_closing():
            self._console_writer.write(data)

    async def _watch_events(self) -> None:
        event: Any
        async for event in self._monitor.events:
            kind = event["event"]
            if kind == "RESET":
                self.ports.each(lambda port: port.restarted())
            elif kind == "SHUTDOWN":
                self.was_reset = event["data"].get("reason") == "guest-reset"
            elif kind == "STOP":
                status: Any = await self._monitor.execute("query-status")
                if status["status"] == "internal-error":
                    self.gave_up = True
                    self._process.kill()

    async def ask(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """A monitor command. Raises VfwireError with QEMU's words, PeerGone, WaitTimeout."""
        try:
            return await asyncio.wait_for(self._monitor.execute(command, arguments), _ANSWER_SECONDS)
        except ExecInterruptedError as error:
            raise PeerGone(f"{self._machine.name} ended in the middle of {command}") from error
        except QMPError as error:
            raise VfwireError(f"{self._machine.name}: {command}: {error}") from error
        except TimeoutError as error:
            raise WaitTimeout(f"{self._machine.name}: QEMU's monitor did not answer {command}") from error

    async def quit(self) -> None:
        """End QEMU: asked first, killed after some seconds."""
        with contextlib.suppress(QMPError, OSError, TimeoutError):
            await asyncio.wait_for(self._monitor.execute("quit"), _QUIT_SECONDS)
            return
        self.kill()

    def kill(self) -> None:
        if self.pid:
            self._process.kill()

    async def _reap(self) -> None:
        """No zombie and no connection stays."""
        if self._process.poll() is None:
            self._process.kill()
        self.exit_code = self._process.wait()
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._monitor.disconnect()
        self._close_pairs(0)

    def _close_pairs(self, end: int) -> None:
        for pair in self._pairs.values():
            pair[end].close()


def command_line(
    qemu: Qemu, machine: Machine, accelerator: str, initrd: Path | None, descriptors: dict[str, int]
) -> list[str]:
    """QEMU's whole line. descriptors: for monitor, console and ports, those that it inherits."""
    options = [str(qemu.path), *hardware(machine, OPTIONS[accelerator]), *boot(machine, initrd)]
    for name, number in descriptors.items():
        options += ["-chardev", f"socket,id={name},fd={number}"]
    options += ["-mon", "chardev=monitor,mode=control", "-serial", "chardev:console"]
    options += ["-device", "virtio-serial-pci,id=ports"]
    for name in _port_names():
        options += ["-device", f"virtserialport,bus=ports.0,chardev={name},name=vfwire.{name}"]
    return options


def _port_names() -> list[str]:
    return [f"command{number}" for number in range(COMMAND_PORTS)]


@contextlib.asynccontextmanager
async def _together(*work: Any) -> AsyncIterator[None]:
    """Tasks that run beside the block; those that are not done at its end get a moment, then are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        await asyncio.wait(tasks, timeout=0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _chunks_of_pipe(pipe: Any) -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        while data := await reader.read(4096):
            yield data
    finally:
        transport.close()
