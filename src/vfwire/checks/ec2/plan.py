"""What turning it on takes for one instance: the steps, what is lost on the way, what forbids it.

Sources: Amazon EC2 User Guide, "Enable enhanced networking with ENA on your EC2 instances", "Stop and start Amazon EC2
instances" (what a stop takes away; who cannot be stopped); EC2 API Reference, ModifyInstanceAttribute.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from vfwire.checks.ec2 import ask, guests, preflight
from vfwire.checks.ec2.aws import Aws, told
from vfwire.checks.ec2.catalog import Catalog, InstanceType
from vfwire.checks.ec2.facts import Instance
from vfwire.checks.ec2.live import ask_some
from vfwire.checks.ec2.mechanism import Mechanism
from vfwire.errors import CannotTell, UsageError

BACKUP, STOP, MODIFY, START, VERIFY = "backup", "stop", "modify", "start", "verify"


@dataclass(frozen=True)
class Plan:
    """steps: in order. loses: what a stop takes away. refused: why it is not to be done, a sentence each.
    unseen: why the guest could not be asked, "" when it was. already: the flag is on.
    """

    instance: str
    type: str
    region: str
    mechanism: str
    run: str
    was_running: bool
    can_roll_back: bool
    already: bool
    steps: tuple[str, ...]
    loses: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    unseen: str = ""
    remarks: tuple[str, ...] = field(default=())

    @property
    def backup_name(self) -> str:
        return f"vfwire-backup-{self.instance}-{self.run}"

    @property
    def option(self) -> str:
        return "--ena" if self.mechanism == Mechanism.ENA else "--sriov"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Plan":
        """Raises TypeError for what no plan was."""
        listed: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in held.items()
        }
        return cls(**listed)


def one_instance(aws: Aws, name: str) -> Instance:
    """Raises CannotTell when it is not there, or not any more."""
    for page in ask.instances(aws, [name]):
        for one in page:
            if one.state not in ("shutting-down", "terminated"):
                return one
    raise CannotTell(
        f"there is no {name} in {aws.region}", "look at --region and --profile, or it was terminated"
    )


def make(
    aws: Aws, catalog: Catalog, name: str, wanted: Mechanism | None, run: str, driver_checked: bool
) -> Plan:
    """Look at everything, change nothing. wanted: None takes the type's own. Raises UsageError, CannotTell."""
    one = one_instance(aws, name)
    kind = catalog.types.get(one.type) or next(iter(ask_some(aws, [one.type])), None)
    if kind is None:
        raise CannotTell(f"{one.type} is in no catalog", "vfwire catalog --refresh asks AWS")
    mechanism = wanted or kind.mechanism
    if kind.mechanism != Mechanism.NONE and mechanism != kind.mechanism:
        raise UsageError(f"{kind.name} has the {kind.mechanism}, not the {mechanism}", "leave the option out")
    refused, unseen, remarks = _forbidden(aws, one, kind), "", []
    if not refused and not driver_checked:
        inside, unseen = _look_inside(aws, one)
        if inside:
            refused += preflight.obstacles(inside, mechanism)
            remarks += preflight.remarks(inside, mechanism)
    running = one.state in ("running", "pending")
    steps = (BACKUP, STOP, MODIFY, START, VERIFY) if running else (BACKUP, MODIFY)
    return Plan(
        instance=one.id,
        type=kind.name,
        region=aws.region,
        mechanism=mechanism,
        run=run,
        was_running=running,
        can_roll_back=mechanism == Mechanism.ENA and kind.falls_back,
        already=one.ena if mechanism == Mechanism.ENA else one.sriov,
        steps=steps,
        loses=_lost(one, kind) if running else (),
        refused=tuple(refused),
        unseen=unseen,
        remarks=tuple(remarks),
    )


def _forbidden(aws: Aws, one: Instance, kind: InstanceType) -> list[str]:
    found = []
    if kind.mechanism == Mechanism.NONE:
        found.append(f"{kind.name} has no enhanced networking: change the type first")
    if one.virtualization != "hvm":
        found.append("it is paravirtual, and would not be reachable: launch anew from an HVM AMI")
    if one.root_device != "ebs":
        found.append(
            f"it has an instance-store root and cannot be stopped: register a new AMI instead, "
            f"vfwire ec2 enable {one.image_id} --plan"
        )
    if one.group:
        found.append(
            f"Auto Scaling group {one.group} would replace it when it stops: put it on standby, or give the group's "
            "launch template an AMI with the flag"
        )
    if one.spot:
        found.append("it is a Spot Instance: launch anew from an AMI with the flag")
    with told():
        held = aws.ec2.describe_instance_attribute(InstanceId=one.id, Attribute="disableApiStop")
    if held.get("DisableApiStop", {}).get("Value"):
        found.append("stop protection is on (disableApiStop): take it off first")
    return found


def _lost(one: Instance, kind: InstanceType) -> tuple[str, ...]:
    lost = ["its network for some minutes, while it is stopped and started"]
    if kind.instance_storage:
        lost.append("everything on its instance store volumes")
    if one.passing_ip:
        lost.append(f"its public address {one.passing_ip}, which is no Elastic IP: it gets another")
    return tuple(lost)


def _look_inside(aws: Aws, one: Instance) -> tuple[preflight.Inside | None, str]:
    """What the guest has; or None, and why it was not asked."""
    if one.state != "running":
        return None, f"it is {one.state}"
    if one.windows:
        return None, "it runs Windows, and the questions are for Linux"
    try:
        answer = guests.run_one(aws, one.id, preflight.SCRIPT)
    except CannotTell as error:
        return None, error.message
    return preflight.parse(answer), ""
