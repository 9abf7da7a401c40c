"""An ENA's precision clock (PHC): a request by doorbell, the time by DMA (amzn-drivers, ena_com.c, ena_com_phc_…)."""

import os
import time
from typing import NamedTuple

import numpy as np

from vfwire.drivers.ena_admin import Admin, put_address
from vfwire.errors import ProtocolError, WaitTimeout
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg
from vfwire.layouts import ena_registers as reg

_ERRORS = admin.PHC_ERROR_FLAG_TIMESTAMP | admin.PHC_ERROR_FLAG_ERROR_BOUND
_NO_TIMEOUT_US = 10  # what every driver waits where the device names no time


class Reading(NamedTuple):
    """ns of the device's clock, and by how much it may be wrong."""

    time_ns: int
    error_bound_ns: int


class PreciseClock:
    """The clock of the ENA that `control` talks to. Build it anew after a reset.

    Raises CommandRefused where the device has none, ProtocolError for a version that is not known.
    """

    def __init__(self, control: Admin) -> None:
        self._control = control
        told = control.get_feature(admin.PHC_CONFIG, msg.PHC_DESC, version=admin.PHC_FEATURE_VERSION_0)
        if int(told["version"]) != admin.PHC_FEATURE_VERSION_0:
            raise ProtocolError(f"the ENA's clock is of version {int(told['version'])}, which is not known")
        self._doorbell = int(told["doorbell_offset"])
        self._seconds = (int(told["expire_timeout_usec"]) or _NO_TIMEOUT_US) / 1e6
        self._requests = 0
        self._answer = control.view("clock")[: msg.PHC_RESPONSE.itemsize].view(msg.PHC_RESPONSE)
        wanted = np.zeros((), msg.PHC_DESC)
        wanted["output_length"] = msg.PHC_RESPONSE.itemsize
        put_address(wanted["output_address"], control.iova("clock"))
        control.set_feature(admin.PHC_CONFIG, wanted)

    def read(self) -> Reading:
        """The time now. Raises WaitTimeout where the device does not answer in the time that it has named,
        ProtocolError where it says that its clock is not right.
        """
        self._requests = (self._requests + 1) & reg.PHC_DB_REQ_ID_MASK
        self._answer["req_id"] = self._requests ^ reg.PHC_DB_REQ_ID_MASK
        self._control.write(self._doorbell, self._requests)
        deadline = time.monotonic() + self._seconds
        while int(self._answer["req_id"][0]) != self._requests:
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the ENA does not tell the time in {self._seconds * 1000:g} ms")
            os.sched_yield()
        flags = int(self._answer["error_flags"][0])
        if flags & _ERRORS:
            raise ProtocolError(f"the ENA's clock is not right (flags {flags:#x})")
        return Reading(int(self._answer["timestamp"][0]), int(self._answer["error_bound"][0]))
