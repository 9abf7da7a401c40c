"""What is known of an instance, its AMI and the system in it, in our words; and how AWS's answers become that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Image:
    """An AMI. ena, sriov: its flags, EnaSupport and SriovNetSupport=simple."""

    id: str
    name: str
    ena: bool
    sriov: bool
    virtualization: str
    root_device: str


@dataclass(frozen=True, slots=True)
class Instance:
    """ena, sriov: the instance's own flags, taken from its AMI at launch and changed since by nobody else.

    group: its Auto Scaling group, or "". passing_ip: a public address that a stop takes away (no Elastic IP), or "".
    Its own `Hypervisor` field is not here: it says xen for Nitro too (API Reference, Instance).
    """

    id: str
    type: str
    state: str
    ena: bool
    sriov: bool
    virtualization: str
    root_device: str
    image_id: str
    windows: bool
    spot: bool
    group: str
    passing_ip: str


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a guest that has a device, and the driver that is bound to it."""

    name: str
    driver: str
    version: str


@dataclass(frozen=True, slots=True)
class Guest:
    """What a guest says of itself, or why it was not asked (`silent`, "" when it answered)."""

    interfaces: tuple[Interface, ...] = ()
    silent: str = ""


def instance_of(answer: Mapping[str, Any]) -> Instance:
    """One Instance of DescribeInstances."""
    tags = {tag.get("Key"): tag.get("Value", "") for tag in answer.get("Tags", ())}
    return Instance(
        id=answer["InstanceId"],
        type=answer.get("InstanceType", ""),
        state=answer.get("State", {}).get("Name", "unknown"),
        ena=bool(answer.get("EnaSupport")),
        sriov=answer.get("SriovNetSupport") == "simple",
        virtualization=answer.get("VirtualizationType", "hvm"),
        root_device=answer.get("RootDeviceType", "ebs"),
        image_id=answer.get("ImageId", ""),
        windows=str(answer.get("Platform", "")).lower() == "windows",
        spot=answer.get("InstanceLifecycle") == "spot",
        group=tags.get("aws:autoscaling:groupName", ""),
        passing_ip=_passing_ip(answer),
    )


def _passing_ip(answer: Mapping[str, Any]) -> str:
    """API Reference, InstanceNetworkInterfaceAssociation: an address of Amazon's pool belongs to "amazon"."""
    for interface in answer.get("NetworkInterfaces", ()):
        if interface.get("Association", {}).get("IpOwnerId") == "amazon":
            return str(interface["Association"].get("PublicIp", ""))
    return ""


def image_of(answer: Mapping[str, Any]) -> Image:
    """One Image of DescribeImages."""
    return Image(
        id=answer["ImageId"],
        name=answer.get("Name", ""),
        ena=bool(answer.get("EnaSupport")),
        sriov=answer.get("SriovNetSupport") == "simple",
        virtualization=answer.get("VirtualizationType", "hvm"),
        root_device=answer.get("RootDeviceType", "ebs"),
    )
