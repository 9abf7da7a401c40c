"""An AMI with the flag. An AMI's flags cannot be modified, so there are two ways: register its snapshots anew with the
flag, or change an instance of it and make an image of that.

Sources: EC2 API Reference, RegisterImage and ModifyImageAttribute; Amazon EC2 User Guide, "Create an AMI from a
snapshot": a registration loses the billing codes of Windows, Red Hat, SUSE and the Marketplace, so for those only the
second way is left.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vfwire.checks.ec2.aws import Aws, told
from vfwire.checks.ec2.mechanism import Mechanism
from vfwire.errors import CannotTell

_CARRIED = ("Architecture", "RootDeviceName", "Description", "BootMode", "TpmSupport", "ImdsSupport")


@dataclass(frozen=True)
class ImagePlan:
    """refused: why it is not registered anew. instead: the way by an instance. made: an AMI of that name, if any."""

    image: str
    region: str
    mechanism: str
    name: str
    already: bool
    refused: tuple[str, ...]
    instead: str
    made: str
    request: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def make(aws: Aws, name: str, mechanism: Mechanism) -> ImagePlan:
    """Look, change nothing. Raises CannotTell when there is no such AMI."""
    found = _described(aws, "image-id", name)
    if found is None:
        raise CannotTell(f"there is no {name} in {aws.region}", "look at --region and --profile")
    option = "--ena" if mechanism == Mechanism.ENA else "--sriov"
    new_name = f"{found.get('Name', name)[:100]} with {mechanism}"
    made = _described(aws, "name", new_name)
    flag = found.get("EnaSupport") if mechanism == Mechanism.ENA else found.get("SriovNetSupport") == "simple"
    return ImagePlan(
        image=name,
        region=aws.region,
        mechanism=mechanism,
        name=new_name,
        already=bool(flag),
        refused=tuple(_forbidden(found)),
        instead=f"launch an instance of {name}, vfwire ec2 enable it with {option}, then aws ec2 create-image",
        made=made["ImageId"] if made else "",
        request=_request(found, new_name, mechanism),
    )


def _described(aws: Aws, field: str, value: str) -> Mapping[str, Any] | None:
    with told():
        answer = aws.ec2.describe_images(Filters=[{"Name": field, "Values": [value]}])
    return answer["Images"][0] if answer["Images"] else None


def _forbidden(found: Mapping[str, Any]) -> list[str]:
    refused = []
    if found.get("VirtualizationType", "hvm") != "hvm":
        refused.append("it is paravirtual, and enhanced networking is for HVM")
    if found.get("ProductCodes"):
        refused.append("it has product codes, which a new registration loses")
    if found.get("PlatformDetails", "Linux/UNIX") != "Linux/UNIX":
        refused.append(f"it is billed as {found['PlatformDetails']}, which a new registration loses")
    if found.get("State") != "available":
        refused.append(f"it is {found.get('State')}")
    return refused


def _request(found: Mapping[str, Any], name: str, mechanism: Mechanism) -> dict[str, Any]:
    """RegisterImage's parameters: what the AMI has, and the flag."""
    request: dict[str, Any] = {key: found[key] for key in _CARRIED if found.get(key)}
    if found.get("RootDeviceType") == "instance-store":
        request["ImageLocation"] = found.get("ImageLocation", "")
    else:
        request["BlockDeviceMappings"] = [_mapping(one) for one in found.get("BlockDeviceMappings", ())]
    return {
        **request,
        "Name": name,
        "VirtualizationType": "hvm",  # RegisterImage takes it as paravirtual when it is left out
        "EnaSupport": bool(found.get("EnaSupport")) or mechanism == Mechanism.ENA,
        **(
            {"SriovNetSupport": "simple"}
            if found.get("SriovNetSupport") == "simple" or mechanism == Mechanism.VF82599
            else {}
        ),
    }


def _mapping(one: Mapping[str, Any]) -> dict[str, Any]:
    """RegisterImage wants no Encrypted beside a snapshot: the snapshot decides."""
    held = dict(one)
    if "SnapshotId" in one.get("Ebs", {}):
        held["Ebs"] = {
            key: value for key, value in one["Ebs"].items() if key not in ("Encrypted", "KmsKeyId")
        }
    return held


def carry_out(aws: Aws, plan: ImagePlan) -> str:
    """The new AMI's ID: one that has the name already, or a new one. Raises CannotTell when the flag is not on it."""
    made = plan.made
    if not made:
        with told():
            made = aws.ec2.register_image(**plan.request)["ImageId"]
    found = _described(aws, "image-id", made) or {}
    flag = (
        found.get("EnaSupport")
        if plan.mechanism == Mechanism.ENA
        else found.get("SriovNetSupport") == "simple"
    )
    if not flag:
        raise CannotTell(f"{made} was registered, and has not the flag", f"deregister it; {plan.instead}")
    return made
