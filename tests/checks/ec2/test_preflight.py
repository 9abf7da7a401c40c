"""What a guest has, found by the script in a real shell, and what of it would lock its user out."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ec2_endpoint import guests as inside_endpoint
from tests.ec2_endpoint.guests import Guest
from vfwire.checks.ec2.mechanism import Mechanism
from vfwire.checks.ec2.preflight import SCRIPT, Inside, Kernel, obstacles, parse, remarks


def seen(guest: Guest) -> Inside:
    try:
        return parse(inside_endpoint.run(guest, SCRIPT))
    finally:
        inside_endpoint.clear()


def test_a_good_guest_has_no_obstacle() -> None:
    inside = seen(Guest())
    assert inside.whole and inside.command_line.endswith("net.ifnames=0")
    assert [(kernel.name, kernel.drivers, kernel.initramfs) for kernel in inside.kernels] == [
        ("6.12.1", {"ena", "ixgbevf"}, {"ena", "ixgbevf"})
    ]
    assert obstacles(inside, Mechanism.ENA) == obstacles(inside, Mechanism.VF82599) == []
    assert remarks(inside, Mechanism.ENA) == []


@pytest.mark.parametrize(
    ("guest", "said"),
    [
        (Guest(kernels={"6.1": {"ixgbevf"}}), "kernel 6.1 has no ena"),
        (Guest(kernels={"6.1": {"ena"}, "5.4": set()}), "kernel 5.4 has no ena"),
        (
            Guest(
                files={"etc/udev/rules.d/70-persistent-net.rules": 'ATTR{address}=="02:00", NAME="eth0"\n'}
            ),
            "70-persistent-net.rules gives interfaces fixed names",
        ),
        (
            Guest(
                command_line="root=/dev/xvda1",
                files={"etc/network/interfaces": "iface eth0 inet dhcp\n"},
            ),
            "net.ifnames=0",
        ),
        (
            Guest(command_line="quiet", files={"etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\n"}),
            "ifcfg-eth0",
        ),
        (
            Guest(command_line="quiet", files={"etc/systemd/network/10.network": "[Match]\nName=eth0\n"}),
            "10.network",
        ),
        (Guest(command_line="root=/dev/nfs net.ifnames=0", initramfs=set()), "boots over the network"),
        (Guest(kernels={}), "could not be seen"),
    ],
)
def test_what_would_lock_a_user_out(guest: Guest, said: str) -> None:
    assert any(said in text for text in obstacles(seen(guest), Mechanism.ENA))


def test_a_driver_that_is_built_in_is_there() -> None:
    builtin = {"lib/modules/6.1/modules.builtin": "kernel/drivers/net/ethernet/amazon/ena/ena.ko\n"}
    inside = seen(Guest(kernels={"6.1": set()}, files=builtin))
    assert inside.kernels[0].drivers == {"ena"} and obstacles(inside, Mechanism.ENA) == []


def test_names_that_stay_are_no_obstacle() -> None:
    kept = Guest(
        files={"etc/network/interfaces": "iface eth0 inet dhcp\n"}
    )  # net.ifnames=0 is on its command line
    assert obstacles(seen(kept), Mechanism.ENA) == []
    named = Guest(command_line="quiet", files={"etc/network/interfaces": "iface ens5 inet dhcp\n"})
    assert obstacles(seen(named), Mechanism.ENA) == []


def test_an_initramfs_without_the_driver_is_only_remarked() -> None:
    inside = seen(Guest(initramfs=set()))
    assert obstacles(inside, Mechanism.ENA) == []
    assert "is loaded from the root file system" in remarks(inside, Mechanism.ENA)[0]


def test_the_script_runs_on_this_machine() -> None:
    done = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert parse(done.stdout).whole


_LINES = st.sampled_from(
    ["kernel: a", "driver: ena", "initramfs: read", "initramfs: ena", "pins: x", "end: of facts"]
)


@given(st.text() | st.lists(_LINES).map("\n".join))
def test_a_guest_may_print_anything(text: str) -> None:
    inside = parse(text)
    if not obstacles(inside, Mechanism.ENA):
        assert inside.whole and inside.kernels
        assert all("ena" in kernel.drivers for kernel in inside.kernels)


def test_an_answer_that_was_cut_off_is_no_answer() -> None:
    assert obstacles(Inside(kernels=[Kernel("a", {"ena"})]), Mechanism.ENA)
