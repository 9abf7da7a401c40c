"""The QEMU options of a machine."""

import itertools
import json
from pathlib import Path

import pytest

from vfwire.errors import UsageError
from vfwire.guests.machine import Machine, boot, disk_format, hardware


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"kernel")
    return path


def values(options: list[str], name: str) -> list[str]:
    return [value for option, value in itertools.pairwise(options) if option == name]


def test_guest_memory_is_shared_and_of_one_size(kernel: Path) -> None:
    options = hardware(Machine(kernel=kernel, memory_mib=300), "tcg")
    assert values(options, "-m") == ["300M"]
    assert values(options, "-object") == ["memory-backend-memfd,id=memory,size=300M,share=on"]
    assert values(options, "-machine") == ["q35,memory-backend=memory"]


def test_functions_come_before_network_cards_each_in_a_slot(kernel: Path) -> None:
    machine = Machine(
        kernel=kernel, functions=(Path("/x/vf,0.sock"), Path("/x/vf1.sock")), nics=("tap,ifname=t0",)
    )
    devices = values(hardware(machine, "tcg"), "-device")
    functions = [json.loads(text) for text in devices if text.startswith("{")]
    assert [function["socket"] for function in functions] == [
        {"type": "unix", "path": "/x/vf,0.sock"},
        {"type": "unix", "path": "/x/vf1.sock"},
    ]
    assert [function["bus"] for function in functions] == ["slot0", "slot1"]
    assert devices[-1].startswith("virtio-net-pci,id=nic0,netdev=net0,bus=slot2")
    assert values(hardware(machine, "tcg"), "-netdev") == ["tap,id=net0,ifname=t0"]


def test_two_guests_on_one_network_have_different_addresses(kernel: Path) -> None:
    macs = {
        text.rpartition("mac=")[2]
        for name in ("a", "b")
        for text in hardware(Machine(name, kernel=kernel, nics=("user", "user")), "tcg")
        if "mac=" in text
    }
    assert len(macs) == 4


def test_the_kernel_line(kernel: Path) -> None:
    machine = Machine("a", kernel=kernel, addresses=("eth0:10.0.0.1/24",), append="quiet")
    assert boot(machine, Path("/i")) == [
        "-kernel", str(kernel),
        "-append", "console=ttyS0 vfwire.name=a vfwire.address=eth0:10.0.0.1/24 quiet",
        "-initrd", "/i",
    ]  # fmt: skip


def test_what_makes_no_sense_is_refused(kernel: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to start from"):
        Machine()
    with pytest.raises(UsageError, match="cannot read"):
        Machine(kernel=tmp_path / "none")
    with pytest.raises(UsageError, match="need a kernel"):
        Machine(disk=kernel, append="quiet")
    with pytest.raises(UsageError, match="more than 24"):
        Machine(kernel=kernel, functions=tuple(Path(f"/{number}") for number in range(25)))


def test_a_disk_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"QFI\xfb\0\0\0\3")
    (tmp_path / "b").write_bytes(b"")
    assert (disk_format(tmp_path / "a"), disk_format(tmp_path / "b")) == ("qcow2", "raw")
