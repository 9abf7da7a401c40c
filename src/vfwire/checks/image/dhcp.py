"""The DHCP server of an instance's subnet: one client, one address, always the same one (RFC 2131, RFC 2132).

It offers what EC2's does (Amazon VPC user guide, "DHCP option sets in Amazon VPC"; MTU 9,001: Amazon EC2 user guide,
"Network maximum transmission unit (MTU) for your EC2 instance"): address, mask, router, name server, domain, MTU.
"""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pyroute2.dhcp.dhcp4msg import dhcp4msg
from pyroute2.dhcp.enums.dhcp import MessageType

_log = logging.getLogger(__name__)

SERVER_PORT, CLIENT_PORT = 67, 68
LEASE_SECONDS = 3600
_BOOTREQUEST, _BOOTREPLY, _ETHERNET = 1, 2, 1
_SHORTEST = 240  # bytes: the fixed fields and the cookie
_REPLY_BYTES = 300  # some clients drop shorter BOOTP messages (RFC 1542 2.1)


@dataclass(frozen=True)
class Subnet:
    """The addresses of a subnet as a VPC has them: router .1, name server .2, and the instance's own."""

    network: IPv4Network
    instance: IPv4Address

    @property
    def router(self) -> IPv4Address:
        return self.network[1]

    @property
    def name_server(self) -> IPv4Address:
        return self.network[2]

    @property
    def hostname(self) -> str:
        return f"ip-{str(self.instance).replace('.', '-')}"


def answer(request: bytes, subnet: Subnet, mtu: int) -> tuple[str, bytes | None]:
    """(what was asked: "discover", "request", …, the reply or None) to one datagram from a client.

    Raises ValueError for what is no DHCP request.
    """
    message = _decode(request)
    kind = message["options"].get("message_type")
    if not isinstance(kind, MessageType):
        raise ValueError("no DHCP message type")
    name = kind.name.lower()
    if kind == MessageType.DISCOVER:
        return name, _reply(message, MessageType.OFFER, subnet, mtu)
    if kind == MessageType.INFORM:
        return name, _reply(message, MessageType.ACK, subnet, mtu)
    if kind == MessageType.REQUEST:
        wanted = message["options"].get("requested_ip") or message["ciaddr"]
        granted = wanted == str(subnet.instance)
        return name, _reply(message, MessageType.ACK if granted else MessageType.NAK, subnet, mtu)
    return name, None


def _decode(request: bytes) -> Any:
    if len(request) < _SHORTEST:
        raise ValueError(f"{len(request)} bytes are no DHCP message")
    try:
        message = dhcp4msg(buf=request).decode()
    except Exception as error:  # whatever a stranger's bytes do to the decoder
        raise ValueError(f"not a DHCP message: {error}") from error
    if message["op"] != _BOOTREQUEST or message["htype"] != _ETHERNET or message["hlen"] != 6:
        raise ValueError("not a request of an Ethernet client")
    return message


def _reply(request: Any, kind: MessageType, subnet: Subnet, mtu: int) -> bytes:
    options: dict[str, Any] = {"message_type": kind, "server_id": str(subnet.router)}
    if kind != MessageType.NAK:
        options |= {
            "lease_time": LEASE_SECONDS,
            "subnet_mask": str(subnet.network.netmask),
            "broadcast_address": str(subnet.network.broadcast_address),
            "router": [str(subnet.router)],
            "name_server": [str(subnet.name_server)],
            "domain_name": "ec2.internal",
            "host_name": subnet.hostname,
            "interface_mtu": mtu,
        }
    reply = dhcp4msg(
        {
            "op": _BOOTREPLY,
            "xid": request["xid"],
            "flags": request["flags"],
            "ciaddr": request["ciaddr"] if kind == MessageType.ACK else "0.0.0.0",
            "yiaddr": "0.0.0.0" if kind == MessageType.NAK else str(subnet.instance),
            "siaddr": "0.0.0.0",
            "giaddr": request["giaddr"],
            "chaddr": request["chaddr"],
            "options": options,
        }
    )
    return bytes(reply.encode().buf).ljust(_REPLY_BYTES, b"\0")


class DhcpServer:
    """Answers on `interface`. `on_event` is told what was asked for: "discover", "request", …"""

    def __init__(self, interface: str, subnet: Subnet, mtu: int, on_event: Callable[[str], None]) -> None:
        self._subnet, self._mtu, self._on_event = subnet, mtu, on_event
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        self.socket.bind(("0.0.0.0", SERVER_PORT))

    def serve(self) -> None:
        """Until the socket is closed."""
        while True:
            try:
                request, _ = self.socket.recvfrom(4096)
            except OSError:
                return
            try:
                kind, reply = answer(request, self._subnet, self._mtu)
            except ValueError as error:
                _log.info("DHCP: %s", error)
                continue
            self._on_event(kind)
            if reply is not None:
                # To all: the client has no address yet, or it has and listens all the same.
                self.socket.sendto(reply, ("255.255.255.255", CLIENT_PORT))

    def close(self) -> None:
        """End `serve`, which may wait in another thread."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # a datagram socket without a peer says ENOTCONN, and wakes its reader all the same
        self.socket.close()
