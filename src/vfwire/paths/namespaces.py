"""unshare(2) and setns(2), which Python has from 3.12 on: namespaces of one's own, without a name."""

import ctypes
import os

CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000  # Linux include/uapi/linux/sched.h


def unshare(flags: int) -> None:
    """Move this thread (with CLONE_NEWUSER: this process, which must have one) into new namespaces. Raises OSError."""
    _call("unshare", flags)


def enter(namespace: int, kind: int) -> None:
    """Move this thread into the namespace that a descriptor stands for. Raises OSError."""
    _call("setns", namespace, kind)


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
