"""What this system runs on, as far as it is told: a hypervisor or none, and which cloud."""

from dataclasses import dataclass

from vfwire.checks.tree import Tree


@dataclass(frozen=True)
class Environment:
    """virtual_machine: a hypervisor lies below. vendor: SMBIOS system vendor, "" if unknown. ec2: on Amazon EC2."""

    virtual_machine: bool
    vendor: str
    ec2: bool


def read_environment(tree: Tree) -> Environment:
    """From /proc/cpuinfo (x86), /sys/hypervisor (Xen) and SMBIOS; an EC2 Xen guest's UUID starts with "ec2"."""
    vendor = tree.text("sys/class/dmi/id/sys_vendor") or ""
    xen = tree.text("sys/hypervisor/type") == "xen"
    flags = next((line for line in _cpuinfo(tree) if line.startswith("flags")), "").split()
    metal = (tree.text("sys/class/dmi/id/product_name") or "").endswith(".metal")
    uuid = (tree.text("sys/hypervisor/uuid") or "").lower()
    ec2 = vendor == "Amazon EC2" or uuid.startswith("ec2")
    return Environment(
        virtual_machine=xen or "hypervisor" in flags or (ec2 and not metal), vendor=vendor, ec2=ec2
    )


def _cpuinfo(tree: Tree) -> list[str]:
    return tree.bytes("proc/cpuinfo", 1 << 14).decode(errors="replace").splitlines()  # the first CPU will do
