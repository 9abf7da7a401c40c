"""A guest's console: kept to a bounded length, watched for the kernel's last words, handed on."""

import re
from collections.abc import Callable

_KEPT = 1 << 20
_LONGEST_LINE = 4096
_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]*)[\r\n]")
_NO_DRIVER = re.compile(
    rb"vfwire: no driver for ([0-9a-f:.]{4,16} \([0-9a-fx:]{3,20}\))\r?\n"
)  # said by init.sh
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """What a guest has said. `panic` is the kernel's reason once it has panicked, else ""."""

    def __init__(self, hand_on: Callable[[bytes], None] | None = None) -> None:
        self.panic = ""
        self._driverless: list[str] = []
        self._kept = bytearray()
        self._hand_on = hand_on

    def feed(self, data: bytes) -> None:
        watched = bytes(self._kept[-_LONGEST_LINE:]) + data
        found = _PANIC.search(watched)
        if found and not self.panic:
            self.panic = printable(found[1]) or "no reason given"
        for found_device in _NO_DRIVER.finditer(watched):
            if found_device.end() > len(watched) - len(data):  # not seen before
                self._driverless.append(printable(found_device[1]))
        self._kept += data
        if len(self._kept) > 2 * _KEPT:
            del self._kept[:-_KEPT]
        if self._hand_on is not None:
            self._hand_on(data)

    def new_driverless(self) -> list[str]:
        """Network devices that no driver has taken, as "0000:01:00.0 (0x8086:0x10ed)", each told once."""
        told, self._driverless = self._driverless, []
        return told

    @property
    def text(self) -> str:
        return self._kept[-_KEPT:].decode(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line with something in it, fit to be shown in an error."""
        for line in reversed(bytes(self._kept[-_LONGEST_LINE:]).splitlines()):
            if shown := printable(line):
                return shown
        return "nothing"


def printable(line: bytes) -> str:
    """A guest's words without what would move a terminal's cursor, at most 200 characters."""
    return _CONTROL.sub("", line.decode(errors="replace")).strip()[:200]
