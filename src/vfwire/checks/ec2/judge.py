"""The rules: instance type x AMI x instance x what its guest says, to one verdict.

Sources: Amazon EC2 User Guide, "Enhanced networking on Amazon EC2 instances", "Enable enhanced networking with ENA on
your EC2 instances", "Enhanced networking with the Intel 82599 VF interface", "Status checks for Amazon EC2 instances";
EC2 API Reference, ModifyInstanceAttribute. A flag says that a mechanism may be used; what is used is what the guest's
interface is driven by. Both flags may be on: the type decides.
"""

from dataclasses import dataclass

from vfwire.checks.ec2.catalog import InstanceType
from vfwire.checks.ec2.facts import Guest, Image, Instance
from vfwire.checks.ec2.mechanism import DEFAULT_DRIVER, DRIVERS, Mechanism
from vfwire.checks.verdict import State, Verdict

_FLAG = {Mechanism.ENA: "the ENA flag", Mechanism.VF82599: "sriovNetSupport=simple"}
_OPTION = {Mechanism.ENA: "--ena", Mechanism.VF82599: "--sriov"}
_ENDED = ("shutting-down", "terminated")

# The rules by name, as summaries count them.
RULES = {
    "in-use": "the guest's interfaces are driven by it",
    "only-path": "the type has no other path, and AWS's status check reaches the interface",
    "permitted": "the AMI's flags allow it",
    "type-has-none": "the instance type has no enhanced networking",
    "paravirtual": "paravirtual; enhanced networking is for HVM",
    "flag-off": "the flag is off",
    "not-driven": "the flag is on, and the guest does not use it",
    "not-reached": "AWS's status check does not reach the interface",
    "not-seen": "the flag is on; what the guest uses cannot be seen",
    "not-running": "the flag is on; it does not run",
    "unknown-type": "the instance type is in no catalog",
    "gone": "there is no such instance",
}


@dataclass(frozen=True)
class Finding:
    """rule: which of RULES decided. notes: what is worth knowing besides, a sentence each."""

    rule: str
    verdict: Verdict
    mechanism: Mechanism
    notes: tuple[str, ...] = ()


def judge(
    instance: Instance,
    kind: InstanceType | None,
    image: Image | None,
    guest: Guest,
    reached: bool | None,
) -> Finding:
    """kind: None when the type is in no catalog. image: None when the AMI is gone. reached: what AWS's instance status
    check says, None when it says nothing.
    """
    if instance.state in _ENDED:
        return _found("gone", State.UNKNOWN, f"it is {instance.state}")
    if kind is None:
        reason = f"{instance.type} is in no catalog here"
        return _found("unknown-type", State.UNKNOWN, reason, "vfwire catalog --refresh asks AWS")
    mechanism = kind.mechanism
    if mechanism == Mechanism.NONE:
        reason = f"{kind.name} has no enhanced networking"
        return _found(
            "type-has-none", State.NOT, reason, "change to a type that has: vfwire catalog --mechanism ena"
        )
    notes = _notes(instance, image, mechanism)
    if instance.virtualization != "hvm":
        reason = "it is paravirtual, and enhanced networking is for HVM"
        return _found("paravirtual", State.NOT, reason, "launch anew from an HVM AMI", mechanism, notes)
    if guest.interfaces:
        return _by_guest(instance, guest, mechanism, notes)
    if not _flag(instance, mechanism):
        effect = (
            "it runs on the default path" if kind.falls_back else f"{kind.name} does not start without it"
        )
        enable = f"vfwire ec2 enable {instance.id} {_OPTION[mechanism]} --plan"
        return _found("flag-off", State.NOT, f"{_FLAG[mechanism]} is off: {effect}", enable, mechanism, notes)
    return _unseen(instance, kind, guest, reached, notes)


def _by_guest(instance: Instance, guest: Guest, mechanism: Mechanism, notes: tuple[str, ...]) -> Finding:
    """What is in use, whatever the flags say."""
    driver = DRIVERS[mechanism]
    others = [one for one in guest.interfaces if one.driver != driver]
    if not others:
        used = ", ".join(f"{one.name} on {one.driver} {one.version}".rstrip() for one in guest.interfaces)
        return _found("in-use", State.ENHANCED, used, "", mechanism, notes)
    on_default = [one for one in others if one.driver == DEFAULT_DRIVER]
    if not on_default:
        told = ", ".join(f"{one.name} on {one.driver or 'no driver'}" for one in others)
        reason = f"{told}, where {driver} was expected"
        return _found("not-seen", State.UNKNOWN, reason, "run vfwire verify in it", mechanism, notes)
    told = ", ".join(f"{one.name} on {one.driver}" for one in on_default)
    if not _flag(instance, mechanism):
        enable = f"vfwire ec2 enable {instance.id} {_OPTION[mechanism]} --plan"
        reason = f"{_FLAG[mechanism]} is off: {told}, the default path"
        return _found("flag-off", State.NOT, reason, enable, mechanism, notes)
    reason = f"{_FLAG[mechanism]} is on, but {told}, the default path"
    return _found(
        "not-driven", State.NOT, reason, f"install and load {driver} in it, then ask again", mechanism, notes
    )


def _unseen(
    instance: Instance, kind: InstanceType, guest: Guest, reached: bool | None, notes: tuple[str, ...]
) -> Finding:
    """The flag is on, and the guest has not said what it uses."""
    mechanism = kind.mechanism
    if instance.state != "running":
        reason = f"{_FLAG[mechanism]} is on; it is {instance.state}, so no driver is bound"
        return _found("not-running", State.UNKNOWN, reason, "start it, then ask again", mechanism, notes)
    if not kind.falls_back and reached:
        reason = f"{kind.name} has no other path than the ENA, and AWS's status check reaches it"
        return _found("only-path", State.ENHANCED, reason, "", mechanism, notes)
    if not kind.falls_back and reached is False:
        reason = "AWS's status check does not reach its interface: no ena driver, or a system that is down"
        look = f"aws ec2 get-console-output --latest --instance-id {instance.id}"
        return _found("not-reached", State.UNKNOWN, reason, look, mechanism, notes)
    reason = (
        f"{_FLAG[mechanism]} is on; what the guest uses cannot be seen: {guest.silent or 'it was not asked'}"
    )
    hint = "connect it to Systems Manager, or run vfwire verify in it"
    return _found("not-seen", State.UNKNOWN, reason, hint, mechanism, notes)


def judge_image(image: Image, kind: InstanceType | None) -> Finding:
    """What an AMI's flags permit, on one type (`kind`) or at all. Whether its system has the driver is not seen."""
    look = "vfwire image check tells whether the system in it has the driver"
    mechanism = kind.mechanism if kind else Mechanism.ENA
    if mechanism == Mechanism.NONE:
        return _found("type-has-none", State.NOT, f"{kind.name if kind else ''} has no enhanced networking")
    if image.virtualization != "hvm":
        reason = "it is paravirtual, and enhanced networking is for HVM"
        return _found("paravirtual", State.NOT, reason, "build it anew as HVM", mechanism)
    flags = {Mechanism.ENA: image.ena, Mechanism.VF82599: image.sriov}
    both = ("both flags are on: the type decides which is used",) if image.ena and image.sriov else ()
    if flags[mechanism]:
        where = kind.name if kind else "every type that has the ENA"
        return _found(
            "permitted", State.ENHANCED, f"{_FLAG[mechanism]} allows it on {where}", look, mechanism, both
        )
    effect = "no Nitro type starts from it" if mechanism == Mechanism.ENA else "it gets the default path"
    enable = f"vfwire ec2 enable {image.id} {_OPTION[mechanism]} --plan"
    return _found("flag-off", State.NOT, f"{_FLAG[mechanism]} is off: {effect}", enable, mechanism, both)


def gone(name: str, region: str) -> Finding:
    """No answer names it: it was never there, was terminated since, or lies elsewhere."""
    reason = f"there is no {name} in {region}"
    return _found(
        "gone", State.UNKNOWN, reason, "look at --region and --profile; it may have been terminated meanwhile"
    )


def _flag(instance: Instance, mechanism: Mechanism) -> bool:
    return instance.ena if mechanism == Mechanism.ENA else instance.sriov


def _notes(instance: Instance, image: Image | None, mechanism: Mechanism) -> tuple[str, ...]:
    notes = []
    if instance.ena and instance.sriov:
        notes.append(f"both flags are on: the type decides, and this one has the {mechanism}")
    if instance.sriov:
        notes.append("sriovNetSupport=simple cannot be undone")
    if image is None:
        notes.append(f"its AMI {instance.image_id} is gone or not yours to see")
    elif _flag(instance, mechanism) and not (image.ena if mechanism == Mechanism.ENA else image.sriov):
        notes.append(f"its AMI {image.id} has not the flag: what is launched from it anew comes up without")
    return tuple(notes)


def _found(
    rule: str,
    state: State,
    reason: str,
    next_step: str = "",
    mechanism: Mechanism = Mechanism.NONE,
    notes: tuple[str, ...] = (),
) -> Finding:
    return Finding(rule, Verdict(state, reason, next_step), mechanism, notes)
