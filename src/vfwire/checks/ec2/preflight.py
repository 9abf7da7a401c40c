"""What a guest must have before its network is changed under it: the driver in every kernel it may boot, its names.

The script only reads, and prints one fact a line. Sources: Amazon EC2 User Guide, "Enable enhanced networking with ENA
on your EC2 instances" (install the driver first; remove 70-persistent-net.rules; net.ifnames=0, since the interface's
name changes with its device).
"""

from dataclasses import dataclass, field

from vfwire.checks.ec2.mechanism import DRIVERS, Mechanism

SCRIPT = """cd /
PATH=$PATH:/usr/sbin:/sbin
for image in boot/vmlinuz-*; do
    kernel=${image#boot/vmlinuz-}
    [ -d "lib/modules/$kernel" ] || continue
    echo "kernel: $kernel"
    for name in ena ixgbevf; do
        if find "lib/modules/$kernel/" -name "$name.ko*" | grep -q . ||
            grep -q "/$name\\.ko" "lib/modules/$kernel/modules.builtin" 2>/dev/null; then
            echo "driver: $name"
        fi
    done
    for initramfs in "boot/initrd.img-$kernel" "boot/initramfs-$kernel.img"; do
        [ -e "$initramfs" ] || continue
        listed=$(lsinitramfs "$initramfs" 2>/dev/null || lsinitrd "$initramfs" 2>/dev/null)
        [ -n "$listed" ] || continue
        echo "initramfs: read"
        for name in ena ixgbevf; do
            echo "$listed" | grep -q "/$name\\.ko" && echo "initramfs: $name"
        done
    done
done
echo "cmdline: $(cat proc/cmdline)"
grep -l 'NAME=' etc/udev/rules.d/70-persistent-net.rules 2>/dev/null | sed 's/^/pins: /'
grep -lE '^[[:space:]]*iface[[:space:]]+eth[0-9]' etc/network/interfaces etc/network/interfaces.d/* 2>/dev/null |
    sed 's/^/names: /'
ls etc/sysconfig/network-scripts/ifcfg-eth* 2>/dev/null | sed 's/^/names: /'
grep -lE '^Name=eth[0-9]' etc/systemd/network/*.network 2>/dev/null | sed 's/^/names: /'
echo "end: of facts"
"""


@dataclass
class Kernel:
    """A kernel that the guest may boot. initramfs: drivers in it, None when nobody could read it."""

    name: str
    drivers: set[str] = field(default_factory=set)
    initramfs: set[str] | None = None


@dataclass
class Inside:
    """pins: a udev file that names interfaces. names: configuration of an interface by a name that will change.
    whole: the script came to its end.
    """

    kernels: list[Kernel] = field(default_factory=list)
    command_line: str = ""
    pins: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    whole: bool = False


def parse(text: str) -> Inside:
    """What SCRIPT printed. A guest may print anything: other lines are passed over."""
    inside = Inside()
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        value = "".join(letter for letter in value if letter.isprintable())[:1000].strip()
        if not colon:
            continue
        if key == "kernel":
            inside.kernels.append(Kernel(value))
        elif key == "driver" and inside.kernels:
            inside.kernels[-1].drivers.add(value)
        elif key == "initramfs" and inside.kernels:
            held = inside.kernels[-1]
            held.initramfs = (held.initramfs or set()) | ({value} - {"read"})
        elif key == "cmdline":
            inside.command_line = value
        elif key in ("pins", "names"):
            getattr(inside, key).append(value)
        elif key == "end":
            inside.whole = True
    return inside


def obstacles(inside: Inside, mechanism: Mechanism) -> list[str]:
    """What would lock the user out, a sentence each with its remedy. None: it will come up."""
    driver = DRIVERS[mechanism]
    if not inside.whole or not inside.kernels:
        return ["its kernels could not be seen: look at /boot and /lib/modules, then say --driver-checked"]
    found = [
        f"kernel {kernel.name} has no {driver}: install it there, or remove that kernel"
        for kernel in inside.kernels
        if driver not in kernel.drivers
    ]
    words = inside.command_line.split()
    if "root=/dev/nfs" in words or "rd.neednet=1" in words:
        found += [
            f"it boots over the network, and the initramfs of {kernel.name} has no {driver}: build it anew with it"
            for kernel in inside.kernels
            if driver not in (kernel.initramfs or set())
        ]
    found += [f"/{path} gives interfaces fixed names: remove it" for path in inside.pins]
    if "net.ifnames=0" not in words:
        found += [
            f"/{path} configures an eth name, and the interface will have another: add net.ifnames=0 to the kernel's "
            "command line"
            for path in inside.names
        ]
    return found


def remarks(inside: Inside, mechanism: Mechanism) -> list[str]:
    """What is worth knowing and stops nothing."""
    driver = DRIVERS[mechanism]
    return [
        f"the initramfs of {kernel.name} "
        + ("could not be read" if kernel.initramfs is None else f"has no {driver}")
        + f": {driver} is loaded from the root file system, which is enough for a root disk"
        for kernel in inside.kernels
        if driver in kernel.drivers and driver not in (kernel.initramfs or set())
    ]
