"""What to do where enhanced networking is off, by mechanism and by where the system runs."""

from vfwire.checks.environment import Environment
from vfwire.checks.mechanisms import Mechanism
from vfwire.checks.modules import ModuleState, module_state
from vfwire.checks.tree import Tree

_GIVE_A_VF = (
    "give this guest a VF of the host's card by PCI passthrough, or one of vfwire card's by vfio-user"
)
_BY_MECHANISM = {
    "veth": "run it in the network namespace of the physical interface, on the host (vfwire verify there)",
    "tap": "use the VF itself in place of the tap: its driver in this kernel, or a poll-mode driver in the program",
    "netvsc": "turn on accelerated networking (Azure) or SR-IOV (Hyper-V) for this NIC, so that a VF joins it",
    "vmxnet3": "give the virtual machine an SR-IOV passthrough adapter",
    "loopback": "name an interface that leads out of this system: vfwire verify without a name shows those",
}


def next_step(tree: Tree, environment: Environment, mechanism: Mechanism) -> str:
    """One sentence; "" where nothing can be said."""
    if environment.ec2 and mechanism.name in ("vif", "emulated"):
        return _on_ec2(tree)
    if mechanism.name in _BY_MECHANISM:
        return _BY_MECHANISM[mechanism.name]
    if mechanism.name in ("vif", "virtio", "emulated"):
        return _GIVE_A_VF
    if mechanism.name == "other":
        return "name the interface that carries this system's traffic"
    return "vfwire verify the interface that carries it"


def _on_ec2(tree: Tree) -> str:
    """An EC2 guest on its Xen vif: its type, its instance's attribute, or its kernel lacks something."""
    missing = [name for name in ("ena", "ixgbevf") if module_state(tree, name) is ModuleState.MISSING]
    if missing:
        return f"this kernel has no {' and no '.join(missing)}: install that first, then vfwire ec2 check INSTANCE"
    return "vfwire ec2 check INSTANCE tells whether its type can, and vfwire ec2 enable INSTANCE turns it on"
