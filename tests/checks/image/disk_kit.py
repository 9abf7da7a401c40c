"""Small disk images: trees written by hand, made into file systems and partitions without root and without mounting."""

import bz2
import gzip
import io
import lzma
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import lz4.block
import zstandard

from vfwire.guests.cpio import CpioWriter


def lz4_legacy(data: bytes) -> bytes:
    """As `lz4 -l`, in blocks that are smaller than its 8 MiB (LZ4 Frame Format Description, Legacy frame)."""
    blocks = [lz4.block.compress(data[at : at + 4096], store_size=False) for at in range(0, len(data), 4096)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(one)) + one for one in blocks)


RELEASE = "6.12.0-test"
MODULES = f"usr/lib/modules/{RELEASE}"
INITRD = f"boot/initrd.img-{RELEASE}"
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "lz4": lz4_legacy,
}


def run(*command: str | Path, text: str | None = None) -> str:
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
    return done.stdout


def archive(names: tuple[str, ...], contents: Mapping[str, bytes] | None = None) -> bytes:
    """A cpio archive with a small file for each name."""
    stream = io.BytesIO()
    with CpioWriter(stream) as writer:
        for name in names:
            writer.file(name, contents[name] if contents else name.encode())
    return stream.getvalue()


def bzimage(program: bytes, packing: str = "gzip", release: str = RELEASE) -> bytes:
    """A kernel's file: header, its version as text, the packed program (Documentation/arch/x86/boot.rst)."""
    packed = PACKED[packing](program) + (b"" if packing == "gzip" else struct.pack("<I", len(program)))
    head = bytearray(0x1000)
    head[0x1F1] = 7  # sectors of set-up code behind the first
    head[0x202:0x208] = b"HdrS" + struct.pack("<H", 0x020F)
    struct.pack_into("<H", head, 0x20E, 0x400)
    struct.pack_into("<II", head, 0x248, 64, len(packed))
    text = f"{release} (builder@host) #1 SMP".encode()
    head[0x600 : 0x600 + len(text)] = text
    return bytes(head) + bytes(64) + packed


def configuration(*lines: str) -> bytes:
    """As a kernel with CONFIG_IKCONFIG carries it."""
    return b"IKCFG_ST" + gzip.compress("\n".join(lines).encode()) + b"IKCFG_ED"


def modules_dep(*names: str) -> str:
    return "".join(f"kernel/drivers/{name}.ko.xz:\n" for name in names)


def good_tree() -> dict[str, str | bytes]:
    """The files that a look needs to find all well: contents by path."""
    return {
        "etc/os-release": 'PRETTY_NAME="Test Linux 1"\n',
        "etc/fstab": "LABEL=root / ext4 defaults 0 1\n",
        "etc/systemd/network/10.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n",
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "",
        "usr/lib/udev/rules.d/80-net-setup-link.rules": "",
        f"{MODULES}/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
        f"{MODULES}/modules.dep": modules_dep("net/ena", "nvme/nvme", "block/xen-blkfront", "net/ixgbevf"),
        f"{MODULES}/kernel/drivers/net/ena.ko.xz": lzma.compress(b"\0version=2.13.0g\0license=GPL\0"),
        f"boot/vmlinuz-{RELEASE}": b"kernel",
        INITRD: archive((f"{MODULES}/kernel/drivers/nvme/nvme.ko", "init")),
        "boot/grub/grub.cfg": f"linux /boot/vmlinuz-{RELEASE} root=LABEL=root ro console=ttyS0\n",
        "EFI/BOOT/BOOTX64.EFI": b"MZ",
        "bin/sh": b"\x7fELF" + bytes(14) + b"\x3e\0" + bytes(44),
    }


def write_tree(where: Path, files: Mapping[str, str | bytes | Path]) -> Path:
    """A Path for contents is a link to it."""
    for name, content in files.items():
        file = where / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            file.symlink_to(content)
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
    return where


def make_disk(directory: Path, files: Mapping[str, str | bytes | Path], table: str = "gpt") -> Path:
    """A raw disk: an EFI partition with what is below EFI/, and an ext4 "root" with the rest. table: gpt, mbr, none."""
    image = directory / "disk.raw"
    root = write_tree(
        directory / "tree", {name: one for name, one in files.items() if not name.startswith("EFI/")}
    )
    esp = write_tree(directory / "esp", {name: one for name, one in files.items() if name.startswith("EFI/")})
    file_system = directory / "root.ext4"
    run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, file_system, "24M")
    if table == "none":
        return file_system.rename(image)
    with image.open("wb") as file:
        file.truncate(36 << 20)
    label, uefi, linux = ("gpt", "uefi", "linux") if table == "gpt" else ("dos", "ef", "83")
    layout = f"label: {label}\nstart=2048, size=16384, type={uefi}\nstart=18432, size=49152, type={linux}\n"
    run("sfdisk", "-q", image, text=layout)
    fat = directory / "esp.fat"
    run("mkfs.vfat", "-C", "-n", "ESP", fat, "8192")
    if esp.exists():
        run("mcopy", "-s", "-i", fat, *sorted(esp.iterdir()), "::")
    for part, start in ((fat, 1), (file_system, 9)):
        run("dd", f"if={part}", f"of={image}", "bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
        part.unlink()
    return image
