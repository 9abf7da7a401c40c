"""Disk images of a small Debian, made from packages: one that comes up on EC2, and some that do not.

    GPT   1  EFI system partition: GRUB as the firmware finds it, and its configuration
          2  ext4 "root": Debian with systemd, networkd and the cloud kernel

debootstrap wants root; the disk is then put together without mounting anything. The tree is made once and kept.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from vfwire.guests.cache import cache_directory, held

PACKAGES = "linux-image-cloud-amd64,systemd-sysv,udev,initramfs-tools,zstd,iproute2,grub-efi-amd64-bin"
SUITE = "trixie"
_SECTOR = 512
_ESP_MIB, _ROOT_MIB = 48, 640
_DRIVER = "kernel/drivers/net/ethernet/amazon/ena"
_NETWORK = "[Match]\nName={name}\n\n[Network]\nDHCP=ipv4\n"
_GRUB = """\
search --no-floppy --label root --set=root
linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0 net.ifnames=1 panic=-1
initrd /initrd.img
boot
"""


def _run(*command: str | Path, text: str | None = None) -> None:
    done = subprocess.run(list(map(str, command)), check=False, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}"


def _in_root(tree: Path, *command: str) -> None:
    _run("chroot", tree, *command)


def _modules(tree: Path) -> Path:
    (modules,) = (tree / "usr/lib/modules").iterdir()
    return modules


def _new_initramfs(tree: Path) -> None:
    _in_root(tree, "update-initramfs", "-u")


def _without_ena(tree: Path) -> None:
    shutil.rmtree(_modules(tree) / _DRIVER)
    _in_root(tree, "depmod", _modules(tree).name)
    _new_initramfs(tree)


def _without_nvme_in_the_initramfs(tree: Path) -> None:
    """The cloud kernel has NVMe built in: this one has the ordinary kernel, and an initramfs without the module."""
    for file in [*(tree / "boot").glob("*cloud*"), _modules(tree)]:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    (tree / "etc/initramfs-tools/initramfs.conf").write_text("MODULES=list\nBUSYBOX=auto\nCOMPRESS=zstd\n")
    (tree / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
    _install(tree, "linux-image-amd64")


def _install(tree: Path, *packages: str) -> None:
    _in_root(tree, "apt-get", "-q", "update")
    fast = "-oDpkg::Options::=--force-unsafe-io"
    _in_root(tree, "apt-get", "-q", "-y", fast, "install", "--no-install-recommends", *packages)
    _drop_what_a_guest_does_not_need(tree)


def _with_cloud_init(tree: Path) -> None:
    """It asks the metadata service, and configures the network by what it is told there."""
    (tree / "etc/systemd/network/10-lease.network").unlink()
    _install(tree, "cloud-init", "netplan.io")


def _with_the_wrong_interface(tree: Path) -> None:
    (tree / "etc/systemd/network/10-lease.network").write_text(_NETWORK.format(name="eth7"))


VARIANTS: dict[str, Callable[[Path], None]] = {
    "good": lambda _tree: None,
    "no-ena": _without_ena,
    "no-nvme": _without_nvme_in_the_initramfs,
    "cloud-init": _with_cloud_init,
    "wrong-interface": _with_the_wrong_interface,
}


# What a look inside says of those that do not come up.
FAULTS = {
    "no-ena": "has no ena",
    "no-nvme": "has no nvme: the root disk is not found",
    "wrong-interface": "a DHCP lease is asked for on eth7 only",
}


def debian_tree() -> Path:
    """The good image's files, as root owns them. Takes a minute the first time."""
    place = cache_directory("image-tests", SUITE)
    with held(place):
        if not (place / "done").exists():
            shutil.rmtree(place / "root", ignore_errors=True)
            _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, place / "root")
            _configure(place / "root")
            (place / "done").touch()
    return place / "root"


def _configure(tree: Path) -> None:
    (tree / "etc/fstab").write_text("LABEL=root / ext4 defaults 0 1\n")
    (tree / "etc/hostname").write_text("image\n")
    (tree / "etc/systemd/network/10-lease.network").write_text(_NETWORK.format(name="en* eth*"))
    _in_root(tree, "systemctl", "enable", "systemd-networkd")
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "systemd-networkd-wait-online"):
        _in_root(tree, "systemctl", "disable", unit)
    _drop_what_a_guest_does_not_need(tree)


def _drop_what_a_guest_does_not_need(tree: Path) -> None:
    for name in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(tree / name, ignore_errors=True)


def debian_image(variant: str) -> Path:
    """A raw disk image of that variant, ready to be read or booted; made the first time it is asked for."""
    tree = debian_tree()
    image = tree.parent / f"{variant}.raw"
    with held(tree.parent):
        if not image.exists():
            if variant == "good":
                _make_disk(tree, image)
            else:
                own = tree.parent / variant
                shutil.rmtree(own, ignore_errors=True)
                _run("cp", "-a", tree, own)
                VARIANTS[variant](own)
                _make_disk(own, image)
                shutil.rmtree(own)
    return image


def _make_disk(tree: Path, image: Path) -> None:
    """Two file systems, each made in a file of its own, and the partitions that hold them."""
    esp, root, disk = (image.with_suffix(suffix) for suffix in (".esp", ".root", ".part"))
    _make_esp(tree, esp)
    root.unlink(missing_ok=True)
    _run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tree, root, f"{_ROOT_MIB}M")
    sizes = [1, _ESP_MIB, _ROOT_MIB, 1]  # MiB; the first and the last hold the two tables
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(sum(sizes) << 20)
    layout = ["label: gpt", f"start={1 << 11}, size={_ESP_MIB << 11}, type=uefi", "type=linux"]
    layout[2] = f"start={(1 + _ESP_MIB) << 11}, size={_ROOT_MIB << 11}, {layout[2]}"
    _run("sfdisk", "-q", disk, text="\n".join(layout))
    for part, start in ((esp, 1), (root, 1 + _ESP_MIB)):
        _run("dd", f"if={part}", f"of={disk}", "bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
        part.unlink()
    disk.rename(image)


def _make_esp(tree: Path, esp: Path) -> None:
    configuration = esp.with_suffix(".cfg")
    configuration.write_text(_GRUB)
    esp.unlink(missing_ok=True)
    _run("mkfs.vfat", "-C", "-n", "ESP", esp, str(_ESP_MIB << 10))
    files: Sequence[tuple[str, Path | None]] = (
        ("::/EFI", None),
        ("::/EFI/BOOT", None),
        ("::/EFI/debian", None),
        ("::/EFI/BOOT/BOOTX64.EFI", tree / "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"),
        ("::/EFI/debian/grub.cfg", configuration),
    )
    for target, source in files:
        _run(*(["mmd", "-i", esp, target] if source is None else ["mcopy", "-i", esp, source, target]))
    configuration.unlink()
