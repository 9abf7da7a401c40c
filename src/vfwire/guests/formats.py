"""The same guest for other hands: QEMU's line for a shell, libvirt's domain XML, Cloud Hypervisor's line."""

import itertools
import shlex
from xml.etree import ElementTree as Xml

from vfwire.guests.accelerator import OPTIONS, TCG
from vfwire.guests.machine import Machine, boot, disk_format, hardware
from vfwire.guests.qemu import Qemu

_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"  # libvirt, docs/drvqemu.rst
CLOUD_HYPERVISOR_NOTE = (
    "not run here (it needs KVM; a test replays its client's messages); "
    "its guest memory carries no seal, which a card insists on: expect the card to refuse it"
)


def qemu_words(qemu: Qemu, machine: Machine, accelerator: str) -> list[str]:
    """QEMU's whole line, with the console and its monitor on the terminal (Ctrl-a c changes over)."""
    initrd = machine.initrds[0] if machine.initrds else None
    return [
        str(qemu.path), *hardware(machine, OPTIONS[accelerator]), *boot(machine, initrd), "-serial", "mon:stdio",
    ]  # fmt: skip


def shell_line(words: list[str]) -> str:
    """For a shell: an option a line, quoted."""
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n  ".join(lines)


def libvirt_xml(qemu: Qemu, machine: Machine, accelerator: str) -> str:
    """A domain for `virsh create`: shared memory by libvirt's own elements, vfio-user by options for QEMU."""
    Xml.register_namespace("qemu", _QEMU_NAMESPACE)
    domain = Xml.Element("domain", type="qemu" if accelerator == TCG else "kvm")
    _text(domain, "name", machine.name)
    _text(domain, "memory", str(machine.memory_mib), unit="MiB")
    backing = Xml.SubElement(domain, "memoryBacking")
    Xml.SubElement(backing, "source", type="memfd")
    Xml.SubElement(backing, "access", mode="shared")
    _text(domain, "vcpu", str(machine.vcpus))
    system = Xml.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=machine.machine_type)
    if machine.kernel is not None:
        _text(system, "kernel", str(machine.kernel.absolute()))
        for initrd in machine.initrds[:1]:
            _text(system, "initrd", str(initrd.absolute()))
        _text(system, "cmdline", machine.kernel_line)
    Xml.SubElement(domain, "cpu", mode="maximum")
    devices = Xml.SubElement(domain, "devices")
    _text(devices, "emulator", str(qemu.path))
    Xml.SubElement(devices, "serial", type="pty")
    _add_disk(devices, machine)
    _add_qemu_options(domain, machine)
    Xml.indent(domain)
    return Xml.tostring(domain, encoding="unicode")


def _add_disk(devices: Xml.Element, machine: Machine) -> None:
    if machine.disk is None:
        return
    disk = Xml.SubElement(devices, "disk", type="file", device="disk")
    Xml.SubElement(disk, "driver", name="qemu", type=disk_format(machine.disk))
    Xml.SubElement(disk, "source", file=str(machine.disk.absolute()))
    Xml.SubElement(disk, "target", dev="vda", bus="virtio")


def _add_qemu_options(domain: Xml.Element, machine: Machine) -> None:
    """The functions, and network cards as they are given: what hardware() has of them."""
    words = hardware(machine, OPTIONS[TCG])
    line = Xml.SubElement(domain, f"{{{_QEMU_NAMESPACE}}}commandline")
    for option, value in itertools.pairwise(words):
        if option in ("-device", "-netdev"):
            Xml.SubElement(line, f"{{{_QEMU_NAMESPACE}}}arg", value=option)
            Xml.SubElement(line, f"{{{_QEMU_NAMESPACE}}}arg", value=value)


def cloud_hypervisor_words(machine: Machine) -> list[str]:
    """Cloud Hypervisor's line (its docs/vfio-user.md: shared memory, --user-device socket=…)."""
    words = [
        "cloud-hypervisor",
        "--cpus",
        f"boot={machine.vcpus}",
        "--memory",
        f"size={machine.memory_mib}M,shared=on",
    ]
    if machine.kernel is not None:
        words += ["--kernel", str(machine.kernel), "--cmdline", machine.kernel_line]
        words += [word for initrd in machine.initrds[:1] for word in ("--initramfs", str(initrd))]
    if machine.disk is not None:
        words += ["--disk", f"path={machine.disk}"]
    for path in machine.functions:
        words += ["--user-device", f"socket={path}"]
    return [*words, "--serial", "tty", "--console", "off"]


def _text(parent: Xml.Element, name: str, text: str, **attributes: str) -> None:
    Xml.SubElement(parent, name, attributes).text = text
