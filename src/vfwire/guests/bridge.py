"""A Linux bridge with a tap for each guest: what joins virtual machines without passthrough. Gone when it is closed."""

import contextlib
import os
from pathlib import Path
from typing import Self

from pyroute2 import IPRoute, NetlinkError

from vfwire.errors import PermissionDenied, UnsupportedMachine, VfwireError

_TUN = Path("/dev/net/tun")
_NO_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE (linux/if_link.h): the host says nothing of its own on it


class Bridge:
    """`taps`: names of as many tap interfaces as asked for, on one bridge without an address or an uplink.

    Raises PermissionDenied (it takes CAP_NET_ADMIN), UnsupportedMachine (no bridge, no tun in this kernel).
    """

    def __init__(self, taps: int) -> None:
        base = f"vfw{os.getpid()}"
        self.name = f"{base}-br"
        self.taps = [f"{base}-{number}" for number in range(taps)]
        if not _TUN.exists():
            raise UnsupportedMachine(f"there is no {_TUN}", "modprobe tun, as root")
        try:
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
        except (NetlinkError, OSError) as error:
            self.close()
            raise _cause(error) from error
        except BaseException:
            self.close()
            raise

    def netdev(self, number: int) -> str:
        """The -netdev text for the guest at tap `number`."""
        return f"tap,ifname={self.taps[number]},script=no,downscript=no"

    def close(self) -> None:
        """Safe to call twice."""
        with IPRoute() as ip:
            for name in (*self.taps, self.name):
                with contextlib.suppress(NetlinkError):
                    for index in ip.link_lookup(ifname=name):
                        ip.link("del", index=index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _silent() -> dict[str, object]:
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _NO_ADDRESS)]}
    return {"IFLA_AF_SPEC": {"attrs": [("AF_INET6", mode)]}}


def _cause(error: NetlinkError | OSError) -> VfwireError:
    number = error.code if isinstance(error, NetlinkError) else error.errno
    if number in (1, 13):
        return PermissionDenied("no permission to make a bridge", "run it as root")
    return UnsupportedMachine(f"the kernel makes no bridge: {error}", "modprobe bridge, as root")
