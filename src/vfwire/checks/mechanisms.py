"""Which mechanism an interface is: by PCI identity first, then by the bus below it, then by what kind of link it is."""

from typing import NamedTuple

from vfwire.checks.pci_functions import PciFunction
from vfwire.checks.verdict import State
from vfwire.layouts import network_ids as ids


class Mechanism(NamedTuple):
    """name: for programs. title: for people. state: what the mechanism alone says of enhanced networking.
    module: the Linux module that drives it, "" if there is no one module. why: the reason, half a sentence.
    """

    name: str
    title: str
    state: State
    module: str
    why: str


_DIRECT = "its driver works on the card's own rings, with no hypervisor on the data path"
_PV = "a paravirtual interface: each packet passes through the hypervisor or its host"

ENA = Mechanism("ena", "Elastic Network Adapter", State.ENHANCED, "ena", _DIRECT)
VF_82599 = Mechanism("82599-vf", "Intel 82599 VF", State.ENHANCED, "ixgbevf", _DIRECT)
OTHER_VF = Mechanism("sriov-vf", "SR-IOV VF", State.ENHANCED, "", _DIRECT)
PHYSICAL = Mechanism("physical", "physical function", State.ENHANCED, "", "the system drives the card itself")
IMITATED = Mechanism(
    "emulated", "emulated card", State.NOT, "", "a card that the hypervisor imitates in software"
)
VMXNET3 = Mechanism("vmxnet3", "VMware vmxnet3", State.NOT, "vmxnet3", _PV)
NETVSC = Mechanism("netvsc", "Hyper-V netvsc", State.NOT, "hv_netvsc", _PV)
OTHER_DEVICE = Mechanism("other", "another device", State.UNKNOWN, "", "no network card that is known here")

# The bus of an interface that stands on no PCI function of its own.
_BY_BUS = {
    "xen": Mechanism("vif", "Xen PV vif", State.NOT, "xen-netfront", _PV),
    "virtio": Mechanism("virtio", "virtio", State.NOT, "virtio_net", _PV),
    "vmbus": NETVSC,
}
_SOFTWARE = "it exists in software only, and carries what another interface sends"
_TAP = Mechanism("tap", "tap", State.NOT, "", "a program of this system handles each of its packets")
# IFLA_INFO_KIND of an interface without a device, as `ip -d link` shows it.
_BY_KIND = {
    "tun": _TAP,
    "veth": Mechanism("veth", "veth", State.UNKNOWN, "", "one end of a pair: what is behind the other end decides"),
    "bridge": Mechanism("bridge", "bridge", State.UNKNOWN, "", _SOFTWARE),
}  # fmt: skip
_LOOPBACK = Mechanism("loopback", "loopback", State.UNKNOWN, "", "its packets never leave this system")

_VF_MODELS = {
    (model.vendor, device): OTHER_VF._replace(title=model.title, module=model.module)
    for model in ids.OTHER_VFS
    for device in model.devices
}
_VF_MODELS |= {(ids.INTEL, device): VF_82599 for device in ids.VF_82599}
_VF_MODELS |= {(ids.AMAZON, device): ENA for device in ids.ENA}


def mechanism_of_function(function: PciFunction, virtual_machine: bool) -> Mechanism:
    """What a PCI network function is. virtual_machine: this system runs under a hypervisor."""
    known = _VF_MODELS.get(function.ids)
    if known is not None:
        return known
    if function.physfn is not None:
        return OTHER_VF
    if function.ids == ids.VMXNET3:
        return VMXNET3
    if function.vendor == ids.REDHAT:
        return _BY_BUS["virtio"]
    if function.subsystem_vendor in ids.IMITATORS or (virtual_machine and function.ids in ids.IMITATED):
        return IMITATED
    return PHYSICAL


def mechanism_of_link(
    bus: str, kind: str, is_loopback: bool, function: PciFunction | None, virtual_machine: bool
) -> Mechanism:
    """bus: of the device below the interface, "" if there is none. kind: IFLA_INFO_KIND, "" if there is none."""
    if bus in _BY_BUS:
        return _BY_BUS[bus]
    if function is not None and bus == "pci":
        return mechanism_of_function(function, virtual_machine)
    if bus:
        return OTHER_DEVICE._replace(title=f"{bus} device")
    if is_loopback:
        return _LOOPBACK
    return _BY_KIND.get(kind) or Mechanism(kind or "virtual", kind or "virtual", State.UNKNOWN, "", _SOFTWARE)
