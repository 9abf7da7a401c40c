"""The systems inside the instances, and Systems Manager's way into them.

A guest is a directory tree that is written by hand for each kind: interfaces with the driver that is bound, kernels,
modules, an initramfs's list of files, network configuration. A command sent to it is run by a real shell in that tree:
its `cd /` goes to the tree, and `ethtool` there prints what the tree says, in ethtool's format.
"""

import os
import subprocess
import tempfile
import threading
import uuid
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ssm.exceptions import SSMException
from moto.ssm.responses import SimpleSystemManagerResponse

_MOST_INSTANCES = 50  # API, ssm:SendCommand InstanceIds and ListCommandInvocations MaxResults
_SHORT_OUTPUT = 2500  # API, ssm:CommandPlugin Output
_LONG_OUTPUT = 24000  # API, ssm:GetCommandInvocation StandardOutputContent
_ETHTOOL = """#!/bin/sh
driver=$(basename "$(readlink "sys/class/net/$2/device/driver")")
printf 'driver: %s\\nversion: 6.12.1\\nfirmware-version: \\nexpansion-rom-version: \\n' "$driver"
printf 'bus-info: 0000:00:05.0\\n'
printf 'supports-statistics: yes\\nsupports-test: no\\nsupports-eeprom-access: no\\n'
"""
_LSINITRAMFS = '#!/bin/sh\ncat "$(dirname "$0")/../initrd-lists/$(basename "$1")"\n'


@dataclass
class Guest:
    """What is installed in an instance. modules: of each kernel; initramfs: those of them that it carries too."""

    managed: bool = True
    platform: str = "Linux"
    kernels: dict[str, set[str]] = field(
        default_factory=lambda: {"6.12.1": {"ena", "ixgbevf", "nvme", "xen-netfront"}}
    )
    initramfs: set[str] = field(default_factory=lambda: {"ena", "ixgbevf", "nvme", "xen-netfront"})
    command_line: str = "root=/dev/xvda1 net.ifnames=0"
    files: dict[str, str] = field(default_factory=dict)
    interfaces: int = 1
    driver: str = "vif"
    reachable: bool = True

    def key(self) -> tuple[Any, ...]:
        kernels = tuple((name, tuple(sorted(modules))) for name, modules in sorted(self.kernels.items()))
        return (
            kernels,
            tuple(sorted(self.initramfs)),
            self.command_line,
            tuple(sorted(self.files.items())),
            self.interfaces,
            self.driver,
        )


_guests: "weakref.WeakKeyDictionary[Any, Guest]" = weakref.WeakKeyDictionary()
_trees: dict[tuple[Any, ...], Path] = {}
_answers: dict[tuple[Any, ...], str] = {}
_commands: dict[str, dict[str, str]] = {}
_asked: set[tuple[str, str]] = set()
_one_by_one = threading.Lock()
_place: list[tempfile.TemporaryDirectory[str]] = []


def guest_of(instance: Any) -> Guest:
    return _guests.setdefault(instance, Guest())


def install_in(instance: Any, guest: Guest) -> None:
    """Another system in an instance, a copy of `guest`, which boots there."""
    _guests[instance] = replace(guest)
    boot(instance)


def boot(instance: Any) -> None:
    """What the guest meets when it starts: its interface's driver follows from type, flags and what is installed."""
    from tests.ec2_endpoint.rules import ena_support

    guest = guest_of(instance)
    newest = guest.kernels[max(guest.kernels)]
    family = instance.instance_type.partition(".")[0]
    if ena_support(instance.instance_type) != "unsupported":
        shown = "ena" if instance.ena_support else "vif"
    elif family in ("c3", "c4", "d2", "i2", "m4", "r3"):
        shown = "ixgbevf" if instance.sriov_net_support == "simple" else "vif"
    else:
        shown = "vif"
    guest.driver = shown
    guest.reachable = shown == "vif" or shown in newest


def install() -> None:
    """Once a process: the actions of Systems Manager that moto lacks, or answers emptily."""
    for action in (
        describe_instance_information,
        send_command,
        list_command_invocations,
        get_command_invocation,
    ):
        setattr(SimpleSystemManagerResponse, action.__name__, action)


def clear() -> None:
    """Forget every command and tree."""
    for known in (_commands, _asked, _trees, _answers):
        known.clear()
    while _place:
        _place.pop().cleanup()


def _instances(response: Any) -> dict[str, Any]:
    from moto.ec2.models import ec2_backends

    backend = ec2_backends[response.current_account][response.region]
    return {one.id: one for held in backend.reservations.values() for one in held.instances}


def _online(instance: Any) -> bool:
    guest = guest_of(instance)
    return guest.managed and guest.reachable and instance.state == "running"


def describe_instance_information(self: Any) -> ActionResult:
    """API, ssm:DescribeInstanceInformation: only managed nodes are told of; at most 50 a page."""
    known = _instances(self)
    wanted = [value for one in self._get_param("Filters", []) for value in one["Values"]]
    page = int(self._get_param("MaxResults", 10))
    if page > _MOST_INSTANCES:
        raise SSMException("ValidationException", "MaxResults must be at most 50")
    names = [name for name in (wanted or known) if name in known and guest_of(known[name]).managed]
    start = int(self._get_param("NextToken", 0) or 0)
    told = [
        {
            "InstanceId": name,
            "PingStatus": "Online" if _online(known[name]) else "ConnectionLost",
            "PlatformType": guest_of(known[name]).platform,
        }
        for name in names[start : start + page]
    ]
    answer: dict[str, Any] = {"InstanceInformationList": told}
    if start + page < len(names):
        answer["NextToken"] = str(start + page)
    return ActionResult(answer)


def send_command(self: Any) -> ActionResult:
    """API, ssm:SendCommand: at most 50 instances by name, every one of them managed."""
    names, known = self._get_param("InstanceIds", []), _instances(self)
    if len(names) > _MOST_INSTANCES:
        raise SSMException("ValidationException", "instanceIds must have at most 50")
    if any(name not in known or not _online(known[name]) for name in names):
        raise SSMException("InvalidInstanceId", "Instances not in a valid state for account")
    script = "\n".join(self._get_param("Parameters", {})["commands"])
    command = str(uuid.uuid4())
    _commands[command] = {name: run(guest_of(known[name]), script) for name in names}
    return ActionResult({"Command": {"CommandId": command, "Status": "Pending", "InstanceIds": names}})


def list_command_invocations(self: Any) -> ActionResult:
    """API, ssm:ListCommandInvocations: the first look sees them under way; output is cut at 2,500 characters."""
    command = self._get_param("CommandId")
    done = (command, "*") in _asked
    _asked.add((command, "*"))
    told = [
        {
            "CommandId": command,
            "InstanceId": name,
            "Status": "Success" if done else "InProgress",
            "CommandPlugins": [{"Name": "aws:runShellScript", "Output": output[:_SHORT_OUTPUT]}]
            if done
            else [],
        }
        for name, output in _commands[command].items()
    ]
    return ActionResult({"CommandInvocations": told})


def get_command_invocation(self: Any) -> ActionResult:
    """API, ssm:GetCommandInvocation: it may not be there yet just after it was sent."""
    asked = (self._get_param("CommandId"), self._get_param("InstanceId"))
    if asked not in _asked:
        _asked.add(asked)
        raise SSMException("InvocationDoesNotExist", "")
    output = _commands[asked[0]][asked[1]][:_LONG_OUTPUT]
    return ActionResult(
        {
            "CommandId": asked[0],
            "InstanceId": asked[1],
            "Status": "Success",
            "StatusDetails": "Success",
            "ResponseCode": 0,
            "StandardOutputContent": output,
            "StandardErrorContent": "",
        }
    )


def run(guest: Guest, script: str) -> str:
    """The script's output in that guest. Alike guests answer alike, so each kind runs it once."""
    with _one_by_one:
        return _run(guest, script)


def _run(guest: Guest, script: str) -> str:
    key = guest.key()
    if (answer := _answers.get((key, script))) is None:
        tree = _tree(guest)
        here = script.replace("cd /\n", f"cd '{tree}'\n", 1)
        assert here != script, "a script for a guest begins in the root directory"
        done = subprocess.run(
            ["sh", "-c", here],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": f"{tree}/bin:{os.defpath}"},
        )
        answer = _answers[(key, script)] = done.stdout
    return answer


def _tree(guest: Guest) -> Path:
    if (known := _trees.get(guest.key())) is not None:
        return known
    if not _place:
        _place.append(tempfile.TemporaryDirectory(prefix="vfwire-guests-"))
    tree = Path(_place[0].name) / str(len(_trees))
    for number in range(guest.interfaces):
        device = tree / f"sys/class/net/eth{number}/device"
        device.mkdir(parents=True)
        (device / "driver").symlink_to(f"../../../../bus/drivers/{guest.driver}")
    _write(tree / "sys/class/net/lo/address", "00:00:00:00:00:00")
    _write(tree / "proc/cmdline", guest.command_line)
    for kernel, modules in guest.kernels.items():
        _write(tree / f"boot/vmlinuz-{kernel}", "")
        _write(tree / f"boot/initrd.img-{kernel}", "")
        (tree / f"lib/modules/{kernel}").mkdir(parents=True)
        for module in modules:
            _write(tree / f"lib/modules/{kernel}/kernel/drivers/{module}.ko.xz", "")
        listed = sorted(guest.initramfs & modules)
        _write(
            tree / f"initrd-lists/initrd.img-{kernel}",
            "".join(f"usr/lib/modules/{kernel}/kernel/drivers/{name}.ko\n" for name in listed),
        )
    for name, text in guest.files.items():
        _write(tree / name, text)
    for name, text in (("ethtool", _ETHTOOL), ("lsinitramfs", _LSINITRAMFS)):
        _write(tree / "bin" / name, text)
        (tree / "bin" / name).chmod(0o755)
    _trees[guest.key()] = tree
    return tree


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
