"""EC2's rules for enhanced networking, each named with AWS's source, put over moto's own handlers.

moto 5.2.5 accepts `EnaSupport` on a running instance, stores it nowhere and empties the security groups; ignores
`SriovNetSupport`; shows neither flag of an image, rejects the filters, and drops both when an image is registered.
"Guide" is the Amazon EC2 User Guide, "API" the Amazon EC2 API Reference. test_endpoint_rules.py has a test for each.
"""

import weakref
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.instances import InstanceResponse

from tests.ec2_endpoint import guests

_LOOKS_UNTIL_SETTLED = 1  # how many DescribeInstances or DescribeImages see a state in between
_MOST_NAMED_STATUSES = 100
_launched: "weakref.WeakValueDictionary[str, Any]" = weakref.WeakValueDictionary()
_real: dict[str, Callable[..., Any]] = {}


def install() -> None:
    """Once a process: every handler below takes the place of moto's."""
    if _real:
        return
    for owner, name, ours in (
        (Instance, "__init__", launch),
        (InstanceBackend, "get_instance", get_instance),
        (InstanceResponse, "run_instances", run_instances),
        (InstanceResponse, "modify_instance_attribute", modify_instance_attribute),
        (InstanceResponse, "describe_instances", describe_instances),
        (InstanceResponse, "describe_instance_status", describe_instance_status),
        (InstanceResponse, "stop_instances", stop_instances),
        (InstanceResponse, "start_instances", start_instances),
        (AmisResponse, "register_image", register_image),
        (AmisResponse, "create_image", create_image),
        (AmisResponse, "describe_images", describe_images),
    ):
        _real[name] = getattr(owner, name)
        setattr(owner, name, ours)
    Instance.instance_status = property(_status)  # type: ignore[assignment]
    real_filter = Ami.get_filter_value
    flags = {"ena-support": "ena_support", "sriov-net-support": "sriov_net_support"}

    def get_filter_value(self: Any, filter_name: str, method_name: str | None = None) -> Any:
        """API, DescribeImages: the filters ena-support and sriov-net-support."""
        if filter_name not in flags:
            return real_filter(self, filter_name, method_name)
        value = getattr(self, flags[filter_name], None)
        return str(value).lower() if isinstance(value, bool) else value

    Ami.get_filter_value = get_filter_value  # type: ignore[method-assign]


def ena_support(type_name: str) -> str:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    support: str = INSTANCE_TYPES[type_name]["NetworkInfo"]["EnaSupport"]
    return support


def launch(self: Any, backend: Any, image_id: str, *rest: Any, **named: Any) -> None:
    """Guide, "Enable enhanced networking with ENA": an instance takes its flags from its AMI."""
    _real["__init__"](self, backend, image_id, *rest, **named)
    ami = backend.amis.get(image_id)
    self.ena_support = bool(getattr(ami, "ena_support", False))
    self.sriov_net_support = getattr(ami, "sriov_net_support", None)
    self.root_device_type = getattr(ami, "root_device_type", "ebs")
    self.looks = 0
    _launched[self.id] = self
    guests.boot(self)


def get_instance(self: Any, instance_id: str) -> Any:
    """No rule: moto copies every reservation to find one instance, and thousands would take minutes to launch."""
    found = _launched.get(instance_id)
    return _real["get_instance"](self, instance_id) if found is None else found


def _wants_ena(type_name: str, flag: bool) -> None:
    """Guide, "Requirements for Nitro-based instances": the AMI must have the ENA flag, or there is no launch and no
    start.
    """
    if ena_support(type_name) == "required" and not flag:
        raise EC2ClientError(
            "InvalidParameterCombination",
            "Enhanced networking with the Elastic Network Adapter (ENA) is required for the "
            f"'{type_name}' instance type. Ensure that you are using an AMI that is enabled for ENA.",
        )


def run_instances(self: Any) -> ActionResult:
    ami = self.ec2_backend.amis.get(self._get_param("ImageId"))
    _wants_ena(self._get_param("InstanceType", "m1.small"), bool(getattr(ami, "ena_support", False)))
    return _real["run_instances"](self)


def modify_instance_attribute(self: Any) -> ActionResult:
    """API, ModifyInstanceAttribute: EnaSupport and SriovNetSupport; the instance must be stopped (Guide, "Modify a
    stopped instance"); "simple" is the only value, and there is no way to take it back. Nothing else changes.
    """
    ena, sriov = self._get_param("EnaSupport.Value"), self._get_param("SriovNetSupport.Value")
    if ena is None and sriov is None:
        return _real["modify_instance_attribute"](self)
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    if instance.state != "stopped":
        raise EC2ClientError(
            "IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'stopped' state."
        )
    if ena is not None:
        instance.ena_support = ena is True or str(ena).lower() == "true"
    elif sriov != "simple":
        raise EC2ClientError(
            "InvalidParameterValue", f"Value ({sriov}) for parameter sriovNetSupport is invalid."
        )
    else:
        instance.sriov_net_support = "simple"
    return EmptyResult()


def stop_instances(self: Any) -> ActionResult:
    """Guide, "Stop and start Amazon EC2 instances": only an instance with an EBS root can be stopped. It is "stopping"
    for a while.
    """
    instances = [self.ec2_backend.get_instance(name) for name in self._get_param("InstanceIds", [])]
    for instance in instances:
        if instance.root_device_type != "ebs":
            raise EC2ClientError(
                "UnsupportedOperation",
                f"The instance '{instance.id}' does not have an 'ebs' root device type and cannot be stopped.",
            )
    answer = _real["stop_instances"](self)
    for instance in instances:
        instance.looks, instance.settles = _LOOKS_UNTIL_SETTLED, ("stopped", 80)
        instance._state.name, instance._state.code = "stopping", 64
    return answer


def start_instances(self: Any) -> ActionResult:
    instances = [self.ec2_backend.get_instance(name) for name in self._get_param("InstanceIds", [])]
    for instance in instances:
        _wants_ena(instance.instance_type, instance.ena_support)
        if instance.state not in ("stopped", "running", "pending"):
            raise EC2ClientError(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in a state from which it can be started.",
            )
    waiting = [instance for instance in instances if instance.state == "stopped"]
    answer = _real["start_instances"](self)
    for instance in waiting:
        instance.looks, instance.settles = _LOOKS_UNTIL_SETTLED, ("running", 16)
        instance._state.name, instance._state.code = "pending", 0
        guests.boot(instance)
    return answer


def describe_instances(self: Any) -> ActionResult:
    answer = _real["describe_instances"](self)
    for reservation in answer.result["Reservations"]:
        for instance in reservation.instances:
            if instance.looks:
                instance.looks -= 1
            elif hasattr(instance, "settles"):
                instance._state.name, instance._state.code = instance.settles
                del instance.settles
    return answer


def _status(self: Any) -> dict[str, Any]:
    """Guide, "Status checks for Amazon EC2 instances": the check asks the interface by ARP."""
    if self.state_code != 16:
        return {"Status": "not-applicable"}
    reached = guests.guest_of(self).reachable
    details = [{"Name": "reachability", "Status": "passed" if reached else "failed"}]
    return {"Details": details, "Status": "ok" if reached else "impaired"}


def describe_instance_status(self: Any) -> ActionResult:
    """API, DescribeInstanceStatus: at most 100 instances by name."""
    if len(self._get_param("InstanceIds", [])) > _MOST_NAMED_STATUSES:
        raise EC2ClientError("InvalidParameterValue", "Too many instance IDs: at most 100.")
    return _real["describe_instance_status"](self)


def _take_name(backend: AmiBackend, name: str) -> None:
    """API, CreateImage and RegisterImage: a name is unique in an account and region."""
    if any(ami.name == name for ami in backend.amis.values()):
        raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use.")


def register_image(self: Any) -> ActionResult:
    """API, RegisterImage: EnaSupport and SriovNetSupport are kept; VirtualizationType is paravirtual unless told."""
    _take_name(self.ec2_backend, self._get_param("Name"))
    answer = _real["register_image"](self)
    ami = self.ec2_backend.amis[answer.result["ImageId"]]
    ami.ena_support = str(self._get_param("EnaSupport", False)).lower() == "true"
    ami.sriov_net_support = self._get_param("SriovNetSupport")
    ami.virtualization_type = self._get_param("VirtualizationType", "paravirtual")
    ami.architecture = self._get_param("Architecture", "i386")
    ami.root_device_name = self._get_param("RootDeviceName", "/dev/sda1")
    ami.boot_mode = self._get_param("BootMode")
    location = self._get_param("ImageLocation")
    ami.image_location = location or f"{ami.owner_id}/{ami.name}"
    ami.root_device_type = "instance-store" if location else "ebs"
    for mapping in self._get_param("BlockDeviceMappings", []):
        if mapping.get("DeviceName") == ami.root_device_name and "SnapshotId" in mapping.get("Ebs", {}):
            ami.ebs_snapshot = self.ec2_backend.snapshots[mapping["Ebs"]["SnapshotId"]]
    return answer


def create_image(self: Any) -> ActionResult:
    """API, CreateImage: the image has its instance's flags, and is pending for a while."""
    _take_name(self.ec2_backend, self._get_param("Name"))
    answer = _real["create_image"](self)
    ami = self.ec2_backend.amis[answer.result["ImageId"]]
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    ami.ena_support, ami.sriov_net_support = instance.ena_support, instance.sriov_net_support
    ami.root_device_type = instance.root_device_type
    ami.state, ami.looks = "pending", _LOOKS_UNTIL_SETTLED
    return answer


def describe_images(self: Any) -> ActionResult:
    answer = _real["describe_images"](self)
    for ami in answer.result["Images"]:
        if getattr(ami, "looks", 0):
            ami.looks -= 1
        elif ami.state == "pending":
            ami.state = "available"
    return answer
