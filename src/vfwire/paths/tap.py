"""A tap: a network interface of the kernel whose frames this process reads and writes. Gone when it is closed.

Made in the network namespace that it is for, so that no name clashes on the way (network_namespaces(7), tap as in
Linux Documentation/networking/tuntap.rst).
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError, netns

from vfwire.errors import PermissionDenied, ResourceBusy, UnsupportedMachine, UsageError, VfwireError
from vfwire.layouts import tap as layout

_NAMESPACES = Path("/run/netns")
_NEEDED = "it takes CAP_NET_ADMIN: run it as root, or in a user namespace of your own (unshare -Urn)"
_TSO = layout.TUN_F_TSO4 | layout.TUN_F_TSO6 | layout.TUN_F_TSO_ECN


class Tap:
    """The interface `name`, up, with `mac` and `mtu`, in the namespace `namespace` (None: this process's own).

    fd: non-blocking; one frame a read or write, behind a struct virtio_net_hdr with `checksums` or `segments`.
    checksums: the kernel leaves TCP and UDP checksums to us. segments: TCP segments of up to 64 KiB as well.
    Raises UsageError, PermissionDenied, ResourceBusy (the name is taken), UnsupportedMachine.
    """

    def __init__(
        self,
        name: str,
        mac: bytes,
        mtu: int,
        namespace: str | None = None,
        *,
        checksums: bool = False,
        segments: bool = False,
    ) -> None:
        _check_name(name)
        self.name = name
        self.namespace = namespace
        self.header_bytes = layout.VNET_BYTES if checksums or segments else 0
        self.fd = -1
        self._groups = -1
        try:
            with _inside(namespace):
                self.fd = _create(name, self.header_bytes)
                self._groups = os.open("/proc/thread-self/net/dev_mcast", os.O_RDONLY | os.O_CLOEXEC)
                if self.header_bytes:
                    offload = layout.TUN_F_CSUM | (_TSO if segments else 0)
                    fcntl.ioctl(self.fd, layout.TUNSETOFFLOAD, offload)
            self.set_carrier(False)
            self._set(address=mac.hex(":"), mtu=mtu, state="up")
        except BaseException:
            self.close()
            raise

    def set_carrier(self, up: bool) -> None:
        """What `ip link` shows as LOWER_UP or NO-CARRIER."""
        fcntl.ioctl(self.fd, layout.TUNSETCARRIER, struct.pack("i", int(up)))

    def set_mac(self, mac: bytes) -> None:
        self._set(address=mac.hex(":"))

    def groups(self) -> list[bytes]:
        """Multicast MAC addresses that the interface listens to now."""
        rows = (line.split() for line in _read_all(self._groups).splitlines())
        return sorted({bytes.fromhex(row[4]) for row in rows if len(row) == 5 and row[1] == self.name})

    def _set(self, **changes: Any) -> None:
        try:
            with _inside(self.namespace), IPRoute() as ip:  # IPRoute(netns=…) would fork this process
                (index,) = ip.link_lookup(ifname=self.name)
                ip.link("set", index=index, **changes)
        except NetlinkError as error:
            raise _cause(self.name, error.code) from error
        except ValueError as error:
            raise VfwireError(
                f"the interface {self.name} has gone", "leave it alone while it is attached"
            ) from error

    def close(self) -> None:
        """The interface goes with its descriptor. Safe to call twice."""
        for attribute in ("fd", "_groups"):
            fd = getattr(self, attribute)
            setattr(self, attribute, -1)
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> "Tap":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_name(name: str) -> None:
    bad = not name or len(os.fsencode(name)) >= layout.IFNAMSIZ or name in (".", "..")
    if bad or any(letter in "/:%" or letter.isspace() for letter in name):
        raise UsageError(f"{name[:40]!r} is no name for an interface", "1 to 15 letters, digits, - and _")


def _read_all(fd: int) -> str:
    """A file of /proc from its start; what it shows is that of the namespace in which it was opened."""
    os.lseek(fd, 0, os.SEEK_SET)
    return b"".join(iter(lambda: os.read(fd, 1 << 16), b"")).decode(errors="replace")


@contextlib.contextmanager
def _inside(namespace: str | None) -> Iterator[None]:
    """This thread is in the network namespace while this holds."""
    if namespace is None:
        yield
        return
    if "/" in namespace or not (_NAMESPACES / namespace).is_file():
        raise UsageError(f"there is no network namespace {namespace!r}", "ip netns add makes one")
    try:
        netns.pushns(namespace)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PermissionDenied(f"cannot enter the network namespace {namespace}", _NEEDED) from error
        raise UsageError(f"{_NAMESPACES / namespace} is no network namespace: {error.strerror}") from error
    try:
        yield
    finally:
        netns.popns()


def _create(name: str, header_bytes: int) -> int:
    try:
        fd = os.open(layout.TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _cause(name, error.errno) from error
    flags = (
        layout.IFF_TAP | layout.IFF_NO_PI | layout.IFF_TUN_EXCL | (layout.IFF_VNET_HDR if header_bytes else 0)
    )
    try:
        fcntl.ioctl(fd, layout.TUNSETIFF, struct.pack("16sH22x", os.fsencode(name), flags))
    except OSError as error:
        os.close(fd)
        raise _cause(name, error.errno) from error
    return fd


def _cause(name: str, number: int | None) -> VfwireError:
    if number in (errno.EPERM, errno.EACCES):
        return PermissionDenied(f"no permission to make the tap {name}", _NEEDED)
    if number in (errno.EBUSY, errno.EEXIST):
        return ResourceBusy(f"an interface {name} exists already", "choose another name, or ip link del it")
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return UnsupportedMachine("this kernel has no taps", "modprobe tun")
    return VfwireError(f"the tap {name} cannot be set up: {os.strerror(number or 0)}")
