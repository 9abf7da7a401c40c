"""What guests print: the script in a real shell, its answer read, and whatever else a guest may print."""

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from tests.ec2_endpoint import guests as inside
from vfwire.checks.ec2.facts import Interface
from vfwire.checks.ec2.guests import DRIVERS_SCRIPT, parse_drivers


def test_the_script_runs_on_this_machine() -> None:
    """Every line that it prints is one that is read; interfaces without a device, as lo, are not among them."""
    done = subprocess.run(
        ["sh", "-c", DRIVERS_SCRIPT], capture_output=True, text=True, check=False, timeout=30
    )
    assert not done.stderr
    for line in done.stdout.splitlines():
        assert line.startswith(("interface: ", "driver: ", "version: ")), line
    assert "interface: lo\n" not in done.stdout


def test_the_script_in_guests() -> None:
    answer = parse_drivers(inside.run(inside.Guest(driver="ena", interfaces=2), DRIVERS_SCRIPT))
    assert answer.interfaces == (Interface("eth0", "ena", "6.12.1"), Interface("eth1", "ena", "6.12.1"))
    none = parse_drivers(inside.run(inside.Guest(interfaces=0), DRIVERS_SCRIPT))
    assert not none.interfaces and none.silent
    inside.clear()


def test_without_ethtool_the_link_in_sysfs_tells() -> None:
    script = DRIVERS_SCRIPT.replace("ethtool -i", "no-such-program -i")
    answer = parse_drivers(inside.run(inside.Guest(driver="vif"), script))
    assert answer.interfaces == (Interface("eth0", "vif", ""),)
    inside.clear()


_LINES = st.sampled_from(["interface: a", "driver: x", "version: 1", "driver: ", "interface: ", "?"])


@given(st.text() | st.lists(_LINES).map("\n".join))
def test_a_guest_may_print_anything(text: str) -> None:
    answer = parse_drivers(text)
    assert bool(answer.interfaces) != bool(answer.silent)
    for one in answer.interfaces:
        for value in (one.name, one.driver, one.version):
            assert len(value) <= 64 and "\n" not in value and "\x1b" not in value
