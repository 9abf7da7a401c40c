"""`vfwire verify` and `vfwire sriov` in real guests: on stock drivers' interfaces, and on a PF that Linux splits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests.guest_kit import READY_SECONDS, RunningCard, card, machine
from tests.guests.python_kit import Done, guest_python, run_inside
from vfwire.guests.guest import Guest

pytestmark = [pytest.mark.guests, pytest.mark.timeout(900)]
BOOT_SECONDS = 3 * READY_SECONDS  # these guests carry a Python


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    commands = (["verify", "--json"], ["verify", "--sriov", "--json"], ["sriov", "bind", "lo", "--json"])
    return guest_python(tmp_path_factory.mktemp("python"), commands)


@pytest.fixture(scope="module")
def running_card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCard]:
    with card(tmp_path_factory.mktemp("c"), "--vfs", "1") as made:
        yield made


def test_each_stock_driver_is_known(running_card: RunningCard, python: dict[str, Path]) -> None:
    """An 82599 VF of a card, virtio and vmxnet3, each bound by the kernel's own driver; ethtool is the witness."""
    vmxnet3 = ("-device", "pcie-root-port,id=last,chassis=50,slot=50", "-device", "vmxnet3,bus=last")
    inside = machine(
        functions=running_card.sockets, nics=("user",), extra=vmxnet3, files=python, memory_mib=512
    )
    with Guest(inside) as guest:
        guest.wait_ready(BOOT_SECONDS)
        (whole,) = run_inside(guest, "verify --json")
        found = {one["driver"]: one for one in whole.told["interfaces"]}
        assert {driver: (one["mechanism"], one["verdict"]) for driver, one in found.items()} == {
            "ixgbevf": ("82599-vf", "enhanced"),
            "virtio_net": ("virtio", "not"),
            "vmxnet3": ("vmxnet3", "not"),
        }
        assert whole.code == 1
        name = found["ixgbevf"]["name"]
        (vf,) = run_inside(guest, f"verify {name}")
        witness = guest.check(f"ethtool -i {name}")
        vectors = guest.check(f"ls /sys/class/net/{name}/device/msi_irqs | wc -l")
    assert vf.code == 0 and witness in vf.out
    assert found["ixgbevf"]["pci"]["id"] == "8086:10ed" and found["ixgbevf"]["pci"]["msix_in_use"] == int(
        vectors
    )


# A name server that does not answer, asked 20 times a second on an interface that may ask once.
ASKING = """
ip address add 169.254.1.2/16 dev eth0
ip link set eth0 up
ip neighbour replace 169.254.169.253 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
ping -i 0.05 169.254.169.253 >/dev/null 2>&1 &
"""


def test_an_ena_shows_an_allowance_that_is_exceeded_and_what_to_do(
    python: dict[str, Path], tmp_path: Path
) -> None:
    """The stock driver on a card's ENA: the counters that it serves, read twice, are explained one by one."""
    with card(tmp_path, "--vfs", "1", "--model", "ena", "--allowance", "0:linklocal=1") as running:
        inside = machine(functions=running.sockets, files=python, memory_mib=512)
        with Guest(inside) as guest:
            guest.wait_ready(BOOT_SECONDS)
            guest.check(ASKING)
            whole, text = run_inside(guest, "verify --json --sample 2", "verify")
            counters = guest.check("ethtool -S eth0")
    (one,) = whole.told["interfaces"]
    assert (whole.code, one["mechanism"], one["driver"]) == (0, "ena", "ena")
    served = {name: int(value) for name, value in
              (line.strip().split(": ") for line in counters.splitlines() if "allowance" in line)}  # fmt: skip
    readings = {reading["name"]: reading for reading in one["allowances"]}
    assert readings.keys() == served.keys() and served
    grown = readings.pop("linklocal_allowance_exceeded")
    assert 0 < grown["value"] <= served["linklocal_allowance_exceeded"] and grown["per_second"] > 0
    assert "cache DNS answers" in grown["remedy"]
    assert not [name for name, reading in readings.items() if reading["value"] and not reading["gauge"]]
    assert text.code == 0 and "enhanced networking: enhanced (Elastic Network Adapter)" in text.out
    assert "linklocal_allowance_exceeded" in text.out and "cache DNS answers" in text.out


def checked(done: Done) -> Done:
    assert done.code == 0, done
    return done


def test_vfs_are_made_bound_and_taken_away(python: dict[str, Path]) -> None:
    """QEMU's virtio-net as a PF with two VFs behind an IOMMU: Linux's SR-IOV and VFIO do what the plans say."""
    pf = "bus=sriov,disable-legacy=on,iommu_platform=on,ats=on"
    options = (
        "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on",
        "-device", "pcie-root-port,id=sriov,chassis=50,slot=50",
        "-device", f"virtio-net-pci,id=vf0,addr=0.1,sriov-pf=pf,{pf}",
        "-device", f"virtio-net-pci,id=vf1,addr=0.2,sriov-pf=pf,{pf}",
        "-device", f"virtio-net-pci,id=pf,addr=0.0,multifunction=on,{pf}",
    )  # fmt: skip
    inside = machine(append="intel_iommu=on no_timer_check", extra=options, files=python, memory_mib=512)
    with Guest(inside) as guest:
        guest.wait_ready(BOOT_SECONDS)
        guest.check("modprobe vfio-pci")
        none, made, again, shown = run_inside(
            guest,
            "verify --sriov --json",
            "sriov set eth0 --vfs 2 --json",
            "sriov set eth0 --vfs 2 --json",
            "verify --sriov --json",
        )
        counted = guest.check("cat /sys/class/net/eth0/device/../sriov_numvfs").strip()
        guest.check("for name in $(ls /sys/class/net); do [ $name = lo ] || ip link set $name down; done")
        taken, ready, used, freed, gone, after = run_inside(
            guest,
            "sriov bind eth0/1 --json",
            "verify --sriov --json",
            "sriov set eth0 --vfs 3 --json",
            "sriov unbind eth0/1 --json",
            "sriov set eth0 --vfs 0 --json",
            "verify --sriov --json",
        )
    assert (none.code, none.told["physical_functions"][0]["num_vfs"]) == (1, 0)
    assert checked(made).told["changed"] and not checked(again).told["changed"]
    assert counted == "2"
    (physical,) = checked(shown).told["physical_functions"]
    assert (physical["num_vfs"], physical["total_vfs"]) == (2, 2)
    assert all(vf["function"]["iommu_group"] is not None and not vf["obstacle"] for vf in physical["vfs"])
    checked(taken)
    assert [vf["ready"] for vf in checked(ready).told["physical_functions"][0]["vfs"]] == [False, True]
    assert used.code == 2 and "0 to 2 are possible" in used.err
    checked(freed)
    checked(gone)
    assert after.told["physical_functions"][0]["vfs"] == []
