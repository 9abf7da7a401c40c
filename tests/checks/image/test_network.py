"""The instance's network over a real card: a tap on the other function stands for the guest."""

import json
import subprocess
import sys
import textwrap
import time
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pyroute2 import NetNS

from tests.paths.real_kit import attached, two_hosts
from vfwire.checks.image.dhcp import Subnet
from vfwire.checks.image.network import InstanceNetwork
from vfwire.paths.process import Child, Family

SUBNET = Subnet(IPv4Network("172.31.16.0/20"), IPv4Address("172.31.17.5"))
CLIENT = textwrap.dedent("""
    import json, socket, struct, urllib.request
    discover = struct.pack(">BBBBIHH", 1, 1, 6, 0, 77, 0, 0x8000) + bytes(16) + bytes.fromhex("020000000007")
    discover += bytes(10 + 64 + 128) + bytes.fromhex("63825363350101ff")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"vf0")
        client.bind(("0.0.0.0", 68))
        client.settimeout(20)
        client.sendto(discover, ("255.255.255.255", 67))
        offer = client.recv(2048)
    put = urllib.request.Request("http://169.254.169.254/latest/api/token", method="PUT",
                                 headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    token = urllib.request.urlopen(put, timeout=20).read().decode()
    get = urllib.request.Request("http://169.254.169.254/latest/meta-data/instance-type",
                                 headers={"X-aws-ec2-metadata-token": token})
    print(json.dumps([socket.inet_ntoa(offer[16:20]), urllib.request.urlopen(get, timeout=20).read().decode()]))
""")


def inside(namespace: str, code: str) -> Any:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_ping(family: Family, network: Child) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if family.call(network, "ping", seconds=1.0):
            return True
    return False


def test_a_guest_gets_a_lease_its_metadata_and_answers_a_ping(netns_pair: tuple[str, str]) -> None:
    namespace = netns_pair[0]
    with Family() as family:
        network = family.fork(
            "instance network", lambda: InstanceNetwork(SUBNET, "02:00:00:00:00:07", "c5.large", None)
        )
        with two_hosts(host_function=False) as (_, sockets):
            family.call(network, "open", path=str(sockets[0]), mtu=1500)
            assert not family.call(network, "ping", seconds=0.1)  # nobody has the address yet
            with attached(sockets[1], namespace):
                with NetNS(namespace) as ip:
                    (index,) = ip.link_lookup(ifname="vf0")
                    ip.addr("add", index=index, address=str(SUBNET.instance), prefixlen=20)
                    ip.route("add", dst="default", gateway=str(SUBNET.router))
                assert inside(namespace, CLIENT) == [str(SUBNET.instance), "c5.large"]
                assert wait_ping(family, network)
            seen = family.call(network, "events", start=0)
            assert [(event["kind"], event["what"]) for event in seen["events"]] == [
                ("dhcp", "discover"),
                ("metadata", "PUT /latest/api/token"),
                ("metadata", "GET /latest/meta-data/instance-type"),
            ]
            assert seen["failure"] == ""
            family.close()
