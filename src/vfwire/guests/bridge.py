"""A Linux bridge with a tap for each guest: what joins virtual machines without passthrough.

It lies in a network namespace of its own, which this thread and the QEMUs started from here on are in: no name of its
can clash, no filter of the host looks at its frames, and the kernel takes it away with the last of them, whatever they
die of.
"""

import os
from pathlib import Path
from typing import Self

from pyroute2 import IPRoute, NetlinkError

from vfwire.errors import PermissionDenied, UnsupportedMachine, VfwireError
from vfwire.paths.namespaces import CLONE_NEWNET, enter, unshare

_TUN = Path("/dev/net/tun")
_NAMESPACE = "/proc/thread-self/ns/net"
_NO_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE (linux/if_link.h): the host says nothing of its own on it


class Bridge:
    """`taps`: names of as many tap interfaces as asked for, on one bridge without an address or an uplink.

    Made and closed in the same thread, which sees no interface of the host's meanwhile. Raises PermissionDenied (it
    takes CAP_NET_ADMIN and CAP_SYS_ADMIN), UnsupportedMachine (no bridge, no tun in this kernel).
    """

    def __init__(self, taps: int) -> None:
        self.name = "br0"
        self.taps = [f"tap{number}" for number in range(taps)]
        if not _TUN.exists():
            raise UnsupportedMachine(f"there is no {_TUN}", "modprobe tun, as root")
        self._outside = _leave()
        try:
            self._make()
        except (NetlinkError, OSError) as error:
            self.close()
            raise _cause(error) from error
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        with IPRoute() as ip:
            ip.link("add", ifname=self.name, kind="bridge")
            (bridge,) = ip.link_lookup(ifname=self.name)
            ip.link("set", index=bridge, **_silent())
            ip.link("set", index=bridge, state="up")
            for tap in self.taps:
                ip.link("add", ifname=tap, kind="tuntap", mode="tap")
                (index,) = ip.link_lookup(ifname=tap)
                ip.link("set", index=index, master=bridge, **_silent())
                ip.link("set", index=index, state="up")

    def netdev(self, number: int) -> str:
        """The -netdev text for the guest at tap `number`."""
        return f"tap,ifname={self.taps[number]},script=no,downscript=no"

    def close(self) -> None:
        """Back to where this thread was. Safe to call twice."""
        if self._outside < 0:
            return
        enter(self._outside, CLONE_NEWNET)
        os.close(self._outside)
        self._outside = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _leave() -> int:
    """Take this thread into a new network namespace. Returns a descriptor of the one it was in."""
    outside = os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        os.close(outside)
        raise _cause(error) from error
    return outside


def _silent() -> dict[str, object]:
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _NO_ADDRESS)]}
    return {"IFLA_AF_SPEC": {"attrs": [("AF_INET6", mode)]}}


def _cause(error: NetlinkError | OSError) -> VfwireError:
    number = error.code if isinstance(error, NetlinkError) else error.errno
    if number in (1, 13):
        return PermissionDenied("no permission to make a bridge", "run it as root")
    return UnsupportedMachine(f"the kernel makes no bridge: {error}", "modprobe bridge, as root")
