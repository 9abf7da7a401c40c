"""A guest's line for QEMU, libvirt and Cloud Hypervisor: read back as those read it."""

import subprocess
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from vfwire.guests.formats import cloud_hypervisor_words, libvirt_xml, qemu_words, shell_line
from vfwire.guests.machine import Machine
from vfwire.guests.qemu import Qemu

QEMU = Qemu(Path("/q/qemu-system-x86_64"), "11.1.3", vfio_user=True)
NAMESPACE = "{http://libvirt.org/schemas/domain/qemu/1.0}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name in ("vm linuz", "initrd"):
        (tmp_path / name).write_bytes(b"x")
    return Machine(
        "a",
        kernel=tmp_path / "vm linuz",
        initrds=(tmp_path / "initrd",),
        functions=(Path("/r/vf0.sock"),),
        vcpus=2,
    )


def test_a_shell_reads_the_line_as_it_was(machine: Machine) -> None:
    words = qemu_words(QEMU, machine, "tcg")
    read = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {shell_line(words)}"], capture_output=True, text=True, check=True
    )
    assert read.stdout.splitlines() == words
    assert words[0] == "/q/qemu-system-x86_64" and words[-2:] == ["-serial", "mon:stdio"]


def test_libvirt_shares_memory_and_hands_the_function_to_qemu(machine: Machine) -> None:
    domain = Xml.fromstring(libvirt_xml(QEMU, machine, "tcg"))
    assert domain.get("type") == "qemu"
    assert domain.findtext("vcpu") == "2" and domain.findtext("memory") == "512"
    backing = domain.find("memoryBacking")
    assert backing is not None
    assert (backing.find("source").get("type"), backing.find("access").get("mode")) == ("memfd", "shared")  # type: ignore[union-attr]
    assert domain.findtext("os/kernel") == str(machine.kernel)
    options = [argument.get("value") or "" for argument in domain.iter(f"{NAMESPACE}arg")]
    assert any('"driver":"vfio-user-pci"' in option and "/r/vf0.sock" in option for option in options)
    assert Xml.fromstring(libvirt_xml(QEMU, machine, "kvm")).get("type") == "kvm"


def test_cloud_hypervisor_gets_shared_memory_and_the_socket(machine: Machine) -> None:
    words = cloud_hypervisor_words(machine)
    assert words[words.index("--user-device") + 1] == "socket=/r/vf0.sock"
    assert words[words.index("--memory") + 1] == "size=512M,shared=on"
