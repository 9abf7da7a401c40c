"""Two network namespaces, each joined by a veth pair to one Linux bridge: made here, removed here."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

from vfwire.errors import PermissionDenied, UnsupportedMachine

PREFIX = "vfwire-bench"
ADDRESSES = ("10.231.0.1", "10.231.0.2")


@dataclass(frozen=True)
class BridgedPair:
    """Names of the two ends' namespaces, and of the one that holds the bridge (so that no host firewall sees it)."""

    ends: tuple[str, str]
    bridge: str


@contextlib.contextmanager
def bridged_pair() -> Iterator[BridgedPair]:
    """Two namespaces with ADDRESSES on `eth0`, over a bridge. Removed at the end, with what is in them.

    What an earlier run left behind when it was killed goes first. Raises PermissionDenied without the privilege,
    UnsupportedMachine where the kernel has no veth or bridge.
    """
    if os.geteuid() != 0:
        raise PermissionDenied("network namespaces need root", "run it with sudo")
    _remove_leftovers()
    first, second, middle = (f"{PREFIX}-{os.getpid()}-{part}" for part in ("a", "b", "bridge"))
    made: list[str] = []
    try:
        for name in (first, second, middle):
            netns.create(name)
            made.append(name)
        _join(middle, (first, second))
        yield BridgedPair((first, second), middle)
    except NetlinkError as error:
        raise UnsupportedMachine(f"veth and bridge cannot be set up: {error}") from error
    except OSError as error:
        raise PermissionDenied(f"network namespaces cannot be made: {error}", "run it as root") from error
    finally:
        for name in made:
            netns.remove(name)


def _join(middle: str, ends: tuple[str, str]) -> None:
    with IPRoute(netns=middle) as router:
        router.link("add", ifname="br0", kind="bridge")
        bridge = _index(router, "br0")
        router.link("set", index=bridge, state="up")
        for number, end in enumerate(ends):
            port = f"port{number}"
            router.link("add", ifname=port, kind="veth", peer={"ifname": "eth0", "net_ns_fd": end})
            router.link("set", index=_index(router, port), master=bridge, state="up")
    for end, address in zip(ends, ADDRESSES, strict=True):
        with IPRoute(netns=end) as router:
            index = _index(router, "eth0")
            router.addr("add", index=index, address=address, prefixlen=24)
            router.link("set", index=index, state="up")


def _index(router: Any, name: str) -> int:
    found = router.link_lookup(ifname=name)
    return int(found[0])


def _remove_leftovers() -> None:
    for name in netns.listnetns():
        owner = name.removeprefix(f"{PREFIX}-").split("-")[0]
        if name.startswith(f"{PREFIX}-") and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            netns.remove(name)
