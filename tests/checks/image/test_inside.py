"""The look into an image: what it finds in disks made here, and each thing that leaves an instance unreachable."""

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_kit import INITRD, MODULES, PACKED, RELEASE, archive, good_tree, make_disk, modules_dep, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checks.image.image_kit import FAULTS, debian_image
from vfwire import cli
from vfwire.checks.image.initramfs import archive_files
from vfwire.checks.image.inside import Findings, look_inside
from vfwire.checks.image.qcow2 import Qcow2
from vfwire.checks.verdict import State
from vfwire.errors import BadInput, CannotTell, VfwireError
from vfwire.guests.qemu import find_qemu

Tree = dict[str, str | bytes | Path]


def look(directory: Path, files: Tree, model: str = "ena", table: str = "gpt") -> Findings:
    return look_inside(make_disk(directory, files, table), model)


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_a_good_disk_has_all_that_it_takes(tmp_path: Path, table: str) -> None:
    found = look(tmp_path, good_tree(), "both", table)
    assert found.problems == () and found.verdict.state is State.ENHANCED
    assert (found.format, found.table, found.system, found.architecture) == (
        "raw",
        table,
        "Test Linux 1",
        "x86_64",
    )
    assert found.firmware == ("uefi",) and found.cloud_init == ""
    (kernel,) = found.kernels
    assert kernel.drivers == {"ena": "module", "ixgbevf": "module", "nvme": "module", "xen-blkfront": "module",
                              "xen-netfront": "missing"}  # fmt: skip
    assert kernel.versions == {"ena": "2.13.0g"} and kernel.in_initramfs == ("nvme",)
    assert json.loads(json.dumps(found.to_json()))["verdict"] == "enhanced"


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_identities_are_those_that_blkid_and_sfdisk_tell(tmp_path: Path, table: str) -> None:
    image = make_disk(tmp_path, good_tree(), table)
    told = json.loads(run("sfdisk", "--json", image))["partitiontable"]
    found = {part["number"]: part for part in look_inside(image).partitions}
    for number, row in enumerate(told["partitions"], start=1):
        asked = (
            "blkid",
            "-p",
            "-o",
            "export",
            "-O",
            str(row["start"] * 512),
            "-S",
            str(row["size"] * 512),
            image,
        )
        probed = dict(line.split("=", 1) for line in run(*asked).splitlines() if "=" in line)
        assert found[number]["uuid"] == probed["UUID"].lower() and found[number]["label"] == probed["LABEL"]
        expected = row["uuid"].lower() if table == "gpt" else f"{int(told['id'], 16):08x}-{number:02x}"
        assert found[number]["partuuid"] == expected


def without(*paths: str) -> Callable[[Tree], None]:
    def change(tree: Tree) -> None:
        for path in paths:
            del tree[path]

    return change


def having(**files: str | bytes) -> Callable[[Tree], None]:
    """Keywords cannot hold slashes: "__" stands for one."""

    def change(tree: Tree) -> None:
        tree.update({name.replace("__", "/"): content for name, content in files.items()})

    return change


def changed(path: str, content: str | bytes) -> Callable[[Tree], None]:
    return lambda tree: tree.update({path: content})


NETWORK = "etc/systemd/network/10.network"
ENABLED = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
BROKEN: dict[str, tuple[Callable[[Tree], None], str]] = {
    "no ena": (changed(f"{MODULES}/modules.dep", modules_dep("nvme/nvme")), f"kernel {RELEASE} has no ena"),
    "no nvme": (changed(f"{MODULES}/modules.dep", modules_dep("net/ena")), "has no nvme: the root disk is not found"),
    "no nvme in the initramfs": (changed(INITRD, archive(("init",))), f"{INITRD} has no nvme: the root disk"),
    "no initramfs": (without(INITRD), "there is no initramfs, and nvme is a module"),
    "no kernel": (without(f"boot/vmlinuz-{RELEASE}", f"{MODULES}/modules.dep", f"{MODULES}/modules.builtin",
                          f"{MODULES}/kernel/drivers/net/ena.ko.xz"), "the image has no kernel"),
    "root by name": (changed("boot/grub/grub.cfg", "linux /vmlinuz root=/dev/xvda1 ro"), "root=/dev/xvda1"),
    "root of another disk": (changed("boot/grub/grub.cfg", "linux /vmlinuz root=UUID=0-1"), "no such file system"),
    "fstab by name": (changed("etc/fstab", "/dev/sda1 / ext4 defaults 0 1"), "fstab mounts /dev/sda1 at /"),
    "fstab of another disk": (changed("etc/fstab", "UUID=aa-bb /data ext4 defaults"), "at /data, which the image does"),
    "no boot loader": (without("EFI/BOOT/BOOTX64.EFI"), "no boot loader is found"),
    "wrong interface": (changed(NETWORK, "[Match]\nName=eth7\n[Network]\nDHCP=yes\n"), "on eth7 only"),
    "no lease": (changed(NETWORK, "[Match]\nName=en*\n[Network]\nAddress=10.0.0.2/24\n"), "nothing in the image asks"),
    "networkd is off": (without(ENABLED), "nothing in the image asks for a DHCP lease"),
    "old names": (changed("boot/grub/grub.cfg", "linux /vmlinuz root=LABEL=root net.ifnames=0"), ""),
    "pinned": (changed("etc/udev/rules.d/70-persistent-net.rules", 'ATTR{address}=="02:00:00:00:00:01", NAME="eth0"'),
               "70-persistent-net.rules binds"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_leaves_an_instance_unreachable_is_found(tmp_path: Path, name: str) -> None:
    change, reason = BROKEN[name]
    tree: Tree = dict(good_tree())
    change(tree)
    found = look(tmp_path, tree)
    if not reason:  # eth* is asked for, too: that is no problem
        assert found.problems == () and found.interface_names == ("eth0",)
        return
    (problem,) = found.problems
    assert problem.state is State.NOT and reason in problem.reason and problem.next_step, found.problems


def test_each_model_wants_its_own_drivers(tmp_path: Path) -> None:
    tree: Tree = dict(good_tree())
    tree[f"{MODULES}/modules.dep"] = modules_dep("net/ena", "nvme/nvme", "block/xen-blkfront")
    image = make_disk(tmp_path, tree)
    assert [one.reason.split(":")[0] for one in look_inside(image, "ena").problems] == []
    assert any("has no ixgbevf" in one.reason for one in look_inside(image, "82599").problems)
    assert any("has no xen-blkfront" in one.reason for one in look_inside(image, "82599").problems)


DHCP: dict[str, tuple[Tree, str]] = {
    "netplan": ({"etc/netplan/50.yaml": "network:\n  ethernets:\n    ens5:\n      dhcp4: true\n"}, "netplan"),
    "netplan by match": (
        {"etc/netplan/50.yaml": 'network:\n  ethernets:\n    a:\n      match: {name: "en*"}\n      dhcp4: true\n'},
        "netplan",
    ),
    "ifupdown": ({"etc/network/interfaces": "auto ens5\niface ens5 inet dhcp\n"}, "ifupdown"),
    "NetworkManager": (
        {"etc/systemd/system/multi-user.target.wants/NetworkManager.service": ""}, "NetworkManager"
    ),
    "ifcfg": ({"etc/sysconfig/network-scripts/ifcfg-ens5": 'DEVICE="ens5"\nBOOTPROTO=dhcp\n'}, "network-scripts"),
}  # fmt: skip


@pytest.mark.parametrize("name", DHCP)
def test_every_program_that_asks_for_a_lease_is_known(tmp_path: Path, name: str) -> None:
    files, by = DHCP[name]
    tree: Tree = {**good_tree(), **files}
    del tree[NETWORK]
    found = look(tmp_path, tree)
    assert found.problems == () and {lease.by for lease in found.leases} == {by}


@pytest.mark.parametrize(("off", "problems"), [("", 0), ("network: {config: disabled}\n", 1)])
def test_cloud_init_asks_for_a_lease_unless_it_is_told_not_to(
    tmp_path: Path, off: str, problems: int
) -> None:
    tree: Tree = {**good_tree(), "usr/bin/cloud-init": "", "etc/cloud/cloud.cfg.d/99-off.cfg": off}
    del tree[NETWORK]
    assert len(look(tmp_path, tree).problems) == problems


def test_a_disk_without_partitions_and_links_out_of_it(tmp_path: Path) -> None:
    tree: Tree = {**good_tree(), "initrd.img": Path("boot") / Path(INITRD).name, "loop": Path("loop"),
                  "out": Path("../../../../../../etc")}  # fmt: skip
    found = look(tmp_path, tree, table="none")
    assert found.table == "none" and [one.reason for one in found.problems] == [
        "no boot loader is found, by UEFI or by BIOS"
    ]


def test_xfs_is_read_too(tmp_path: Path) -> None:
    proto = ["/dev/null", "0 0", "d--755 0 0"]
    for name, content in {
        "os-release": 'PRETTY_NAME="On XFS"\n',
        "fstab": "LABEL=xroot / xfs defaults 0 0\n",
    }.items():
        (tmp_path / name).write_text(content)
    proto += [
        "etc d--755 0 0",
        *(f"{name} ---644 0 0 {tmp_path / name}" for name in ("os-release", "fstab")),
        "$",
        "$",
    ]
    (tmp_path / "proto").write_text("\n".join(proto) + "\n")
    image = tmp_path / "x.raw"
    image.touch()
    os.truncate(image, 320 << 20)
    run("mkfs.xfs", "-q", "-L", "xroot", "-p", tmp_path / "proto", image)
    found = look_inside(image)
    assert found.system == "On XFS" and found.partitions[0]["label"] == "xroot"
    assert "the image has no kernel" in {one.reason for one in found.problems}


@pytest.mark.parametrize("packing", PACKED)
def test_an_initramfs_is_read_however_it_is_packed(packing: str) -> None:
    early, late = archive(("early/microcode",)), archive(("init", "a/b.ko"))
    data = early + bytes(512 - len(early) % 512) + PACKED[packing](late)
    assert set(archive_files(data)) == {"early", "early/microcode", "init", "a", "a/b.ko"}


@given(st.binary(max_size=400), st.sampled_from(list(PACKED)), st.integers(0, 1 << 20))
def test_a_damaged_initramfs_ends_in_one_line(junk: bytes, packing: str, at: int) -> None:
    whole = PACKED[packing](archive(("init",)))
    at %= len(whole)
    for data in (junk, whole[:at], whole[:at] + junk + whole[at + len(junk) :]):
        try:
            assert isinstance(archive_files(data), dict)
        except BadInput as error:
            assert "\n" not in str(error)


@pytest.fixture(scope="module")
def good_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_disk(tmp_path_factory.mktemp("good"), good_tree())


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, (36 << 20) - 64), st.binary(min_size=1, max_size=64)), max_size=20),
    st.data(),
)
def test_a_damaged_disk_ends_in_findings_or_in_one_line(
    good_disk: Path,
    tmp_path_factory: pytest.TempPathFactory,
    spots: list[tuple[int, bytes]],
    data: st.DataObject,
) -> None:
    """Most spots are chosen where the tables and superblocks are."""
    image = tmp_path_factory.mktemp("bad") / "disk.raw"
    run("cp", "--sparse=always", good_disk, image)
    with image.open("r+b") as file:
        for offset, content in spots:
            base = data.draw(
                st.sampled_from([0, 440, 512, 1024, 1 << 20, 9 << 20, (9 << 20) + 1024, (9 << 20) + 4096])
            )
            file.seek(offset if offset % 4 == 0 else base + offset % 512)
            file.write(content)
    try:
        assert look_inside(image).verdict.exit_code in (0, 1, 3)
    except VfwireError as error:
        assert "\n" not in str(error)
    finally:
        image.unlink()


def qcow2_header(backing: int = 0, encryption: int = 0) -> bytes:
    """Version 2 (QEMU docs/interop/qcow2.rst): magic, version, backing offset and size, cluster bits, size, crypt."""
    return (
        b"QFI\xfb"
        + struct.pack(">IQIIQI", 2, backing, 4 if backing else 0, 16, 1 << 20, encryption)
        + bytes(36)
    )


NO_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"hello" * 1000, "is no disk image"),
    "vmdk": (b"KDMV" + bytes(4096), "is a VMDK disk"),
    "gzip": (b"\x1f\x8b" + bytes(4096), "a compressed file (gzip)"),
    "LUKS": (b"LUKS\xba\xbe" + bytes(8192), "is encrypted (LUKS)"),
    "qcow2 cut off": (b"QFI\xfb\0", "version 0"),
    "qcow2 of nothing": (qcow2_header() + bytes(4096), "does not cover the disk"),
    "qcow2 encrypted": (qcow2_header(encryption=2), "is encrypted"),
    "qcow2 overlay": (qcow2_header(backing=104), "only what differs from another image"),
    "swap": (bytes(4086) + b"SWAPSPACE2" + bytes(4096), "no Linux system that can be seen"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    content, cause = NO_IMAGES[name]
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(CannotTell if name == "swap" else BadInput) as caught:
        look_inside(tmp_path / "image")
    assert cause in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint


def test_a_real_debian_is_looked_into_in_less_than_ten_seconds() -> None:
    image = debian_image("good")
    begin = time.monotonic()
    found = look_inside(image, "both")
    assert time.monotonic() - begin < 10
    assert found.problems == () and found.firmware == ("uefi",) and "Debian" in found.system
    assert {found.kernels[-1].drivers[name] for name in ("ena", "ixgbevf")} == {"module"}


@pytest.mark.parametrize("variant", FAULTS)
def test_a_real_debian_that_does_not_come_up_is_told_with_its_reason(
    variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["image", "look", str(debian_image(variant)), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    (problem,) = told["problems"]
    assert FAULTS[variant] in problem["reason"] == told["reason"]


@pytest.mark.guests
@pytest.mark.parametrize(
    "options",
    [(), ("-c",), ("-o", "compat=0.10"), ("-c", "-o", "compression_type=zstd"), ("-o", "cluster_size=512")],
)
def test_a_qcow2_is_what_the_raw_image_is(good_disk: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    packed = tmp_path / "disk.qcow2"
    run(find_qemu().path.with_name("qemu-img"), "convert", *options, "-O", "qcow2", good_disk, packed)
    with packed.open("rb") as file:
        image = Qcow2(file, packed)
        assert image.size == good_disk.stat().st_size and image.read() == good_disk.read_bytes()
    found, expected = look_inside(packed), look_inside(good_disk)
    assert found.format == "qcow2"
    assert found.to_json() | {"format": "raw"} == expected.to_json()


@given(st.binary(max_size=60), st.integers(0, 104), st.binary(max_size=2000))
def test_a_damaged_qcow2_ends_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, rest: bytes
) -> None:
    header = qcow2_header().ljust(112, b"\0")
    image = tmp_path_factory.mktemp("bad") / "disk.qcow2"
    image.write_bytes(header[:at] + junk + header[at + len(junk) :] + rest)
    try:
        assert look_inside(image).verdict.exit_code in (0, 1, 3)
    except VfwireError as error:
        assert "\n" not in str(error)


def test_the_command_tells_it_and_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree: Tree = dict(good_tree())
    image = make_disk(tmp_path, tree)
    assert cli.run(["image", "look", str(image)]) == 0
    out = capsys.readouterr().out
    assert "ena module 2.13.0g" in out and "DHCP: systemd-networkd on en* eth*" in out
    assert cli.run(["image", "look", str(image), "--model", "82599", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1 and "xen-blkfront" in told["reason"]
    assert cli.run(["image", "look", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("vfwire: there is no ")
