"""A guest's console on this terminal, until the guest ends or Ctrl-] is pressed (as with `virsh console`)."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator

from vfwire.guests.guest import Guest

ESCAPE = b"\x1d"
_LOOK_SECONDS = 0.2


def show(data: bytes) -> None:
    """What the guest says, as it is: the terminal is the guest's."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def relay(guest: Guest, stopped: Iterator[bool]) -> None:
    """Hand on what is typed until the guest has ended, Ctrl-] or `stopped`. After a piped input's end only wait."""
    source = sys.stdin.fileno()
    reading = True
    with _raw(source):
        while not guest.wait_end(0 if reading else _LOOK_SECONDS) and not next(stopped):
            if not reading or not select.select([source], [], [], _LOOK_SECONDS)[0]:
                continue
            data = os.read(source, 4096)
            before, escape, _ = data.partition(ESCAPE)
            guest.write_console(before)
            if escape:
                return
            reading = bool(data)


@contextlib.contextmanager
def _raw(source: int) -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C too; put back at the end."""
    if not os.isatty(source):
        yield
        return
    before = termios.tcgetattr(source)
    try:
        tty.setraw(source)
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)
