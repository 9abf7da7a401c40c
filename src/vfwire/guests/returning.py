"""Functions whose card went away and came back: QEMU does not reconnect, so they are plugged in anew.

Into a spare slot, because QEMU (seen with 11.1.3) aborts when a vfio-user device with MSI-X is taken out: its
hw/vfio-user/pci.c removes the PBA's memory region a second time (`memory_region_del_subregion`, "container == mr").
The dead device stays where it is, its driver has noted "Adapter removed", and it disturbs nobody, until the guest is
reset: then QEMU would abort on the dead socket ("DMA mapping failed"). A guest that holds a dead device is therefore
ended at its reset, and started as new: all that a reset is.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from vfwire.errors import VfwireError
from vfwire.guests.emulator import Emulator
from vfwire.guests.machine import SPARE_SLOTS, Machine, returned_device

_LOOK_SECONDS = 0.25

Identity = tuple[int, int, int] | None


class Returning:
    """Watches the functions of one guest, from the start of its emulator to its end."""

    def __init__(self, emulator: Emulator, machine: Machine, note: Callable[[str], None]) -> None:
        self._emulator = emulator
        self._machine = machine
        self._note = note
        self._plugged = [_identity(path) for path in machine.functions]
        self._missing = [False for _ in machine.functions]
        self._spares = list(range(SPARE_SLOTS))

    async def watch(self) -> None:
        """Look at the sockets until cancelled: a card that starts again makes new ones."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for index, path in enumerate(self._machine.functions):
                now = _identity(path)
                if now == self._plugged[index]:
                    continue
                if now is None:
                    await self._mourn(index)
                else:
                    await self._plug(index, now)

    async def _mourn(self, index: int) -> None:
        if not self._missing[index]:
            self._missing[index] = True
            await self._end_at_reset()
            self._note(f"the card behind {self._machine.functions[index]} is gone; waiting for it")

    async def _plug(self, index: int, identity: Identity) -> None:
        if not self._spares:
            self._plugged[index] = identity
            self._note(f"the card is back, but {self._machine.name} has no spare slot left: reboot the guest")
            return
        slot = self._spares[0]
        try:
            await self._emulator.ask("device_add", returned_device(self._machine, index, slot))
        except VfwireError:
            return  # its socket is there, the card does not answer yet: the next look tries again
        self._spares.pop(0)
        self._plugged[index], self._missing[index] = identity, False
        await self._end_at_reset()
        self._note(f"the card is back: {self._machine.functions[index]} is plugged in again, as a new device")

    async def _end_at_reset(self) -> None:
        await self._emulator.ask("set-action", {"reboot": "shutdown"})
        self._emulator.holds_dead_device = True


def _identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
