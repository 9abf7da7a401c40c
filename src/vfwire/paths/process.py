"""Processes of a path: forked from one parent that has everything compiled, told what to do by JSON lines,
gone with it.

    parent (Family) ── socketpair ──► child (serve): {"verb": "open", …} ◄► {"ok": …} or {"error": …}

A child that dies turns every wait of the parent into PeerGone, which names it. A parent that dies, even by
SIGKILL, takes its children along: the kernel signals them (prctl PR_SET_PDEATHSIG), their channel ends, and
whoever is still able to removes the run directory.
"""

import ctypes
import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

from vfwire import errors
from vfwire.errors import PeerGone, VfwireError, WaitTimeout
from vfwire.paths.rundir import RunDirectory, remove_directory

_log = logging.getLogger(__name__)
_PR_SET_NAME = 15
_PR_SET_PDEATHSIG = 1
_CLOSE_SECONDS = 2.0
_ANSWER_SECONDS = 30.0


class Role(Protocol):
    """What a child does: a method `do_<verb>(**arguments) -> JSON value` for each verb, and an end.

    `busy` tells that its main thread spends its time in compiled loops, where no signal handler of Python's
    can run.
    """

    busy: bool

    def close(self) -> None: ...


class Channel:
    """JSON lines over a stream socket. `receive` returns None at its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pending = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Raises PeerGone when nobody reads any more."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise PeerGone("the control channel has ended") from error

    def receive(self) -> dict[str, Any] | None:
        while b"\n" not in self._pending:
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._socket.close()


class Child:
    """The parent's side of one process."""

    def __init__(self, name: str, pid: int, channel: Channel) -> None:
        self.name = name
        self.pid = pid
        self.channel = channel
        self.pidfd = os.pidfd_open(pid)
        self.alive = True
        self._cpu_clock = _cpu_clock_of(pid)

    def cpu_ns(self) -> int:
        """CPU time that the process has used, all threads. Raises PeerGone when it is gone."""
        try:
            return time.clock_gettime_ns(self._cpu_clock)
        except OSError as error:
            raise PeerGone(f"{self.name} ended") from error

    @property
    def answered(self) -> bool:
        """True when an answer waits to be fetched."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def reap(self) -> None:
        """Note its end; no zombie stays."""
        if self.alive:
            self.alive = False
            os.waitpid(self.pid, 0)
            os.close(self.pidfd)
            self.channel.close()


def _cpu_clock_of(pid: int) -> int:
    clock = ctypes.c_int()
    number = ctypes.CDLL(None).clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock))
    if number != 0:
        raise OSError(number, os.strerror(number))
    return clock.value


class Family:
    """All children of one run, and their run directory. Use as a context manager; fork before starting any
    thread.
    """

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.directory = RunDirectory()

    def fork(self, name: str, make_role: Callable[[], Role]) -> Child:
        """Start a process. `make_role` runs in the child; what it raises is reported at the first call."""
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for other in self.children:
                other.channel.close()
                os.close(other.pidfd)
            _become(name, parent, Channel(theirs), make_role, self.directory.path)
        theirs.close()
        child = Child(name, pid, Channel(ours))
        self.children.append(child)
        return child

    def send(self, child: Child, verb: str, **arguments: Any) -> None:
        """Ask without waiting for the answer: fetch that by `wait_answer`."""
        self.check()
        try:
            child.channel.send({"verb": verb, **arguments})
        except PeerGone:
            self._raise_gone(child)

    def call(self, child: Child, verb: str, **arguments: Any) -> Any:
        """Ask and wait. Raises what the child raised, PeerGone when any child ends, WaitTimeout."""
        self.send(child, verb, **arguments)
        return self.wait_answer(child)

    def wait_answer(self, child: Child, seconds: float = _ANSWER_SECONDS) -> Any:
        deadline = time.monotonic() + seconds
        while not self._ready(deadline - time.monotonic(), child):
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"{child.name} did not answer in {seconds:g} s")
        answer = child.channel.receive()
        if answer is None:
            self._raise_gone(child)
        if "error" in answer:
            raise _rebuild(child.name, answer["error"])
        return answer["ok"]

    def wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for `condition`, watching over all children. Raises WaitTimeout, which says what was waited
        for.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"{what} did not happen in {seconds:g} s")
            self._ready(min(left, 0.001))

    def wait_time(self, seconds: float) -> None:
        """Let the children work for that long: a measured window. Raises PeerGone as soon as one ends."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._ready(left)

    def check(self) -> None:
        """Raises PeerGone when a child has ended."""
        self._ready(0)

    def _ready(self, seconds: float, child: Child | None = None) -> bool:
        """True when an answer of `child` is there. Returns early for that only. Raises PeerGone."""
        poll = select.poll()
        for other in self.children:
            if not other.alive:
                self._raise_gone(other)
            poll.register(other.pidfd, select.POLLIN)
        if child is not None:
            poll.register(child.channel.fileno(), select.POLLIN)
        found = {fd for fd, _ in poll.poll(max(0, seconds * 1000))}
        if child is not None and child.channel.fileno() in found:
            return True
        for other in self.children:
            if other.pidfd in found:
                self._raise_gone(other)
        return False

    def _raise_gone(self, child: Child) -> NoReturn:
        how = ""
        if child.alive:
            status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
            child.alive = False
            os.close(child.pidfd)
            child.channel.close()
            how = f" by signal {-status}" if status < 0 else f" with exit code {status}"
        raise PeerGone(f"{child.name} ended{how} while it was needed", "run it again")

    def close(self, children: Iterable[Child] | None = None) -> None:
        """End these children (all by default), politely, then not; remove the run directory with the last of
        them.
        """
        chosen = list(self.children if children is None else children)
        living = [child for child in chosen if child.alive]
        for child in living:
            try:
                child.channel.send({"verb": "end"})
            except PeerGone:
                continue
        deadline = time.monotonic() + _CLOSE_SECONDS
        for child in living:
            if not wait_exit(child.pidfd, deadline - time.monotonic()):
                _log.debug("%s is killed: it did not end by itself", child.name)
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            child.reap()
        self.children = [child for child in self.children if child not in chosen]
        if not self.children:
            self.directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_exit(pidfd: int, seconds: float) -> bool:
    """True when the process has ended within that time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, seconds * 1000)))


def _rebuild(name: str, error: dict[str, str]) -> VfwireError:
    kind = getattr(errors, error["kind"], VfwireError)
    rebuilt: VfwireError = kind(f"{name}: {error['message']}", error["hint"])
    return rebuilt


def _become(
    name: str, parent: int, channel: Channel, make_role: Callable[[], Role], directory: Path
) -> NoReturn:
    """The child's life. Never returns into the parent's code."""
    code, told = 1, False
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's to handle
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        path, _, part = name.partition(" ")
        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"vf-{part} {path}"[:15].encode())  # what ps shows has 15 bytes
        told = _serve(name, parent, channel, make_role)
        code = 0
    except BaseException:
        _log.exception("%s ended by an error", name)
    finally:
        if not told:
            remove_directory(directory)
        logging.shutdown()
        os._exit(code)


def _serve(name: str, parent: int, channel: Channel, make_role: Callable[[], Role]) -> bool:
    """Answer until the end. True when the parent said so, False when it went without a word."""
    role: Role | None = None
    told = False
    try:
        while (message := channel.receive()) is not None:
            verb = message.pop("verb")
            if verb == "end":
                told = True
                break
            try:
                if role is None:
                    role = make_role()
                    if role.busy:
                        _die_with(parent)
                answer = {"ok": getattr(role, f"do_{verb}")(**message)}
            except VfwireError as error:
                kind = type(error).__name__
                answer = {"error": {"kind": kind, "message": error.message, "hint": error.hint}}
            except Exception as error:
                _log.debug("%s: %s failed", name, verb, exc_info=True)
                text = f"{verb} failed: {type(error).__name__}: {error}"
                answer = {"error": {"kind": "VfwireError", "message": text, "hint": ""}}
            channel.send(answer)
    except PeerGone:
        _log.debug("%s: the parent is gone", name)
    finally:
        if role is not None:
            role.close()
    return told


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent: it will not look at its channel while it is busy."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise PeerGone("the parent is gone")
