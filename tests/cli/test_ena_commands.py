"""`vfwire card --model ena` and what `vfwire vf` does with an ENA, as processes."""

from pathlib import Path

import pytest
from test_card_command import card, runtime, show, vfwire

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import Pool
from vfwire.layouts import pci

__all__ = ["runtime"]  # the fixture


def test_both_models_are_refused_with_the_reason() -> None:
    done = vfwire("card", "--model", "82599", "--model", "ena")
    assert done.returncode == 2
    assert "never on both" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--mtu", "9217"), "MTU is 68 to 9216"),
        (("--line-rate", "401G"), "at most 400G"),
        (("--ena-queues", "33"), "1 to 32 queue pairs"),
        (("--ena-version", "1"), "no version"),
    ],
)
def test_what_no_ena_can_be(option: tuple[str, ...], words: str) -> None:
    done = vfwire("card", "--model", "ena", *option)
    assert done.returncode == 2
    assert words in done.stderr


def test_an_ena_is_what_was_asked_for_and_says_who_drives_it() -> None:
    options = ("--ena-device", "ec21", "--ena-queues", "4", "--ena-readable")
    with card("--vfs", "1", "--model", "ena", *options) as (_, described):
        assert (described["model"], described["mtu"], described["line_rate_bps"]) == ("ena", 9216, 10**11)
        assert (described["vfs"][0]["queues"], described["vfs"][0]["model"]) == (4, "1d0f:ec21")
        with Pool(1024) as pool:
            function = VfioUserFunction(Path(described["vfs"][0]["socket"]))
            assert function.config_read(pci.VENDOR_ID, 4) == 0xEC211D0F
            assert function.config_read(pci.REVISION_ID, 1) == 1
            with Ena.open(function, pool) as nic:
                nic.wait_link_up()
                assert show("card0/0")["vfs"][0]["host"] is not None
                assert "driven by" in vfwire("vf", "show").stdout
                assert vfwire("vf", "set", "card0/0", "--mac", "02:00:00:00:00:05").returncode == 2
        assert vfwire("vf", "set", "card0/0", "--query-rss", "on").returncode == 2


def test_a_guest_is_on_one_model_only() -> None:
    with (
        card("--vfs", "1", "--model", "ena", "--name", "a") as (_, ena),
        card("--vfs", "1", "--name", "b") as (
            _,
            other,
        ),
    ):
        both = [word for made in (ena, other) for word in ("--vf", made["vfs"][0]["socket"])]
        done = vfwire("guest", *both, "--kernel", "/proc/version", "--print")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "never on both" in line and "ena and 82599" in line and "another guest" in line


def test_events_and_failures_by_command() -> None:
    with card("--vfs", "1", "--model", "ena") as (_, described), Pool(1024) as pool:
        function = VfioUserFunction(Path(described["vfs"][0]["socket"]))
        with Ena.open(function, pool) as nic:
            nic.wait_link_up()
            sent = vfwire("vf", "event", "card0/0", "NOTIFICATION", "--value", "netdev_wd_timeout=4000")
            assert (sent.returncode, sent.stderr) == (0, "")
            assert show("card0/0", "--counters")["vfs"][0]["counters"]["events"]["NOTIFICATION"] == 1
            assert vfwire("vf", "event", "card0/0", "NOTIFICATION", "--value", "speed=1").returncode == 2
            assert vfwire("vf", "fail", "card0", "admin").returncode == 2
            assert vfwire("vf", "fail", "card0/0", "keep-alive").returncode == 0
