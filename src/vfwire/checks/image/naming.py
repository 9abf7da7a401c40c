"""Which name the first network interface will have, and whether anything asks for a DHCP lease on it.

systemd.link(5), systemd.network(5), netplan(5), interfaces(5), NetworkManager's keyfile, and Red Hat's ifcfg files.
"""

import configparser
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from vfwire.checks.image.filesystem import FileSystem

# EC2 hands out slot 5 first (PCI slot names, firmware without slots), and the emulation here is another machine.
PREDICTABLE = ("ens5", "enp0s5", "enp1s0")
CLASSIC = ("eth0",)
_UDEV_RULES = ("/usr/lib/udev/rules.d", "/lib/udev/rules.d")
_PERSISTENT = "/etc/udev/rules.d/70-persistent-net.rules"
_KERNEL_ASKS = ("dhcp", "on", "any", "both")
_DHCP_ON = ("yes", "true", "ipv4", "both", "on", "1")


@dataclass(frozen=True)
class Lease:
    """Something that asks for a lease. by: the program. names: patterns for an interface's name; () for any."""

    by: str
    names: tuple[str, ...]
    source: str

    def fits(self, name: str) -> bool:
        return not self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)


def interface_names(root: FileSystem, kernel_lines: list[str]) -> tuple[str, ...]:
    """What the first interface may be called. eth0 with net.ifnames=0, or where udev's naming is missing or masked."""
    if any("net.ifnames=0" in line.split() for line in kernel_lines):
        return CLASSIC
    rules = any(root.exists(f"{where}/80-net-setup-link.rules") for where in _UDEV_RULES)
    masked = any(
        root.link(path) == "/dev/null"
        for path in ("/etc/udev/rules.d/80-net-setup-link.rules", "/etc/systemd/network/99-default.link")
    )
    return PREDICTABLE if rules and not masked else CLASSIC


def pinned_addresses(root: FileSystem) -> bool:
    """A udev rule that gives a name to one MAC address: an instance has another one."""
    lines = root.text(_PERSISTENT).splitlines()
    return any("ATTR{address}" in line and not line.lstrip().startswith("#") for line in lines)


def leases(root: FileSystem) -> list[Lease]:
    """Everything that asks for a lease when the image starts, as its configuration says."""
    return [*_networkd(root), *_netplan(root), *_ifupdown(root), *_network_manager(root), *_ifcfg(root)]


def asked_by_kernel(lines: Iterable[str]) -> list[Lease]:
    """`ip=` on a command line: <how>, or seven fields of which the sixth is the interface and the seventh how
    (Linux Documentation/admin-guide/nfs/nfsroot.rst; dracut.cmdline(7) has <interface>:<how> besides).
    """
    found = []
    for word in (word for line in lines for word in line.split() if word.startswith("ip=")):
        fields = word.removeprefix("ip=").split(":")
        how = fields[6] if len(fields) > 6 else fields[-1]
        device = fields[5] if len(fields) > 6 else fields[0] if len(fields) == 2 else ""
        if how in _KERNEL_ASKS:
            found.append(Lease("the kernel's command line", (device,) if device else (), word))
    return found


def cloud_init(root: FileSystem) -> str:
    """ "configures the network", "leaves the network alone", or "" where it is not installed or turned off."""
    if not any(root.exists(path) for path in ("/usr/bin/cloud-init", "/usr/local/bin/cloud-init")):
        return ""
    if root.exists("/etc/cloud/cloud-init.disabled"):
        return ""
    files = [
        "/etc/cloud/cloud.cfg",
        *(f"/etc/cloud/cloud.cfg.d/{name}" for name in root.names("/etc/cloud/cloud.cfg.d")),
    ]
    pattern = re.compile(
        r"^network:\s*(\{\s*config:\s*disabled\s*\}|\n\s+config:\s*disabled\s*$)", re.MULTILINE
    )
    off = any(path.endswith(".cfg") and pattern.search(root.text(path)) for path in files)
    return "leaves the network alone" if off else "configures the network"


def _networkd(root: FileSystem) -> list[Lease]:
    if not _enabled(root, "systemd-networkd.service"):
        return []
    found = []
    for where in ("/etc/systemd/network", "/usr/lib/systemd/network"):
        for name in root.names(where):
            if name.endswith(".network"):
                sections = _ini(root.text(f"{where}/{name}"))
                asks = sections.get("network", {}).get("dhcp", "no").lower() in _DHCP_ON
                match = sections.get("match", {})
                if asks and match and not match.keys() & {"macaddress", "path", "virtualization", "kind"}:
                    found.append(
                        Lease("systemd-networkd", tuple(match.get("name", "").split()), f"{where}/{name}")
                    )
    return found


def _enabled(root: FileSystem, unit: str) -> bool:
    """A link in some target's .wants, as systemctl enable makes it."""
    where = "/etc/systemd/system"
    wants = [name for name in root.names(where) if name.endswith((".wants", ".requires"))]
    return any(unit in root.names(f"{where}/{name}") for name in wants)


def _ini(text: str) -> dict[str, dict[str, str]]:
    """Sections and keys in lower case; {} where it is no such file."""
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {name.lower(): dict(parser.items(name)) for name in parser.sections()}


def _netplan(root: FileSystem) -> list[Lease]:
    """Interfaces of an `ethernets:` block with dhcp4; a match by name or driver, or none but its own name."""
    found = []
    for name in root.names("/etc/netplan"):
        text = root.text(f"/etc/netplan/{name}") if name.endswith((".yaml", ".yml")) else ""
        for block in re.split(r"^(?=\s{2,8}[\w*-]+:\s*$)", text, flags=re.MULTILINE):
            if re.search(r"^\s*dhcp4:\s*(true|yes|on)\b", block, re.MULTILINE) and "macaddress:" not in block:
                pattern = re.search(r"^\s*name:\s*[\"']?([^\s\"']+)", block, re.MULTILINE)
                own = re.match(r"\s*([\w*-]+):", block)
                by_match = "match:" in block
                names = (
                    (pattern[1],) if pattern and by_match else () if by_match else (own[1],) if own else ()
                )
                found.append(Lease("netplan", names, f"/etc/netplan/{name}"))
    return found


def _ifupdown(root: FileSystem) -> list[Lease]:
    where = "/etc/network"
    files = [
        f"{where}/interfaces",
        *(f"{where}/interfaces.d/{name}" for name in root.names(f"{where}/interfaces.d")),
    ]
    found = []
    for path in files:
        text = root.text(path)
        started = set(re.findall(r"^\s*(?:auto|allow-hotplug)\s+(.+)$", text, re.MULTILINE))
        names = {name for line in started for name in line.split()}
        for name in re.findall(r"^\s*iface\s+(\S+)\s+inet\s+dhcp\b", text, re.MULTILINE):
            if name in names or any(name == started.split("=")[-1] for started in names):
                found.append(Lease("ifupdown", (name.replace("/", ""),), path))
    return found


def _network_manager(root: FileSystem) -> list[Lease]:
    """Without a profile it asks on every interface, unless told not to (no-auto-default)."""
    if not _enabled(root, "NetworkManager.service"):
        return []
    where = "/etc/NetworkManager/system-connections"
    found = []
    for name in root.names(where):
        sections = _ini(root.text(f"{where}/{name}"))
        if sections.get("ipv4", {}).get("method", "auto") == "auto":
            of = sections.get("connection", {}).get("interface-name", "")
            found.append(Lease("NetworkManager", (of,) if of else (), f"{where}/{name}"))
    told = root.text("/etc/NetworkManager/NetworkManager.conf")
    if not re.search(r"^\s*no-auto-default\s*=\s*\*", told, re.MULTILINE):
        found.append(Lease("NetworkManager", (), "its default"))
    return found


def _ifcfg(root: FileSystem) -> list[Lease]:
    where = "/etc/sysconfig/network-scripts"
    found = []
    for name in root.names(where):
        if not name.startswith("ifcfg-") or name == "ifcfg-lo":
            continue
        pairs = (line.partition("=") for line in root.text(f"{where}/{name}").splitlines())
        keys = {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
        if (
            keys.get("BOOTPROTO", "").lower() == "dhcp"
            and keys.get("ONBOOT", "yes").lower() != "no"
            and not keys.get("HWADDR")
        ):
            of = keys.get("DEVICE", "")
            found.append(Lease("network-scripts", (of,) if of else (), f"{where}/{name}"))
    return found
