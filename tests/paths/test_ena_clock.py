"""The ENA's precision clock, asked for by our driver over vfio-user."""

import time

import pytest
from card_kit import enas

from vfwire.devices.ena_options import EnaOptions
from vfwire.drivers.ena_admin import CommandRefused
from vfwire.drivers.ena_clock import PreciseClock
from vfwire.errors import WaitTimeout
from vfwire.layouts import ena_admin as admin


def test_the_time_is_the_hosts_and_goes_on() -> None:
    with enas(1) as (_, (nic,)):
        clock = PreciseClock(nic.admin)
        before = time.clock_gettime_ns(time.CLOCK_REALTIME)
        readings = [clock.read() for _ in range(20)]
        after = time.clock_gettime_ns(time.CLOCK_REALTIME)
        times = [reading.time_ns for reading in readings]
        assert times == sorted(times)
        assert before <= times[0] and times[-1] <= after
        assert all(reading.error_bound_ns > 0 for reading in readings)


def test_a_clock_that_was_reset_is_silent_until_it_is_built_anew() -> None:
    with enas(1) as (_, (nic,)):
        clock = PreciseClock(nic.admin)
        clock.read()
        nic.restart()
        with pytest.raises(WaitTimeout, match="does not tell the time"):
            clock.read()
        assert PreciseClock(nic.admin).read().time_ns > 0


def test_a_device_without_a_clock_says_so() -> None:
    with enas(1, options=EnaOptions(without=frozenset({"PHC_CONFIG"}))) as (_, (nic,)):
        with pytest.raises(CommandRefused) as refused:
            PreciseClock(nic.admin)
        assert refused.value.status == admin.UNSUPPORTED_OPCODE
