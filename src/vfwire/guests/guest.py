"""A guest on a card: started, asked, watched and ended, from ordinary code.

One thread for each guest runs an event loop; QEMU is its child and dies with it, so with this process, however it ends.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from vfwire.errors import PeerGone, VfwireError, WaitTimeout
from vfwire.guests import accelerator as accelerators
from vfwire.guests.commands import Done
from vfwire.guests.console import Console
from vfwire.guests.diagnosis import check_before, explain_start
from vfwire.guests.emulator import Emulator
from vfwire.guests.machine import Machine
from vfwire.guests.qemu import Qemu, find_qemu
from vfwire.guests.returning import Returning

T = TypeVar("T")
_START_SECONDS = 60.0
_CLOSE_SECONDS = 20.0
_POWER_OFF_SECONDS = 30.0


class Guest:
    """A running guest. Use as a context manager: nothing of it is left after the block.

    qemu: as `find_qemu` gives it. accelerator: "auto", "kvm" or "tcg". From the guest's thread are called: hand_on,
    with what the console says; note, with news in one line (a card that went away or came back).

    Starting raises UnsupportedMachine, ResourceBusy (a socket that another guest uses), PeerGone (no card there) and
    UsageError; later calls raise PeerGone once the guest has ended, with the reason.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        qemu: Qemu | None = None,
        accelerator: str = "auto",
        hand_on: Callable[[bytes], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.machine = machine
        self.end: VfwireError | None = None  # why it is over, once it is
        self._qemu = qemu or find_qemu()
        self.notes: list[str] = []
        self._on_note = note
        self._candidates = accelerators.candidates(accelerator)
        self._console = Console(self._watch_console(hand_on))
        self._emulator: Emulator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._over = threading.Event()
        self._closing = False
        check_before(machine)
        self._thread = threading.Thread(target=self._live, name=f"guest {machine.name}", daemon=True)
        self._thread.start()
        try:
            self._started.result(_START_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._running.pid

    @property
    def accelerator(self) -> str:
        """What runs its instructions: "kvm" or "tcg"."""
        return self._running.accelerator

    @property
    def console(self) -> str:
        """What the guest has said on its console, at most the last MiB."""
        return self._console.text

    @property
    def alive(self) -> bool:
        return not self._over.is_set()

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until it takes commands (images of `vfwire guest build`). Raises WaitTimeout, PeerGone."""
        self._call(self._wait_ready(), seconds, "was not up")

    def run(self, command: str, timeout: float = 30.0) -> Done:
        """Run a shell script in the guest; its exit code is in the answer. Raises WaitTimeout, PeerGone."""
        return self._call(
            self._run(command, timeout), timeout + _START_SECONDS, f"did not run {command[:60]!r}"
        )

    def check(self, command: str, timeout: float = 30.0) -> str:
        """What a command prints. Raises VfwireError when its exit code is not 0."""
        done = self.run(command, timeout)
        if done.code != 0:
            last = (done.output.strip().splitlines() or ["no word"])[-1]
            raise VfwireError(f"{self.machine.name}: {command[:80]!r} ended with {done.code}: {last}")
        return done.output

    def monitor(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """A command for QEMU's monitor (QMP). Raises VfwireError, PeerGone."""
        return self._call(self._running.ask(command, arguments), _START_SECONDS, f"did not answer {command}")

    def write_console(self, data: bytes) -> None:
        """As typed on the console."""
        if self._loop is not None and self._emulator is not None and self.alive:
            self._loop.call_soon_threadsafe(self._emulator.write_console, data)

    def wait_end(self, seconds: float | None = None) -> bool:
        """True when the guest has ended by then. Why is in `end` (None: it powered itself off)."""
        return self._over.wait(seconds)

    def power_off(self, seconds: float = _POWER_OFF_SECONDS) -> bool:
        """Press the power button. False when the guest has not ended by then."""
        self.monitor("system_powerdown")
        return self.wait_end(seconds)

    def kill(self) -> None:
        """End QEMU at once, as a crash would."""
        self._running.kill()
        self._over.wait(_CLOSE_SECONDS)

    def close(self) -> None:
        """End it, if it runs. Safe to call twice."""
        self._closing = True
        if self._loop is not None and self._emulator is not None and self.alive:
            asyncio.run_coroutine_threadsafe(self._emulator.quit(), self._loop)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive() and self._emulator is not None:
            self._emulator.kill()
            self._thread.join(_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    # What follows runs in the guest's thread.

    def _live(self) -> None:
        try:
            asyncio.run(self._life())
        except BaseException as error:
            self._finish(
                error if isinstance(error, VfwireError) else VfwireError(f"{self.machine.name}: {error!r}")
            )
        else:
            self._finish(None)
        finally:
            self._over.set()

    def _finish(self, error: VfwireError | None) -> None:
        self.end = error
        if not self._started.done():
            self._started.set_exception(error or PeerGone(f"{self.machine.name} ended at once"))

    async def _life(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_callers_are_told)
        while not self._closing:
            self._emulator = Emulator(self._qemu, self.machine, self._candidates[0], self._console)
            try:
                await self._emulator.run(self._beside)
            except PeerGone as error:
                if len(self._candidates) == 1:
                    raise explain_start(self.machine, error) from error
                self._candidates.pop(0)
                continue
            finally:
                self._emulator.ports.each(lambda port: port.fail(self._gone()))
            if self._emulator.gave_up:
                accelerators.note_failure()
                if len(self._candidates) == 1:
                    raise VfwireError(
                        "KVM gave up on the guest (internal error)", "leave --accel out, or choose tcg"
                    )
                self._candidates.pop(0)
                self._say(f"KVM gave up on the guest: it starts again under {self._candidates[0]}")
            elif not (self._emulator.was_reset and self._emulator.holds_dead_device):
                break
        if self._console.panic or self._running.exit_code != 0:
            raise self._gone()

    async def _beside(self) -> None:
        """Once the emulator runs."""
        if not self._started.done():
            self._started.set_result(None)
        await Returning(self._running, self.machine, self._say).watch()

    def _say(self, text: str) -> None:
        self.notes.append(text)
        if self._on_note is not None:
            self._on_note(text)

    def _gone(self) -> PeerGone:
        name, code = self.machine.name, self._emulator.exit_code if self._emulator else 0
        if self._console.panic:
            return PeerGone(f"{name}: kernel panic: {self._console.panic}", "the console above says more")
        if code < 0:
            return PeerGone(f"{name}: QEMU was ended by signal {-code}")
        if code > 0:
            complaint = self._emulator.complaint if self._emulator else ""
            return PeerGone(f"{name}: QEMU ended with exit code {code}: {complaint}")
        return PeerGone(f"{name} has ended", f"it last said: {self._console.last_line}")

    def _watch_console(self, hand_on: Callable[[bytes], None] | None) -> Callable[[bytes], None]:
        def watch(data: bytes) -> None:
            if hand_on is not None:
                hand_on(data)
            for device in self._console.new_driverless():
                self._say(
                    f"the guest's kernel has no driver for {device}: use one that has, or load its module"
                )
            if self._console.panic and self._emulator is not None:
                self._emulator.kill()  # a guest that panicked does nothing more

        return watch

    async def _wait_ready(self) -> None:
        while True:  # another emulator takes over when KVM gives up
            emulator = self._running
            with_end = asyncio.ensure_future(emulator.ports.wait_ready())
            done, _ = await asyncio.wait({with_end}, timeout=0.5)
            if done:
                return
            with_end.cancel()

    async def _run(self, command: str, timeout: float) -> Done:
        return await self._running.ports.run(command, timeout)

    @property
    def _running(self) -> Emulator:
        assert self._emulator is not None
        return self._emulator

    def _call(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        """Run `work` in the guest's loop and wait for it, for its end, or for too long."""
        if self._loop is None or not self.alive:
            work.close()
            raise self.end or self._gone()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise WaitTimeout(
                f"{self.machine.name} {what} in {seconds:g} s", f"it last said: {self._console.last_line}"
            ) from None
        except concurrent.futures.CancelledError:
            raise self.end or self._gone() from None


def _callers_are_told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a command in the guest failed with, at the guest's end, is raised where it was asked for: no log line."""
    if not isinstance(context.get("exception"), VfwireError):
        loop.default_exception_handler(context)
