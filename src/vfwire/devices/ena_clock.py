"""The ENA's precision clock (PHC): the driver writes a request to a doorbell and the time comes by DMA.

The clock is this machine's real-time clock. The bound that is told is what reading it takes here, since nothing better
is known of it: a host that keeps its own clock by PTP or NTP knows more.
"""

import time

import numpy as np

from vfwire.devices.guest_memory import GuestMemory
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages
from vfwire.layouts.ena_registers import PHC_DB, PHC_DB_REQ_ID_MASK

# A doorbell that traps takes up to some 0.3 ms, more on a busy machine.
_EXPIRE_US = 20_000
_BLOCK_US = 40_000
_REQUEST = 0  # offset of the word that holds the request's number


class Clock:
    """One function's. `output`: where its guest wants the time, 0 for nowhere."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.output = 0
        self.requests = 0

    def describe(self) -> bytes:
        answer = np.zeros((), messages.PHC_DESC)
        answer["version"] = admin.PHC_FEATURE_VERSION_0
        answer["doorbell_offset"] = PHC_DB
        answer["expire_timeout_usec"] = _EXPIRE_US
        answer["block_timeout_usec"] = _BLOCK_US
        return answer.tobytes()

    def ring(self, value: int) -> None:
        """The doorbell: answer with the time. Nothing happens where the driver has given no place for it."""
        if not self.output:
            return
        self.requests += 1
        before = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_REALTIME)
        answer = np.zeros((), messages.PHC_RESPONSE)
        answer["req_id"] = value & PHC_DB_REQ_ID_MASK
        answer["timestamp"] = after
        answer["error_bound"] = max(1, after - before)
        self._memory.write(self.output, answer.tobytes(), last=_REQUEST)
