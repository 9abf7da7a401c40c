"""PFs and VFs of hosts that are not here, from copies of their sysfs written by hand: what is shown, what is planned.

What a kernel does with a plan is tried in a guest with a PF of its own (tests/guests).
"""

from pathlib import Path

import pytest
from host_tree import PF, VFS, HostTree, SriovHost
from hypothesis import given
from hypothesis import strategies as st

from vfwire.checks.sriov import read_physical_functions, sriov_verdict
from vfwire.checks.sriov_plan import Plan, Step, carry_out, plan_bind, plan_unbind, plan_vfs
from vfwire.checks.tree import Tree
from vfwire.checks.verdict import State
from vfwire.errors import PermissionDenied, ResourceBusy, UnsupportedMachine, UsageError, VfwireError

INTEL = 0x8086
AT = "sys/bus/pci/devices"


@pytest.fixture
def host(tmp_path: Path) -> SriovHost:
    return SriovHost(tmp_path)


def commands(plan: Plan) -> list[str]:
    return [step.command for step in plan.steps]


def test_functions_are_shown_with_their_vfs(host: SriovHost) -> None:
    (one,) = read_physical_functions(host.tree)
    assert (one.interface, one.function.total_vfs, one.function.num_vfs) == ("eth0", 63, 3)
    assert [vf.function.address for vf in one.vfs] == VFS
    assert [(vf.interface, vf.function.iommu_group) for vf in one.vfs] == [("eth0v0", 7), ("", 8), ("", 9)]
    assert [vf.use for vf in one.vfs] == [
        "",
        "",
        "given to vfio-pci, and a copy does not tell who has it open",
    ]
    assert [vf.ready for vf in one.vfs] == [False, False, True]
    verdict = sriov_verdict([one])
    assert verdict.state is State.ENHANCED and verdict.next_step == f"vfwire sriov bind {VFS[0]}"


def test_without_an_iommu_nothing_can_be_passed_through(tmp_path: Path) -> None:
    host = SriovHost(tmp_path, groups=(None, None, None))
    functions = read_physical_functions(host.tree)
    assert {vf.obstacle for vf in functions[0].vfs} == {"the IOMMU is off"}
    verdict = sriov_verdict(functions)
    assert verdict.state is State.NOT and "intel_iommu=on" in verdict.next_step
    with pytest.raises(UnsupportedMachine, match="no IOMMU group"):
        plan_bind(host.tree, VFS[1], "vfio-pci")


def test_functions_of_one_group_can_only_go_together(tmp_path: Path) -> None:
    host = SriovHost(tmp_path, groups=(7, 7, 9))
    host.pci("0000:02:00.0", (INTEL, 0x1901), group=9, class_code=0x060400)  # a bridge: it is no obstacle
    vfs = read_physical_functions(host.tree)[0].vfs
    assert vfs[0].obstacle == f"IOMMU group 7 holds {VFS[1]} too: they can only go together"
    assert vfs[2].obstacle == ""
    with pytest.raises(ResourceBusy, match=r"holds 0000:03:10\.0 \(ixgbevf\) too"):
        plan_bind(host.tree, VFS[1], "vfio-pci")


def test_a_host_without_sriov_and_one_without_vfs(tmp_path: Path) -> None:
    host = HostTree(tmp_path)
    assert sriov_verdict(read_physical_functions(Tree(tmp_path))).state is State.NOT
    host.virtual_functions(host.pci(PF, (INTEL, 0x10FB), "ixgbe"), [], total=63)
    verdict = sriov_verdict(read_physical_functions(Tree(tmp_path)))
    assert verdict.next_step == f"vfwire sriov set {PF} --vfs N, up to 63"


def test_the_number_of_vfs_is_changed_from_zero_and_only_if_it_differs(host: SriovHost) -> None:
    (host.root / host.virtual[2] / "driver").unlink()
    assert commands(plan_vfs(host.tree, "eth0", 3)) == []
    changed = [f"echo 0 > /{AT}/{PF}/sriov_numvfs", f"echo 8 > /{AT}/{PF}/sriov_numvfs"]
    assert commands(plan_vfs(host.tree, "eth0", 8)) == changed
    assert commands(plan_vfs(host.tree, PF, 0)) == changed[:1]
    host.write(f"{host.physical}/sriov_numvfs", "0")
    assert commands(plan_vfs(host.tree, "03:00.0", 8)) == changed[1:]
    quiet = plan_vfs(host.tree, "eth0", 8, autoprobe=False)
    assert commands(quiet)[0] == f"echo 0 > /{AT}/{PF}/sriov_drivers_autoprobe"
    assert plan_vfs(host.tree, "eth0", 0, autoprobe=True).steps == ()


def in_user_space(host: SriovHost) -> None:
    return


def up(host: SriovHost) -> None:
    host.write(f"{host.virtual[0]}/net/eth0v0/flags", "0x1003")


def default_route(host: SriovHost) -> None:
    host.default_route("eth0v0")


def in_a_bridge(host: SriovHost) -> None:
    host.link(f"{host.virtual[0]}/net/eth0v0/master", host.interface("br0", index=9))


def elsewhere(host: SriovHost) -> None:
    (host.root / "sys/class/net/eth0v0").unlink()


USES = {
    in_user_space: "given to vfio-pci",
    up: "its interface eth0v0 is up",
    default_route: "its interface eth0v0 carries the default route",
    in_a_bridge: "its interface eth0v0 is part of br0",
    elsewhere: "not in this network namespace",
}


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_a_vf_in_use_is_not_taken_away(host: SriovHost, use: object) -> None:
    if use is not in_user_space:
        (host.root / host.virtual[2] / "driver").unlink()
    use(host)  # type: ignore[operator]
    cause = USES[use]  # type: ignore[index]
    with pytest.raises(ResourceBusy, match=f"{cause}.*nothing was changed"):
        plan_vfs(host.tree, "eth0", 0)
    taken = 2 if use is in_user_space else 0
    with pytest.raises(ResourceBusy, match=cause):
        plan_unbind(host.tree, f"eth0/{taken}")
    with pytest.raises(ResourceBusy, match=cause):
        plan_bind(host.tree, VFS[taken], "igbvf")
    assert plan_vfs(host.tree, "eth0", 3).steps == ()  # what is so already is no change


def test_a_pf_with_the_default_route_is_not_unbound_and_its_vfs_come_with_a_warning(host: SriovHost) -> None:
    host.default_route("eth0")
    with pytest.raises(ResourceBusy, match="eth0 carries the default route"):
        plan_unbind(host.tree, "eth0")
    host.write(f"{host.physical}/sriov_numvfs", "0")
    assert "carries the default route" in plan_vfs(host.tree, "eth0", 4).note


def test_binding_takes_it_from_one_driver_for_another(host: SriovHost) -> None:
    assert commands(plan_bind(host.tree, "eth0/0", "vfio-pci")) == [
        f"echo vfio-pci > /{AT}/{VFS[0]}/driver_override",
        f"echo {VFS[0]} > /sys/bus/pci/drivers/ixgbevf/unbind",
        f"echo {VFS[0]} > /sys/bus/pci/drivers_probe",
    ]
    host.write(f"{host.virtual[1]}/driver_override", "vfio-pci")
    assert commands(plan_bind(host.tree, "eth0/1", "vfio-pci")) == [
        f"echo {VFS[1]} > /sys/bus/pci/drivers_probe"
    ]
    assert plan_bind(host.tree, "eth0/2", "vfio-pci").steps == ()
    assert commands(plan_unbind(host.tree, "eth0/1")) == [f"echo '' > /{AT}/{VFS[1]}/driver_override"]
    host.write(f"{host.virtual[1]}/driver_override", "(null)")
    assert plan_unbind(host.tree, "eth0/1").steps == ()


@pytest.mark.parametrize(
    ("plan", "cause"),
    [
        (lambda tree: plan_vfs(tree, "eth0", 64), "cannot have 64 VFs; 0 to 63"),
        (lambda tree: plan_vfs(tree, "eth0", -1), "cannot have -1 VFs"),
        (lambda tree: plan_vfs(tree, "eth0/0", 2), f"is a VF of {PF}"),
        (lambda tree: plan_vfs(tree, "eth7", 2), "there is no 'eth7'; there are: eth0"),
        (lambda tree: plan_vfs(tree, "lo", 2), "no PCI function"),
        (lambda tree: plan_bind(tree, "eth0/3", "vfio-pci"), "has no VF '3'; it has 3"),
        (lambda tree: plan_bind(tree, "eth0/x", "vfio-pci"), "has no VF 'x'"),
        (lambda tree: plan_bind(tree, "eth0/1", "igb_uio"), "igb_uio is not loaded; modprobe igb_uio"),
        (lambda tree: plan_bind(tree, "eth0/1", "../x"), "no name of a driver"),
        (lambda tree: plan_unbind(tree, "../../etc"), "there is no '..'"),
    ],
)
def test_what_cannot_be_is_one_line(host: SriovHost, plan: object, cause: str) -> None:
    host.interface("lo", index=1)
    with pytest.raises(UsageError) as caught:
        plan(host.tree)  # type: ignore[operator]
    assert cause in str(caught.value)


@given(st.text(max_size=30))
def test_any_name_is_answered(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    host = SriovHost(tmp_path_factory.mktemp("host"))
    for plan in (lambda: plan_vfs(host.tree, name, 3), lambda: plan_bind(host.tree, name, "vfio-pci")):
        try:
            plan()
        except VfwireError as error:
            assert str(error)


def test_steps_are_taken_in_order_and_a_failure_says_what_was_done(tmp_path: Path) -> None:
    host = HostTree(tmp_path)
    host.write("sys/a", "1")
    steps = (Step("sys/a", "0", "first"), Step("sys/none/b", "2", "second"), Step("sys/a", "9", "third"))
    told: list[Step] = []
    with pytest.raises(
        VfwireError, match=r"echo 2 > /sys/none/b failed: No such file.*done before: echo 0 > /sys/a"
    ):
        carry_out(Tree(tmp_path), Plan(steps, "done"), told.append)
    assert (tmp_path / "sys/a").read_text() == "0\n" and told == [steps[0]]


def test_a_refusal_of_the_kernel_is_told_by_its_kind() -> None:
    """A file of the live /sys that nobody may write: not even root."""
    with pytest.raises(PermissionDenied, match="run it as root on the host; nothing was changed"):
        carry_out(Tree(), Plan((Step("sys/kernel/notes", "1", "read-only"),), ""))
