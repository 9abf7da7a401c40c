"""Hosts that are not here, from copies of their sysfs written by hand: which mechanism, which verdict, what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from host_tree import HostTree
from hypothesis import given
from hypothesis import strategies as st

from vfwire.checks.host import HostReport, check_host
from vfwire.checks.tree import Tree
from vfwire.checks.verdict import State
from vfwire.errors import UsageError, VfwireError

FIRST = "0000:00:05.0"
INTEL, AMAZON, MELLANOX = 0x8086, 0x1D0F, 0x15B3


@pytest.fixture
def host(tmp_path: Path) -> HostTree:
    return HostTree(tmp_path)


def check(host: HostTree, *names: str) -> HostReport:
    return check_host(Tree(host.root), names)


def pci_interface(host: HostTree, ids: tuple[int, int], driver: str, **more: object) -> None:
    host.interface("ens5", host.pci(FIRST, ids, driver, **more))  # type: ignore[arg-type]


PCI_HOSTS = {
    "ENA in a guest": ((AMAZON, 0xEC20), "ena", True, "ena", State.ENHANCED),
    "ENA with LLQ": ((AMAZON, 0xEC21), "ena", True, "ena", State.ENHANCED),
    "ENA of a metal instance": ((AMAZON, 0x0EC2), "ena", False, "ena", State.ENHANCED),
    "82599 VF": ((INTEL, 0x10ED), "ixgbevf", True, "82599-vf", State.ENHANCED),
    "X540 VF": ((INTEL, 0x1515), "ixgbevf", True, "sriov-vf", State.ENHANCED),
    "adaptive VF": ((INTEL, 0x1889), "iavf", True, "sriov-vf", State.ENHANCED),
    "ConnectX-5 VF": ((MELLANOX, 0x1018), "mlx5_core", True, "sriov-vf", State.ENHANCED),
    "82599 itself": ((INTEL, 0x10FB), "ixgbe", False, "physical", State.ENHANCED),
    "vmxnet3": ((0x15AD, 0x07B0), "vmxnet3", True, "vmxnet3", State.NOT),
    "e1000 of a hypervisor": ((INTEL, 0x100E), "e1000", True, "emulated", State.NOT),
    "e1000e in a real machine": ((INTEL, 0x10D3), "e1000e", False, "physical", State.ENHANCED),
}


@pytest.mark.parametrize("name", PCI_HOSTS)
def test_a_pci_function_is_known_by_its_ids(host: HostTree, name: str) -> None:
    ids, driver, guest, mechanism, state = PCI_HOSTS[name]
    if guest:
        host.hypervisor()
    pci_interface(host, ids, driver, vectors=9)
    report = check(host)
    (one,) = report.interfaces
    assert (one.mechanism.name, report.verdict.state) == (mechanism, state)
    assert one.function is not None and one.function.driver == driver and one.function.msix_in_use == 9
    assert bool(report.verdict.next_step) == (state is State.NOT)


def test_a_card_with_a_hypervisors_subsystem_is_imitated_whatever_its_model(host: HostTree) -> None:
    pci_interface(host, (INTEL, 0x1521), "igb", subsystem=(0x1AF4, 0x1100))
    assert check(host).interfaces[0].mechanism.name == "emulated"


def test_a_vf_that_no_table_knows_is_known_by_its_pf(host: HostTree) -> None:
    physical = host.pci("0000:03:00.0", (0x177D, 0xA063), "rvu_nicpf")
    virtual = host.pci("0000:03:00.1", (0x177D, 0xA0FF), "rvu_nicvf")
    host.virtual_functions(physical, [virtual], total=8)
    host.interface("eth1", virtual)
    assert check(host).interfaces[0].mechanism.name == "sriov-vf"


@pytest.mark.parametrize(
    ("bus", "device", "mechanism"),
    [
        ("virtio", "virtio0", "virtio"),
        ("xen", "vif-0", "vif"),
        ("vmbus", "3f4c-guid", "netvsc"),
        ("usb", "1-1", "other"),
    ],
)
def test_a_paravirtual_interface_is_known_by_its_bus(
    host: HostTree, bus: str, device: str, mechanism: str
) -> None:
    host.hypervisor()
    host.interface("eth0", host.device(bus, device))
    report = check(host)
    assert report.interfaces[0].mechanism.name == mechanism
    assert report.verdict.state is (State.UNKNOWN if mechanism == "other" else State.NOT)
    assert report.verdict.next_step


def test_a_virtio_interface_shows_the_function_below_it(host: HostTree) -> None:
    below = host.pci("0000:00:03.0", (0x1AF4, 0x1041), "virtio-pci")
    host.interface("eth0", host.device("virtio", "virtio2", above=below))
    (one,) = check(host).interfaces
    assert one.function is not None and one.function.address == "0000:00:03.0"


@pytest.mark.parametrize("kind", ["veth", "bridge", "tun", "dummy", ""])
def test_a_virtual_interface_is_no_card(host: HostTree, kind: str) -> None:
    where = host.interface("if0", kind=kind)
    if kind == "tun":
        host.write(f"{where}/tun_flags", "0x1002")
    report = check(host, "if0")
    assert report.verdict.state is (State.NOT if kind == "tun" else State.UNKNOWN)
    assert report.interfaces[0].mechanism.name == {"tun": "tap", "": "virtual"}.get(kind, kind)


@pytest.mark.parametrize(("other", "state"), [("ena", State.ENHANCED), ("virtio", State.NOT)])
def test_a_bond_is_as_enhanced_as_its_worst_member(host: HostTree, other: str, state: State) -> None:
    host.interface("ens5", host.pci(FIRST, (AMAZON, 0xEC20), "ena"), index=2)
    second = (
        host.pci("0000:00:06.0", (AMAZON, 0xEC20), "ena")
        if other == "ena"
        else host.device("virtio", "virtio1")
    )
    host.interface("ens6", second, index=3)
    bond = host.interface("bond0", index=4)
    host.write(f"{bond}/bonding/mode", "active-backup 1")
    vlan = host.interface("bond0.7", index=5, kind="vlan")
    for member in ("ens5", "ens6"):
        host.link(f"{bond}/lower_{member}", f"sys/class/net/{member}")
    host.link(f"{vlan}/lower_bond0", "sys/class/net/bond0")
    report = check(host, "bond0.7")
    assert report.verdict.state is state
    assert report.interfaces[0].carriers == ("ens5", "ens6")


def test_interfaces_that_carry_each_other_end(host: HostTree) -> None:
    first, second = host.interface("a0", index=2, kind="vlan"), host.interface("b0", index=3, kind="vlan")
    host.link(f"{first}/lower_b0", "sys/class/net/b0")
    host.link(f"{second}/lower_a0", "sys/class/net/a0")
    assert check(host, "a0").verdict.state is State.UNKNOWN


def test_netvsc_with_a_vf_in_it_is_on_the_vf(host: HostTree) -> None:
    host.hypervisor("Microsoft Corporation")
    synthetic = host.interface("eth0", host.device("vmbus", "guid"), index=2)
    virtual = host.interface("enP1s1", host.pci("0001:00:02.0", (MELLANOX, 0x1016), "mlx5_core"), index=3)
    host.link(f"{synthetic}/lower_enP1s1", virtual)
    host.link(f"{virtual}/master", synthetic)
    report = check(host)
    assert report.verdict.state is State.ENHANCED and report.interfaces[0].carriers == ("enP1s1",)


XEN_ADVICE: list[tuple[tuple[str, ...], str]] = [
    (("ena", "ixgbevf"), "vfwire ec2 check INSTANCE tells"),
    (("ixgbevf",), "this kernel has no ena: install"),
    (("e1000",), "no ena and no ixgbevf"),
]


@pytest.mark.parametrize(("available", "advice"), XEN_ADVICE)
def test_a_xen_instance_is_told_what_it_lacks(
    host: HostTree, available: tuple[str, ...], advice: str
) -> None:
    host.write("sys/hypervisor/type", "xen")
    host.write("sys/hypervisor/uuid", "ec2a1b2c-0000-0000-0000-000000000000")
    host.modules(available)
    host.interface("eth0", host.device("xen", "vif-0"))
    report = check(host)
    assert report.verdict.state is State.NOT and report.environment.ec2
    assert advice in report.verdict.next_step


IDLE: list[tuple[Callable[[HostTree], None], str]] = [
    (lambda host: host.modules(("ixgbevf",)), "modprobe ixgbevf"),
    (lambda host: host.modules((), ("ixgbevf",)), "built in"),
    (lambda host: host.modules(("e1000",)), "this kernel has no ixgbevf"),
    (lambda host: host.write("sys/module/ixgbevf/initstate", "live"), "dmesg | grep ixgbevf"),
    (lambda host: None, "cannot be seen from here"),
]


@pytest.mark.parametrize(("kernel", "advice"), IDLE)
def test_a_vf_without_its_driver_is_the_next_step(
    host: HostTree, kernel: Callable[[HostTree], None], advice: str
) -> None:
    host.hypervisor()
    host.pci(FIRST, (INTEL, 0x10ED))
    host.interface("eth0", host.device("virtio", "virtio0"))
    kernel(host)
    report = check(host)
    assert report.verdict.state is State.NOT and [one.address for one in report.idle] == [FIRST]
    assert advice in report.verdict.next_step, report.verdict


def test_a_function_in_user_space_is_shown_and_not_judged(host: HostTree) -> None:
    host.interface("ens5", host.pci(FIRST, (AMAZON, 0xEC20), "ena"))
    host.pci("0000:00:06.0", (AMAZON, 0xEC20), "vfio-pci")
    report = check(host)
    assert report.verdict.state is State.ENHANCED and len(report.lent) == 1 and not report.elsewhere


def test_a_container_cannot_tell_and_says_what_it_sees(host: HostTree) -> None:
    host.interface("lo", index=1)
    host.interface("eth0", kind="veth")
    host.pci(FIRST, (AMAZON, 0xEC20), "ena")
    report = check(host)
    assert report.verdict.state is State.UNKNOWN and report.verdict.exit_code == 3
    assert f"{FIRST} (Elastic Network Adapter, driver ena)" in report.verdict.reason


def test_a_name_that_is_not_there_is_answered_with_those_that_are_nearest_first(host: HostTree) -> None:
    for index, name in enumerate(("lo", "docker0", "ens5", "ens6"), start=1):
        host.interface(name, index=index)
    with pytest.raises(UsageError, match=r"'ens7'; there are: ens5, ens6, "):
        check(host, "ens7")


def test_no_interface_at_all(host: HostTree) -> None:
    assert check(host).verdict.state is State.UNKNOWN
    with pytest.raises(UsageError, match="none at all"):
        check(host, "eth0")


@pytest.mark.parametrize("target", ["/etc", "../../../../../../../../etc", "ens5", "missing"])
def test_a_link_that_leads_out_or_round_is_not_there(host: HostTree, target: str) -> None:
    (host.root / "sys/class/net/ens5").symlink_to(target)
    assert check(host).interfaces == ()


FILES = st.sampled_from(
    ["class/net/eth0/ifindex", "class/net/eth0/flags", "class/net/eth0/mtu", "bus/pci/devices/0000:00:05.0/vendor",
     "bus/pci/devices/0000:00:05.0/class", "bus/pci/devices/0000:00:05.0/config", "class/net/eth0/uevent",
     "bus/pci/devices/0000:00:05.0/sriov_numvfs", "hypervisor/uuid", "class/dmi/id/sys_vendor"]
)  # fmt: skip


@given(st.dictionaries(FILES, st.binary(max_size=300)), st.binary(max_size=300), st.binary(max_size=300))
def test_a_copy_may_say_anything(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], route: bytes, modules: bytes
) -> None:
    host = HostTree(tmp_path_factory.mktemp("host"))
    host.interface("eth0", host.pci(FIRST, (AMAZON, 0xEC20)))
    for path, content in files.items():
        (host.root / "sys" / path).parent.mkdir(parents=True, exist_ok=True)
        (host.root / "sys" / path).write_bytes(content)
    host.write("proc/net/route", "")
    host.modules(())
    (host.root / "proc/net/route").write_bytes(route)
    (host.root / "lib/modules/6.12.0-test/modules.dep").write_bytes(modules)
    try:
        report = check(host)
    except VfwireError as error:
        assert re.fullmatch(r".+", str(error))
    else:
        assert report.verdict.exit_code in (0, 1, 3) and report.as_json()["schema"] == 1
