"""The instance metadata service, version 2, as far as cloud-init's EC2 data source and cloud agents ask for it.

Paths and rules: Amazon EC2 user guide, "Use the Instance Metadata Service to access instance metadata" and
"Instance metadata categories": a token is fetched by PUT with its time to live, every GET carries it, 401 without.
What cloud-init asks for: its documentation of the EC2 data source.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from typing import Any

from vfwire.checks.image.dhcp import Subnet

ADDRESS = "169.254.169.254"
TOKEN_PATH = "/latest/api/token"
_TTL, _TOKEN = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
_LONGEST_TTL = 21_600
_VERSION = re.compile(r"latest|\d{4}-\d{2}-\d{2}")
_VERSIONS = ("1.0", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "2024-04-11", "latest")
_MOST_TOKENS = 1024

Tree = Mapping[str, Any]  # a directory; a leaf is a str


def instance_metadata(subnet: Subnet, mac: str, instance_type: str, key: str | None) -> Tree:
    """What an instance is told of itself, below /latest/. mac: of its interface, "02:…". key: OpenSSH public key."""
    interface = {
        "device-number": "0",
        "interface-id": "eni-0123456789abcdef0",
        "local-hostname": f"{subnet.hostname}.ec2.internal",
        "local-ipv4s": str(subnet.instance),
        "mac": mac,
        "owner-id": "123456789012",
        "security-groups": "default",
        "subnet-id": "subnet-0123456789abcdef0",
        "subnet-ipv4-cidr-block": str(subnet.network),
        "vpc-id": "vpc-0123456789abcdef0",
        "vpc-ipv4-cidr-block": str(IPv4Network("172.31.0.0/16")),
    }
    metadata: dict[str, Any] = {
        "ami-id": "ami-0123456789abcdef0",
        "ami-launch-index": "0",
        "hostname": f"{subnet.hostname}.ec2.internal",
        "instance-action": "none",
        "instance-id": "i-0123456789abcdef0",
        "instance-life-cycle": "on-demand",
        "instance-type": instance_type,
        "local-hostname": f"{subnet.hostname}.ec2.internal",
        "local-ipv4": str(subnet.instance),
        "mac": mac,
        "network": {"interfaces": {"macs": {mac: interface}}},
        "placement": {"availability-zone": "us-east-1a", "region": "us-east-1"},
        "reservation-id": "r-0123456789abcdef0",
        "security-groups": "default",
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if key:
        metadata["public-keys"] = {"0": {"openssh-key": key}}
    document = {
        "accountId": interface["owner-id"],
        "architecture": "x86_64",
        "availabilityZone": "us-east-1a",
        "imageId": metadata["ami-id"],
        "instanceId": metadata["instance-id"],
        "instanceType": instance_type,
        "privateIp": str(subnet.instance),
        "region": "us-east-1",
        "version": "2017-09-30",
    }
    return {
        "meta-data": metadata,
        "dynamic": {"instance-identity": {"document": json.dumps(document, indent=2)}},
    }


def look_up(tree: Tree, path: str) -> str | None:
    """The text at `path` ("meta-data/instance-id"): a leaf, or a directory's listing. None where nothing is."""
    here: Any = tree
    parts = [part for part in path.split("/") if part]
    for part in parts:
        if not isinstance(here, Mapping) or part not in here:
            return None
        here = here[part]
    if isinstance(here, str):
        return here
    if parts[-1:] == ["public-keys"]:
        return "\n".join(f"{number}=key-{number}" for number in here)
    return "\n".join(name if isinstance(child, str) else f"{name}/" for name, child in here.items())


class Tokens:
    """Session tokens and when they end."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def new(self, ttl: str | None) -> str | None:
        """A token for `ttl` seconds (text of a header), or None where that is not 1 to 21,600."""
        if ttl is None or not ttl.isascii() or not ttl.isdecimal() or not 1 <= int(ttl[:6]) <= _LONGEST_TTL:
            return None
        now = time.monotonic()
        self._ends = {token: end for token, end in self._ends.items() if end > now}
        if len(self._ends) >= _MOST_TOKENS:
            self._ends.pop(next(iter(self._ends)))
        token = secrets.token_urlsafe(40)
        self._ends[token] = now + int(ttl)
        return token

    def holds(self, token: str | None) -> bool:
        return token is not None and self._ends.get(token, 0.0) > time.monotonic()


class MetadataServer(ThreadingHTTPServer):
    """Serves `tree` at `address` port 80. `on_event` is told of every request: ("PUT" | "GET", path, status)."""

    daemon_threads = True

    def __init__(
        self, tree: Tree, on_event: Callable[[str, str, int], None], address: tuple[str, int]
    ) -> None:
        self.tree, self.on_event, self.tokens = tree, on_event, Tokens()
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer
    server_version, sys_version = "EC2ws", ""
    timeout = 10.0

    def do_PUT(self) -> None:
        ttl = self.headers.get(_TTL)
        token = self.server.tokens.new(ttl) if self.path == TOKEN_PATH else None
        if self.path != TOKEN_PATH:
            self._send(404, "")
        elif token is None:
            self._send(400, "")
        else:
            self._send(200, token, {_TTL: str(ttl)})

    def do_GET(self) -> None:
        if not self.server.tokens.holds(self.headers.get(_TOKEN)):
            self._send(401, "")
            return
        path = self.path.split("?")[0].strip("/")
        version, _, rest = path.partition("/")
        if not path:
            text: str | None = "\n".join(_VERSIONS)
        else:
            text = look_up(self.server.tree, rest) if _VERSION.fullmatch(version) else None
        self._send(404 if text is None else 200, text or "")

    def _send(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        self.server.on_event(self.command, self.path, status)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Events tell of requests; the handler's own log would go to stderr."""
