"""A kernel and an initramfs that are handed over: what their own bytes tell, and what is said of what they do not."""

import json
from pathlib import Path

import pytest
from disk_kit import (
    MODULES,
    PACKED,
    RELEASE,
    archive,
    bzimage,
    configuration,
    good_tree,
    make_disk,
    modules_dep,
)
from hypothesis import given
from hypothesis import strategies as st

from vfwire import cli
from vfwire.checks.image.inside import Findings, look_at_start, look_inside
from vfwire.checks.image.kernel_file import read_kernel_file
from vfwire.checks.image.kernels import Start
from vfwire.checks.image.naming import asked_by_kernel
from vfwire.checks.verdict import State
from vfwire.errors import BadInput, UsageError, VfwireError

NVME = b"\0nvme.use_threaded_interrupts\0"
ENA = f"{MODULES}/kernel/drivers/net/ethernet/amazon/ena/ena.ko"
BUILT_IN = "kernel/drivers/nvme/host/nvme.ko\nkernel/fs/ext4/ext4.ko\n"


def start(
    directory: Path, program: bytes, files: dict[str, bytes] | None = None, append: str = "ip=dhcp"
) -> Start:
    (directory / "vmlinuz").write_bytes(bzimage(program))
    if files is not None:
        (directory / "initrd").write_bytes(archive(tuple(files), files))
    return Start(directory / "vmlinuz", directory / "initrd" if files is not None else None, append)


def drivers(found: Findings) -> dict[str, str]:
    return found.kernels[-1].drivers


@pytest.mark.parametrize("packing", [name for name in PACKED if name != "plain"])
def test_a_kernel_that_carries_its_configuration_tells_all(tmp_path: Path, packing: str) -> None:
    program = b"\x7fELF" + configuration("CONFIG_ENA_ETHERNET=y", "CONFIG_BLK_DEV_NVME=m") + bytes(100)
    (tmp_path / "vmlinuz").write_bytes(bzimage(program, packing))
    found = look_at_start(Start(tmp_path / "vmlinuz", None, "ip=dhcp"))
    assert found.kernels[0].release == RELEASE and found.verdict.state is State.ENHANCED
    assert drivers(found) == {"ena": "built in"} | dict.fromkeys(
        ("ixgbevf", "nvme", "xen-blkfront", "xen-netfront"), "missing"
    )


def test_a_list_in_the_initramfs_tells_all(tmp_path: Path) -> None:
    files = {ENA: b"\x7fELF\0version=2.13.0g\0", f"{MODULES}/modules.builtin": BUILT_IN.encode()}
    found = look_at_start(start(tmp_path, b"", files), "both")
    assert found.kernels[0].versions == {"ena": "2.13.0g"} and found.kernels[0].in_initramfs == ("ena",)
    assert (drivers(found)["ena"], drivers(found)["nvme"]) == ("module", "built in")
    (problem,) = found.problems
    assert problem.state is State.NOT and f"kernel {RELEASE} has no ixgbevf" in problem.reason


def test_what_is_built_in_is_told_by_parameters_or_not_at_all(tmp_path: Path) -> None:
    found = look_at_start(start(tmp_path, NVME))
    assert drivers(found)["nvme"] == "built in" and drivers(found)["ena"] == "unknown"
    assert found.verdict.state is State.UNKNOWN
    assert "cannot be told; there is no initramfs" in found.verdict.reason
    assert "CONFIG_ENA_ETHERNET=y" in found.verdict.next_step
    found = look_at_start(start(tmp_path, NVME, {"init": b""}))
    assert f"{tmp_path / 'initrd'} does not carry it" in found.verdict.reason


def test_an_initramfs_of_another_kernel_is_named(tmp_path: Path) -> None:
    other = {ENA.replace(RELEASE, "6.1.0-other"): b"", f"{MODULES}/modules.builtin": BUILT_IN.encode()}
    found = look_at_start(start(tmp_path, NVME, other))
    assert found.verdict.state is State.NOT and "initrd is for 6.1.0-other" in found.verdict.reason


def test_an_initramfs_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    handed = start(tmp_path, NVME, {})
    (tmp_path / "initrd").write_bytes(b"\x89LZO" + bytes(100))
    found = look_at_start(handed)
    assert found.verdict.state is State.UNKNOWN and "compressed: LZO" in found.verdict.reason


def test_who_asks_for_a_lease_is_seen_only_of_the_command_line(tmp_path: Path) -> None:
    program = configuration("CONFIG_ENA_ETHERNET=y")
    found = look_at_start(start(tmp_path, program, append="console=ttyS0"))
    assert found.verdict.state is State.UNKNOWN and "DHCP lease" in found.verdict.reason
    lines = [
        "ip=dhcp",
        "ip=:::::ens5:dhcp",
        "ip=eth0:on",
        "ip=10.0.0.2::10.0.0.1:255.0.0.0::eth0:off",
        "ip=off",
    ]
    assert [lease.names for line in lines for lease in asked_by_kernel([line])] == [(), ("ens5",), ("eth0",)]


@pytest.mark.parametrize(
    ("files", "append", "said"),
    [
        ({f"{MODULES}/kernel/nvme.ko": b""}, "root=LABEL=root", None),
        ({"init": b""}, "root=LABEL=root", "initrd has no nvme: the root disk is not found"),
        (None, "root=LABEL=root", "there is no initramfs, and nvme is a module"),
        ({f"{MODULES}/kernel/nvme.ko": b""}, "root=/dev/xvda1", "the kernel is told root=/dev/xvda1"),
    ],
)
def test_a_kernel_on_a_disk_finds_the_disk_s_modules(
    tmp_path: Path, files: dict[str, bytes] | None, append: str, said: str | None
) -> None:
    tree = good_tree()
    del tree["EFI/BOOT/BOOTX64.EFI"]  # no boot loader is needed
    found = look_inside(make_disk(tmp_path, tree), "ena", start(tmp_path, b"", files, append))
    assert drivers(found)["ena"] == "module" and found.firmware == ("kernel",)
    assert [said in one.reason for one in found.problems if said] == ([True] if said else []), found.problems
    assert bool(found.problems) == bool(said)


def test_a_kernel_without_modules_on_its_disk(tmp_path: Path) -> None:
    """Another release than the disk's: its modules are not there."""
    tree = good_tree()
    handed = start(tmp_path, NVME + configuration("CONFIG_ENA_ETHERNET=m"), None, "root=LABEL=root")
    (tmp_path / "vmlinuz").write_bytes(bzimage(configuration("CONFIG_ENA_ETHERNET=m"), release="7.0.0"))
    found = look_inside(
        make_disk(tmp_path, tree | {f"{MODULES}/modules.dep": modules_dep("net/ena")}), "ena", handed
    )
    assert found.kernels[0].release == "7.0.0" and "kernel 7.0.0 has no ena" in found.verdict.reason


def test_what_is_no_kernel_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"hello" * 1000)
    (tmp_path / "elf").write_bytes(b"\x7fELF" + bytes(100) + b"Linux version 6.1.2-elf (gcc)" + bytes(100))
    assert read_kernel_file(tmp_path / "elf").release == "6.1.2-elf"
    with pytest.raises(BadInput, match="no Linux kernel"):
        read_kernel_file(tmp_path / "text")
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            read_kernel_file(path)


@given(st.binary(max_size=80), st.integers(0, 0x300), st.sampled_from(["gzip", "xz", "zstd", "lz4"]))
def test_a_damaged_kernel_ends_in_a_release_or_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, packing: str
) -> None:
    whole = bzimage(configuration("CONFIG_ENA_ETHERNET=y"), packing)
    path = tmp_path_factory.mktemp("bad") / "vmlinuz"
    for data in (whole[:at], whole[:at] + junk + whole[at + len(junk) :]):
        path.write_bytes(data)
        try:
            look_at_start(Start(path))
        except VfwireError as error:
            assert "\n" not in str(error)


def test_the_command_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handed = start(tmp_path, NVME, {ENA: b"", f"{MODULES}/modules.builtin": BUILT_IN.encode()})
    words = ["image", "look", "--kernel", str(handed.kernel), "--initrd", str(handed.initrd)]
    assert cli.run([*words, "--append", "ip=dhcp"]) == 0
    out = capsys.readouterr().out
    assert f"kernel {RELEASE}: ena module, ixgbevf missing, nvme built in" in out and "ip=dhcp" in out
    assert cli.run([*words, "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["image"] is None and told["kernels"][0]["in_initramfs"] == ["ena"]
    for wrong in (["--initrd", str(handed.initrd)], [], ["--kernel", str(tmp_path / "none")]):
        assert cli.run(["image", "look", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
