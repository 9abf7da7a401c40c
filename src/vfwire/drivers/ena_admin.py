"""An ENA driver's talk with its device: registers read without reads, commands, features (amzn-drivers, ena_com.c).

A register is read by writing its offset to MMIO_REG_READ: the device answers by DMA. A command is 64 bytes in a ring of
our memory, announced by one trapped write; its completion comes into another ring. Waits are bounded.
"""

import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfwire.drivers.verbs import Pool
from vfwire.errors import ProtocolError, WaitTimeout
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg
from vfwire.layouts import ena_registers as reg
from vfwire.layouts.pci import REVISION_ID
from vfwire.memory.shared import PAGE
from vfwire.pci.function import Function

DEPTH = 32  # entries of the admin queue and of its completion queue
SECONDS = 3.0  # for one command: what every driver waits (ADMIN_CMD_TIMEOUT_US)
READ_SECONDS = 0.2
_READ_TRIES = 5
_REGIONS = {
    "queue": DEPTH * 64,
    "completions": DEPTH * 64,
    "response": 64,
    "clock": 64,
    "buffer": PAGE,
    "host": PAGE,
}


class CommandRefused(ProtocolError):
    """The device answered a command with another status than success."""

    def __init__(self, what: str, status: int) -> None:
        name = admin.STATUS_NAMES.get(status, f"status {status}")
        super().__init__(f"the ENA refuses {what}: {name}")
        self.status = status


class Admin:
    """The control path of one ENA. `iova`: the I/O address of the pool's first byte. One thread at a time.

    `seconds`, `read_seconds`: how long a command and a readless read may take; a device can hint at other times.
    """

    def __init__(self, function: Function, pool: Pool) -> None:
        self._function = function
        self._pool = pool
        self._at = {name: pool.reserve(size, 64) for name, size in _REGIONS.items()}
        self._view = {name: pool.view(at, _REGIONS[name]) for name, at in self._at.items()}
        self._readless = not function.config_read(REVISION_ID, 1) & reg.PCI_REVISION_MMIO_READ_DISABLE
        self._requests = self._sent = 0
        self._delta = 0
        self.seconds, self.read_seconds = SECONDS, READ_SECONDS

    def connect(self, iova: int) -> None:
        """Our memory is mapped for DMA at `iova`: the device may answer."""
        self._delta = iova - self._pool.memory.address
        self._write_address(reg.MMIO_RESP_LO, self.iova("response"))

    def iova(self, name: str) -> int:
        return self._at[name] + self._delta

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of "buffer" (a control buffer, one page), "host" (the host information page) or "clock"."""
        return self._view[name]

    def write(self, offset: int, value: int) -> None:
        """Write a register whose place the device has told."""
        self._function.write32(0, offset, value)

    def _write_address(self, low: int, iova: int) -> None:
        self._function.write32(0, low, iova & 0xFFFFFFFF)
        self._function.write32(0, low + 4, iova >> 32)

    # --- Registers -----------------------------------------------------------------------------------------

    def read(self, offset: int) -> int:
        """The register at `offset`. Raises WaitTimeout where the device does not answer."""
        if not self._readless:
            return self._function.read32(0, offset)
        for _ in range(_READ_TRIES):
            value = self._ask(offset)
            if value is not None:
                return value
        raise WaitTimeout(f"the ENA does not answer a read of register 0x{offset:x}")

    def _ask(self, offset: int) -> int | None:
        self._requests = (self._requests + 1) & reg.MMIO_REG_READ_REQ_ID_MASK
        response = self._view["response"][: msg.MMIO_RESPONSE.itemsize].view(msg.MMIO_RESPONSE)
        response["req_id"] = self._requests ^ reg.MMIO_REG_READ_REQ_ID_MASK
        request = offset << reg.MMIO_REG_READ_REG_OFF_SHIFT | self._requests
        self._function.write32(0, reg.MMIO_REG_READ, request)
        deadline = time.monotonic() + self.read_seconds
        while int(response["req_id"][0]) != self._requests:
            if time.monotonic() > deadline:
                return None
            os.sched_yield()
        return int(response["reg_val"][0]) if int(response["reg_off"][0]) == offset else None

    def reset(self, reason: int) -> None:
        """Reset the device for a RESET_* reason, in two steps as DEV_CTL wants it. Raises WaitTimeout."""
        caps = self.read(reg.CAPS)
        seconds = max((caps & reg.CAPS_RESET_TIMEOUT_MASK) >> reg.CAPS_RESET_TIMEOUT_SHIFT, 1) / 10
        control = reg.DEV_CTL_DEV_RESET_MASK | (reason & 0xF) << reg.DEV_CTL_RESET_REASON_SHIFT
        control |= (reason >> 4) << reg.DEV_CTL_RESET_REASON_EXT_SHIFT
        self._function.write32(0, reg.DEV_CTL, control)
        self._write_address(reg.MMIO_RESP_LO, self.iova("response"))  # a reset forgets it
        self._wait_status(reg.DEV_STS_RESET_IN_PROGRESS_MASK, seconds)
        self._function.write32(0, reg.DEV_CTL, 0)
        self._wait_status(0, seconds)

    def _wait_status(self, wanted: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (status := self.read(reg.DEV_STS)) & reg.DEV_STS_RESET_IN_PROGRESS_MASK != wanted:
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the ENA's reset takes more than {seconds:g} s (status 0x{status:x})")
            os.sched_yield()

    # --- Commands ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Set up the admin queue, after a reset; completions are polled for."""
        self._sent = 0
        for name, base, caps in (
            ("queue", reg.AQ_BASE_LO, reg.AQ_CAPS),
            ("completions", reg.ACQ_BASE_LO, reg.ACQ_CAPS),
        ):
            self._view[name][:] = 0
            self._write_address(base, self.iova(name))
            self._function.write32(0, caps, msg.AQ_ENTRY_BYTES << reg.AQ_CAPS_AQ_ENTRY_SIZE_SHIFT | DEPTH)
        self._function.write32(0, reg.INTR_MASK, 1)

    def command(self, opcode: int, entry: Any, *, what: str, buffer: int = 0) -> bytes:
        """Execute one command and return its answer (56 bytes, after the completion's head).

        entry: a structure of ena_messages whose head and control buffer are filled in here. buffer: bytes of
        "buffer" that go with it. Raises CommandRefused, WaitTimeout.
        """
        place = self._sent % DEPTH
        head = entry["aq_common_descriptor"]
        head["command_id"], head["opcode"] = self._sent & admin.AQ_COMMON_DESC_COMMAND_ID_MASK, opcode
        head["flags"] = 1 - self._sent // DEPTH % 2
        if buffer:
            # As vendors' drivers have it: the flag of an indirect buffer, and yet the address of the data itself.
            head["flags"] |= admin.AQ_COMMON_DESC_CTRL_DATA_INDIRECT_MASK
            where = entry["control_buffer"]
            where["length"] = buffer
            put_address(where["address"], self.iova("buffer"))
        raw = entry.tobytes().ljust(msg.AQ_ENTRY_BYTES, b"\0")
        self._view["queue"][place * 64 : place * 64 + 64] = np.frombuffer(raw, np.uint8)
        self._sent += 1
        self._function.write32(0, reg.AQ_DB, self._sent & 0xFFFF)
        return self._wait_completion(place, int(head["flags"]) & 1, what)

    def _wait_completion(self, place: int, phase: int, what: str) -> bytes:
        entry = self._view["completions"][place * 64 : place * 64 + 64]
        head = entry[: msg.ACQ_ANSWER].view(msg.ACQ_COMMON)
        deadline = time.monotonic() + self.seconds
        while int(head["flags"][0]) & admin.ACQ_COMMON_DESC_PHASE_MASK != phase:
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the ENA does not complete {what} in {self.seconds:g} s", "reset it")
            self._function.check_peer()
            os.sched_yield()
        if status := int(head["status"][0]):
            raise CommandRefused(what, status)
        return entry[msg.ACQ_ANSWER :].tobytes()

    def get_feature(self, feature: int, kind: Any, *, version: int = 0, buffer: int = 0) -> Any:
        """A feature's structure (a record of dtype `kind`); with `buffer`, more lies in "buffer" afterwards."""
        answer = self.command(
            admin.GET_FEATURE,
            _feature(feature, version),
            what=f"to tell {admin.FEATURE_NAMES[feature]}",
            buffer=buffer,
        )
        return np.frombuffer(answer[: kind.itemsize], kind)[0]

    def set_feature(self, feature: int, data: Any = None, *, version: int = 0, buffer: int = 0) -> None:
        """Set a feature by its structure `data`; with `buffer`, that many bytes of "buffer" go with it."""
        entry = _feature(feature, version)
        if data is not None:
            raw = data.tobytes().ljust(entry["raw"].nbytes, b"\0")
            entry["raw"] = np.frombuffer(raw, "<u4")
        what = f"to set {admin.FEATURE_NAMES[feature]}"
        self.command(admin.SET_FEATURE, entry, what=what, buffer=buffer)


def _feature(feature: int, version: int) -> Any:
    entry = np.zeros((), msg.FEATURE_CMD)
    entry["feat_common"]["feature_id"], entry["feat_common"]["feature_version"] = feature, version
    return entry


def put_address(where: Any, iova: int) -> None:
    """Write a 48-bit I/O address into a MEM_ADDR structure."""
    where["mem_addr_low"], where["mem_addr_high"] = iova & 0xFFFFFFFF, iova >> 32
