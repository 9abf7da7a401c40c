"""What an ENA asks of its driver by events: a reset, another look at what it can, other times to wait."""

import math
import time

import pytest
from card_kit import enas

from tests.waiting import wait_until
from vfwire.devices.ena import VirtualFunctionEna
from vfwire.devices.ena_options import EnaOptions
from vfwire.drivers.ena import Ena
from vfwire.drivers.ena_admin import READ_SECONDS, SECONDS
from vfwire.drivers.ena_events import WATCHDOG_SECONDS
from vfwire.errors import WaitTimeout
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers as reg


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (EnaOptions(), "asked for by the device"),
        (EnaOptions(without=frozenset({"EXTENDED_RESET_REASONS"})), "generic"),  # all that four bits can say
    ],
)
def test_a_device_that_asks_for_a_reset_gets_it_with_that_reason(options: EnaOptions, said: str) -> None:
    with enas(1, options=options) as (card, (nic,)):
        card.vfs[0].send_event("DEVICE_REQUEST_RESET", {})
        assert nic.must_restart() and nic.events.reset_reason == reg.RESET_DEVICE_REQUEST
        nic.restart()
        nic.wait_link_up()
        assert not nic.must_restart()
        assert card.vfs[0].counters()["resets"][said] == 1


def test_notifications_of_the_configuration_are_heard_and_need_no_reset() -> None:
    with enas(1) as (card, (nic,)):
        card.vfs[0].send_event("CONF_NOTIFICATIONS", {"bits": 5})
        assert nic.events.poll() > 0
        assert nic.events.counts[admin.CONF_NOTIFICATIONS] == 1
        assert not nic.must_restart()


def test_a_device_whose_capabilities_changed_is_reset_and_asked_again() -> None:
    """As Linux's out-of-tree driver has it (ena_netdev.c): a reset for no particular reason, and all set-up anew."""
    with enas(1) as (card, (nic,)):
        assert "conntrack_allowance_available" in nic.stats() and nic.link_speed() > 1
        vf = card.vfs[0]
        assert isinstance(vf, VirtualFunctionEna)
        less = EnaOptions(without=frozenset({"CUSTOMER_METRICS", "LINK_CONFIG"}))
        vf.features._options, vf.features._features = less, less.features()
        vf.statistics._capabilities = less.capabilities()
        vf.send_event("REFRESH_CAPABILITIES", {})
        assert nic.must_restart() and nic.events.reset_reason == reg.RESET_NORMAL
        before = vf.counters()["resets"]["normal"]
        nic.restart()
        nic.wait_link_up()
        assert vf.counters()["resets"]["normal"] == before + 1 and not nic.must_restart()
        assert "conntrack_allowance_available" not in nic.stats() and nic.link_speed() == 1


def times(nic: Ena) -> tuple[float, float, float]:
    return nic.events.watchdog_seconds, nic.admin.seconds, nic.admin.read_seconds


HINTS = {
    "driver_watchdog_timeout": 2500,
    "admin_completion_tx_timeout": 1700,
    "mmio_read_timeout": 500,
    "netdev_wd_timeout": 4000,
}


def test_hints_change_how_long_the_driver_waits() -> None:
    with enas(1) as (card, (nic,)):
        assert times(nic) == (WATCHDOG_SECONDS, SECONDS, READ_SECONDS)
        for hints, wanted in (
            (HINTS, (2.5, 1.7, 0.5)),
            ({}, (2.5, 1.7, 0.5)),  # 0 leaves a time as it is
            ({"driver_watchdog_timeout": 0xFFFF}, (math.inf, 1.7, 0.5)),
        ):
            card.vfs[0].send_event("NOTIFICATION", hints)
            assert nic.events.poll() > 0
            assert times(nic) == wanted
        assert not nic.must_restart()


def test_hints_are_asked_for_at_every_start() -> None:
    with enas(1) as (card, (nic,)):
        vf = card.vfs[0]
        assert isinstance(vf, VirtualFunctionEna)
        vf.features.set_hints(HINTS)
        nic.restart()
        assert times(nic) == (2.5, 1.7, 0.5)
        vf.features.set_hints({"driver_watchdog_timeout": 9000})
        nic.restart()
        assert times(nic) == (9.0, 1.7, 0.5)


def test_a_silent_device_is_given_up_when_its_hint_says_so() -> None:
    with enas(1) as (card, (nic,)):
        card.vfs[0].fail("keep-alive")
        nic.events.poll()
        alive = nic.events._alive
        card.vfs[0].send_event("NOTIFICATION", {"driver_watchdog_timeout": 100})
        wait_until(nic.must_restart)
        assert 0.1 < time.monotonic() - alive < WATCHDOG_SECONDS
        assert nic.events.reset_reason == reg.RESET_KEEP_ALIVE_TO


def test_a_command_is_waited_for_as_long_as_the_hint_says() -> None:
    with enas(1) as (card, (nic,)):
        card.vfs[0].send_event("NOTIFICATION", {"admin_completion_tx_timeout": 100})
        assert nic.events.poll() > 0
        card.vfs[0].fail("admin")
        begun = time.monotonic()
        with pytest.raises(WaitTimeout, match=r"in 0\.1 s"):
            nic.stats()
        assert 0.1 < time.monotonic() - begun < SECONDS
        nic.restart()
        assert nic.alive()


def test_a_register_is_waited_for_as_long_as_the_hint_says() -> None:
    with enas(1, options=EnaOptions(readless=False)) as (card, (nic,)):
        card.vfs[0].send_event("NOTIFICATION", {"mmio_read_timeout": 10})
        assert nic.events.poll() > 0
        nic.admin._readless = True  # which this device does not answer
        begun = time.monotonic()
        with pytest.raises(WaitTimeout, match="does not answer a read"):
            nic.admin.read(reg.DEV_STS)
        assert 0.01 < time.monotonic() - begun < READ_SECONDS
        nic.admin._readless = False
