"""What an instance finds behind its network interface: a router, DHCP, the metadata service. A process of its own.

It lives in a user and network namespace that it makes, so it needs no root and no name of its can clash. A function
of a card is put on a tap there; the namespace's own kernel then answers ARP and ICMP, and the servers are ordinary
sockets.
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpkt import icmp
from pyroute2 import IPRoute

from vfwire.checks.image.dhcp import DhcpServer, Subnet
from vfwire.checks.image.metadata import ADDRESS, MetadataServer, instance_metadata
from vfwire.errors import PermissionDenied, UnsupportedMachine
from vfwire.paths.attach import Attachment, open_vf
from vfwire.paths.namespaces import CLONE_NEWNET, CLONE_NEWUSER, unshare

TAP = "vpc0"
_MOST_EVENTS = 10_000


def enter_namespaces() -> None:
    """Move this process, which must have one thread, into a user and a network namespace of its own, as root there.

    Raises PermissionDenied where the kernel does not let an ordinary user do that.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSPC):
            raise PermissionDenied(
                "this kernel lets nobody but root make a network namespace",
                "run it as root, or sysctl -w kernel.unprivileged_userns_clone=1",
            ) from error
        raise UnsupportedMachine(f"no user namespace can be made: {error.strerror}") from error
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)


class InstanceNetwork:
    """The role of the process (see paths/process.py)."""

    busy = True

    def __init__(self, subnet: Subnet, mac: str, instance_type: str, key: str | None) -> None:
        enter_namespaces()
        self._subnet, self._mac, self._type, self._key = subnet, mac, instance_type, key
        self._events: list[dict[str, Any]] = []
        self._end: list[Callable[[], None]] = []
        self._failure = ""

    def do_open(self, path: str, mtu: int) -> None:
        """Put the VF behind the socket `path` on a tap, and serve there."""
        nic, pool = open_vf(Path(path), mtu)
        attachment = Attachment(nic, TAP)
        _set_addresses(self._subnet)
        runner = threading.Thread(target=self._run, args=(attachment,), name="tap")
        self._end += [attachment.stop, runner.join, attachment.close, nic.close, pool.close]
        dhcp = DhcpServer(TAP, self._subnet, mtu, lambda kind: self._note("dhcp", kind))
        tree = instance_metadata(self._subnet, self._mac, self._type, self._key)
        metadata = MetadataServer(tree, self._note_request, (ADDRESS, 80))
        self._end += [dhcp.close, metadata.shutdown, metadata.server_close]
        runner.start()
        for serve in (dhcp.serve, metadata.serve_forever):
            threading.Thread(target=serve, daemon=True).start()

    def _run(self, attachment: Attachment) -> None:
        try:
            attachment.run()
        except Exception as error:
            self._failure = str(error)

    def _note(self, kind: str, what: str, **more: Any) -> None:
        if len(self._events) < _MOST_EVENTS:  # a guest may ask as often as it likes
            self._events.append({"kind": kind, "what": what, "at": time.monotonic(), **more})

    def _note_request(self, method: str, path: str, status: int) -> None:
        self._note("metadata", f"{method} {path[:200]}", status=status)

    def do_events(self, start: int) -> dict[str, Any]:
        """What happened since event number `start`, in order: {"kind": "dhcp" | "metadata", "what", "at"}."""
        return {"events": self._events[start:], "failure": self._failure}

    def do_ping(self, seconds: float) -> bool:
        """One ICMP echo request to the instance (RFC 792): does an answer come back within `seconds`?"""
        return ping(str(self._subnet.instance), seconds)

    def close(self) -> None:
        for end in self._end:
            end()


def _set_addresses(subnet: Subnet) -> None:
    with IPRoute() as ip:
        (loopback,) = ip.link_lookup(ifname="lo")
        (index,) = ip.link_lookup(ifname=TAP)
        ip.link("set", index=loopback, state="up")
        for address in (subnet.router, subnet.name_server):
            ip.addr("add", index=index, address=str(address), prefixlen=subnet.network.prefixlen)
        ip.addr("add", index=index, address=ADDRESS, prefixlen=32)


def ping(address: str, seconds: float) -> bool:
    """Send one ICMP echo request and wait for its answer. Needs CAP_NET_RAW."""
    identifier = os.getpid() & 0xFFFF
    request = icmp.ICMP(type=icmp.ICMP_ECHO, data=icmp.ICMP.Echo(id=identifier, seq=1, data=b"vfwire"))
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        try:
            raw.sendto(bytes(request), (address, 0))
            while (left := deadline - time.monotonic()) > 0:
                raw.settimeout(left)
                packet, (source, _) = raw.recvfrom(2048)
                header = (packet[0] & 15) * 4
                answer = packet[header : header + 8]
                if source == address and answer[:1] == b"\0" and answer[4:6] == identifier.to_bytes(2, "big"):
                    return True
        except OSError:  # nobody has that address yet, or nobody answered in time
            return False
    return False
