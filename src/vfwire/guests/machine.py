"""What a guest is made of, and the QEMU options that make it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vfwire.errors import UsageError

COMMAND_PORTS = 4
_DISKS = {"virtio": "virtio-blk-pci", "nvme": "nvme"}
SPARE_SLOTS = 4  # for functions that are plugged in again
_SLOTS = 24  # root ports that fit on the root complex, with the rest of the machine


@dataclass(frozen=True)
class Machine:
    """A guest to be started.

    functions: vfio-user sockets, in the order in which the guest sees them. nics: QEMU's -netdev texts without id
    ("tap,ifname=t0,…"), each for a virtio-net behind the functions. disk: an image, on disk_bus ("virtio" or "nvme"),
    not written to with keep_disk. firmware: another than SeaBIOS, as find_uefi gives it. initrds: cpio archives, joined
    into one. files: by their path in the guest, files or directories that come along (with an initrd). addresses:
    "eth0:10.0.0.1/24,fd00::1/64", for images of `vfwire guest build`. append: more words for the kernel. extra: more
    QEMU options.
    """

    name: str = "guest"
    kernel: Path | None = None
    initrds: tuple[Path, ...] = ()
    disk: Path | None = None
    disk_bus: str = "virtio"
    disk_serial: str = "vfwire"
    keep_disk: bool = False
    firmware: Path | None = None
    functions: tuple[Path, ...] = ()
    nics: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    vcpus: int = 1
    memory_mib: int = 512
    append: str = ""
    machine_type: str = "q35"
    extra: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kernel is None and self.disk is None:
            raise UsageError(f"{self.name} has nothing to start from", "give it a kernel or a disk")
        if self.kernel is None and (self.initrds or self.append or self.addresses or self.files):
            raise UsageError("an initrd, --append and addresses need a kernel", "give it one with --kernel")
        if len(self.functions) + len(self.nics) > _SLOTS:
            raise UsageError(f"{self.name} has more than {_SLOTS} devices", "give it fewer")
        for path in (self.kernel, *self.initrds, self.disk, *self.files.values()):
            if path is not None and not os.access(path, os.R_OK):
                raise UsageError(f"cannot read {path}", "check the path")

    @property
    def kernel_line(self) -> str:
        words = ["console=ttyS0", f"vfwire.name={self.name}"]
        words += [f"vfwire.address={address}" for address in self.addresses]
        return " ".join([*words, self.append]).strip()


def function_device(machine: Machine, index: int) -> dict[str, object]:
    """The device of function `index`, as -device and device_add take it."""
    socket = {"type": "unix", "path": str(machine.functions[index].absolute())}
    return {"driver": "vfio-user-pci", "id": f"vf{index}", "bus": f"slot{index}", "socket": socket}


def returned_device(machine: Machine, index: int, spare: int) -> dict[str, object]:
    """The same function as a new device, in a spare slot."""
    device = function_device(machine, index)
    return {**device, "id": f"vf{index}.{spare + 1}", "bus": f"spare{spare}"}


def hardware(machine: Machine, accelerator: str) -> list[str]:
    """QEMU options for all that the guest sees, but console, commands and monitor."""
    options = [
        "-name", machine.name,
        "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", f"{machine.machine_type},memory-backend=memory",
        "-accel", accelerator,
        "-cpu", "max",
        "-smp", str(machine.vcpus),
        "-m", f"{machine.memory_mib}M",
        "-object", f"memory-backend-memfd,id=memory,size={machine.memory_mib}M,share=on",
    ]  # fmt: skip
    slots = len(machine.functions) + len(machine.nics)
    for slot in range(slots):
        options += ["-device", f"pcie-root-port,id=slot{slot},chassis={slot + 1},slot={slot + 1}"]
    spares = SPARE_SLOTS if machine.functions else 0
    for spare in range(spares):
        number = slots + spare + 1
        options += ["-device", f"pcie-root-port,id=spare{spare},chassis={number},slot={number}"]
    for index in range(len(machine.functions)):
        options += ["-device", json.dumps(function_device(machine, index), separators=(",", ":"))]
    for index, text in enumerate(machine.nics):
        kind, comma, rest = text.partition(",")
        slot = len(machine.functions) + index
        options += ["-netdev", f"{kind},id=net{index}{comma}{rest}"]
        options += ["-device", f"virtio-net-pci,id=nic{index},netdev=net{index},bus=slot{slot},romfile=,"
                    f"mac=52:54:00:{_host_bytes(machine.name)}:{index:02x}"]  # fmt: skip
    if machine.firmware is not None:
        options += ["-bios", str(machine.firmware)]
    if machine.disk is not None:
        options += _disk(machine, machine.disk)
    return [*options, *machine.extra]


def _disk(machine: Machine, image: Path) -> list[str]:
    backend = f"if=none,id=disk0,format={disk_format(image)},file={str(image).replace(',', ',,')}"
    if machine.keep_disk:
        backend += ",snapshot=on"
    return [
        "-drive",
        backend,
        "-device",
        f"{_DISKS[machine.disk_bus]},drive=disk0,serial={machine.disk_serial}",
    ]


def disk_format(path: Path) -> str:
    """ "qcow2" or "raw", by the first bytes (QEMU, docs/interop/qcow2)."""
    with path.open("rb") as file:
        return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"


def _host_bytes(name: str) -> str:
    """Two bytes of a MAC that differ from guest to guest on one network."""
    number = sum(value * 31**place for place, value in enumerate(name.encode())) % 0x10000
    return f"{number >> 8:02x}:{number & 0xFF:02x}"


def boot(machine: Machine, initrd: Path | None) -> list[str]:
    """QEMU options for what is started: the kernel with its one initrd, or the disk."""
    if machine.kernel is None:
        return []
    options = ["-kernel", str(machine.kernel), "-append", machine.kernel_line]
    return [*options, "-initrd", str(initrd)] if initrd else options
