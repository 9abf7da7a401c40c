"""`vfwire verify --sriov` and `vfwire sriov`: what they print, their exit codes, what they refuse."""

import json
from pathlib import Path

import pytest
from host_tree import PF, VFS, HostTree, SriovHost

from vfwire import cli


@pytest.fixture
def host(tmp_path: Path) -> SriovHost:
    return SriovHost(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.run([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_what_is_there_is_shown(host: SriovHost, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "verify", "--sriov", "--root", host.root)
    assert code == 0
    assert out.splitlines()[0] == f"eth0 {PF} 8086:10fb  driver ixgbe  VFs 3 of 63, 1 in use"
    assert f"vf 0  {VFS[0]}  driver ixgbevf  eth0v0  IOMMU group 7  MAC and VLAN: not told" in out
    assert f"free; passthrough: possible, by vfwire sriov bind {VFS[0]}" in out
    assert "passthrough: ready" in out and "verdict: a guest can be given a VF" in out
    code, out, _ = run(capsys, "verify", "--sriov", "eth0", "--root", host.root, "--json")
    told = json.loads(out)
    assert told["schema"] == 1 and told["verdict"] == "enhanced"
    assert [vf["function"]["address"] for vf in told["physical_functions"][0]["vfs"]] == VFS


def test_a_host_without_any_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    HostTree(tmp_path)
    code, out, _ = run(capsys, "verify", "--sriov", "--root", tmp_path)
    assert code == 1 and "no card here has SR-IOV" in out


def test_a_dry_run_shows_commands_and_changes_nothing(
    host: SriovHost, capsys: pytest.CaptureFixture[str]
) -> None:
    (host.root / host.virtual[2] / "driver").unlink()
    code, out, _ = run(capsys, "sriov", "set", "eth0", "--vfs", 8, "--dry-run", "--root", host.root)
    shown = [line.split("    #")[0] for line in out.splitlines()]
    assert (code, shown) == (0, [f"echo {n} > /sys/bus/pci/devices/{PF}/sriov_numvfs" for n in (0, 8)])
    assert (host.root / host.physical / "sriov_numvfs").read_text() == "3\n"
    code, out, _ = run(capsys, "sriov", "bind", "eth0/0", "--dry-run", "--root", host.root, "--json")
    told = json.loads(out)
    assert code == 0 and told["dry_run"] and not told["changed"] and len(told["steps"]) == 3
    code, out, _ = run(capsys, "sriov", "set", "eth0", "--vfs", 3, "--dry-run", "--root", host.root)
    assert (code, out) == (0, "nothing to do: eth0 has 3 VFs\n")


def test_what_cannot_be_is_one_line(host: SriovHost, capsys: pytest.CaptureFixture[str]) -> None:
    root = ("--root", host.root)
    wrong: list[tuple[tuple[object, ...], int, str]] = [
        (("verify", "--sriov", "eth1", *root), 2, "there is no PF 'eth1'; there are: eth0"),
        (("verify", "--sriov", "--watch"), 2, "--sriov shows"),
        (("sriov", "set", "eth0", "--vfs", 8, *root), 2, "a copy cannot be changed"),
        (("sriov", "set", "eth0", "--vfs", 8, "--dry-run", *root), 4, "is in use: given to vfio-pci"),
        (("sriov", "set", "eth0", *root), 2, "--vfs"),
        (("sriov", "set", "lo", "--vfs", 1), 2, "lo is no PCI function"),
        (("sriov", "bind", "eth0/9", "--dry-run", *root), 2, "has no VF '9'"),
        (("sriov", "unbind", "eth0/2", "--dry-run", *root), 4, "in use"),
    ]
    for arguments, expected, cause in wrong:
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (expected, ""), (arguments, err)
        assert len(err.splitlines()) == 1 and cause in err, (arguments, err)
