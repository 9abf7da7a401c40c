"""A boot loader on a VF, with its own driver: iPXE takes a lease, fetches a kernel and hands the device over to it."""

import functools
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.guests.guest_kit import READY_SECONDS, card, guest_image
from tests.guests.stock_kit import COMMAND_SECONDS
from tests.waiting import wait_until
from vfwire.checks.image.dhcp import Subnet
from vfwire.checks.image.network import InstanceNetwork
from vfwire.guests.cache import cache_directory
from vfwire.guests.guest import Guest
from vfwire.guests.image import QUICK_BOOT
from vfwire.guests.machine import Machine
from vfwire.guests.packages import Archive, unpack
from vfwire.paths.process import Family

pytestmark = [pytest.mark.guests, pytest.mark.timeout(300)]

SUBNET = Subnet(IPv4Network("172.31.16.0/20"), IPv4Address("172.31.17.5"))
PORT = 8000
SCRIPT = f"""#!ipxe
dhcp net0
ifstat net0
kernel http://${{net0/gateway}}:{PORT}/kernel initrd=initrd console=ttyS0 {QUICK_BOOT} \
vfwire.address=eth0:{SUBNET.instance}/20
initrd http://${{net0/gateway}}:{PORT}/initrd
imgstat
ifstat net0
boot
"""
SERIAL = ("-machine", "graphics=off")  # SeaBIOS shows on the serial port what it would draw


def said(guest: Guest) -> str:
    """Its console, without what moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", guest.console)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class BootServer(InstanceNetwork):
    """The instance's network, where files are to be had, too."""

    def do_serve(self, directory: str) -> None:
        handler = functools.partial(Quiet, directory=directory)
        server = ThreadingHTTPServer((str(SUBNET.router), PORT), handler)
        self._end += [server.shutdown, server.server_close]
        threading.Thread(target=server.serve_forever, daemon=True).start()


def ipxe() -> Path:
    """Debian's iPXE, as a kernel that a BIOS starts."""
    root = cache_directory("packages", "ipxe")
    fetched = {package.name: path for package, path in Archive().fetch(["ipxe"]).items()}
    unpack([fetched["ipxe"]], root)
    return root / "usr/lib/ipxe/ipxe.lkrn"


def loading(script: Path, function: Path) -> Machine:
    """A machine that starts iPXE with a script. Its disk is empty, and there since a machine starts from something."""
    empty = script.with_name("empty.img")
    empty.write_bytes(bytes(1 << 20))
    start = ("-kernel", str(ipxe()), "-initrd", str(script))  # no -append: iPXE takes its words for commands
    return Machine("loader", disk=empty, functions=(function,), memory_mib=512, extra=(*SERIAL, *start))


@pytest.mark.parametrize(
    ("model", "loader", "driver"), [("ena", "ena-vf", "ena"), ("82599", "82599-vf", "ixgbevf")]
)
def test_a_kernel_comes_over_the_function_that_it_then_drives(
    model: str, loader: str, driver: str, tmp_path: Path
) -> None:
    image, served = guest_image("iputils-ping"), tmp_path / "served"
    served.mkdir()
    (served / "kernel").symlink_to(image.kernel)
    (served / "initrd").symlink_to(image.initrd)
    script = tmp_path / "script.ipxe"
    script.write_text(SCRIPT)
    with Family() as family:
        network = family.fork("network", lambda: BootServer(SUBNET, "02:00:00:00:00:07", "m5.large", None))
        with card(tmp_path / "c", "--vfs", "2", "--model", model, "--guests") as made:
            family.call(network, "open", path=str(made.sockets[1]), mtu=1500)
            family.call(network, "serve", directory=str(served))
            with Guest(loading(script, made.sockets[0])) as guest:
                wait_until(lambda: f"using {loader}" in said(guest), "iPXE's driver", COMMAND_SECONDS)
                guest.wait_ready(READY_SECONDS)
                assert f"driver: {driver}" in guest.check("ethtool -i eth0")
                assert " 0% packet loss" in guest.check(f"ping -c 20 -i 0.05 {SUBNET.router}")
            events = family.call(network, "events", start=0)["events"]
            assert [event["what"] for event in events if event["kind"] == "dhcp"][-1] == "request"
        family.close()
