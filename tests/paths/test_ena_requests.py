"""What an ENA asks of its driver by events: a reset, a look at its configuration."""

import pytest
from card_kit import enas

from vfwire.devices.ena_options import EnaOptions
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
