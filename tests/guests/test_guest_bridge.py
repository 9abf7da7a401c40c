"""The bridge between two guests: there for whoever made it and for nobody else, and gone with its maker."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from pyroute2 import IPRoute

from vfwire.errors import PermissionDenied
from vfwire.guests.bridge import Bridge

_MAKER = """
import subprocess, sys
from vfwire.guests.bridge import Bridge
bridge = Bridge(2)
child = subprocess.Popen(["sleep", "60"])
print(child.pid, *bridge.taps, flush=True)
sys.stdin.read()
"""


def names() -> set[str]:
    with IPRoute() as ip:
        return {link.get_attr("IFLA_IFNAME") for link in ip.get_links()}


def namespace_of(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def test_taps_on_a_bridge_which_the_host_does_not_see() -> None:
    before, outside = names(), namespace_of("thread-self")
    with Bridge(3) as bridge:
        assert names() == {"lo", bridge.name, *bridge.taps} and len(bridge.taps) == 3
        with IPRoute() as ip:
            (index,) = ip.link_lookup(ifname=bridge.name)
            links = {link.get_attr("IFLA_IFNAME"): link for link in ip.get_links()}
            assert all(links[tap].get_attr("IFLA_MASTER") == index for tap in bridge.taps)
            assert not ip.get_addr()
    assert (names(), namespace_of("thread-self")) == (before, outside)
    bridge.close()
    assert namespace_of("thread-self") == outside


def test_a_killed_maker_leaves_nothing() -> None:
    before = names()
    with subprocess.Popen(
        [sys.executable, "-c", _MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        child, *taps = maker.stdout.readline().split()
        assert len(taps) == 2 and names() == before
        assert namespace_of(maker.pid) == namespace_of(child) != namespace_of("self")
        watched = os.pidfd_open(int(child))
        maker.kill()
        os.kill(int(child), signal.SIGKILL)
        assert select.select([watched], [], [], 10)[0]
        os.close(watched)
    assert names() == before


def test_without_the_right_to_make_one() -> None:
    """As an ordinary user gets it from the kernel: in a process that has given its rights up."""
    code = """
import os
from vfwire.errors import PermissionDenied
from vfwire.guests.bridge import Bridge
os.setgid(65534); os.setuid(65534)
try:
    Bridge(2)
except PermissionDenied as error:
    print(error)
print(len(os.listdir("/proc/self/fd")))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    message, descriptors = done.stdout.splitlines()
    assert message == str(PermissionDenied("no permission to make a bridge", "run it as root")), done.stderr
    assert int(descriptors) <= 4  # standard ones, and the directory that was read
