"""DEVICE_SET_IRQS, checked and handed to the endpoint (linux/vfio.h struct vfio_irq_set)."""

import errno
import fcntl
import os
from pathlib import Path

from vfwire.bus.vfio_user.wire import Message
from vfwire.errors import ProtocolError
from vfwire.layouts import vfio_user as layout
from vfwire.pci.endpoint import Endpoint, IrqIndex

_EVENTFD = "anon_inode:[eventfd]"


def set_irqs(endpoint: Endpoint, message: Message) -> None:
    """Do what the message asks. Descriptors are taken out of the message when the endpoint gets them.

    Raises ProtocolError: EINVAL for what is malformed, ENOTTY for masking (no kind says that it is
    maskable, and the kernel's vfio-pci answers so for MSI-X).
    """
    if len(message.payload) < layout.IRQ_SET.size:
        raise ProtocolError("interrupt request is too short")
    argsz, flags, index, start, count = layout.IRQ_SET.unpack_from(message.payload)
    data, action = flags & layout.DATA_MASK, flags & layout.ACTIONS
    if argsz < layout.IRQ_SET.size or flags & ~(layout.DATA_MASK | layout.ACTIONS):
        raise ProtocolError("interrupt request has a bad argsz or unknown flags")
    if data.bit_count() != 1 or action.bit_count() != 1:
        raise ProtocolError("interrupt request must have one kind of data and one action")
    if index >= len(IrqIndex):
        raise ProtocolError("no such kind of interrupt")
    if message.fds and data != layout.DATA_EVENTFD:
        raise ProtocolError("descriptors with an interrupt request that takes none")
    if count == 0:
        _disable(endpoint, index, start, data, action)
        return
    if start + count > endpoint.irq_counts[index]:
        raise ProtocolError("interrupt range is beyond what there is")
    if data == layout.DATA_BOOL and len(message.payload) != layout.IRQ_SET.size + count:
        raise ProtocolError("interrupt request has not one byte for each vector")
    if action != layout.ACTION_TRIGGER:
        raise ProtocolError("interrupts are masked in the MSI-X table only", errno=errno.ENOTTY)
    if data == layout.DATA_EVENTFD:
        _connect(endpoint, message, index, start, count)
    elif data == layout.DATA_BOOL:
        marks = message.payload[layout.IRQ_SET.size :]
        endpoint.trigger_irqs(index, start, [mark != 0 for mark in marks])
    else:
        endpoint.trigger_irqs(index, start, [True] * count)


def _disable(endpoint: Endpoint, index: int, start: int, data: int, action: int) -> None:
    if start != 0 or data != layout.DATA_NONE or action != layout.ACTION_TRIGGER:
        raise ProtocolError("an interrupt request for none can only disable them all")
    endpoint.disable_irqs(index)


def _connect(endpoint: Endpoint, message: Message, index: int, start: int, count: int) -> None:
    """One eventfd for each vector, or none at all, which takes them away."""
    if not message.fds:
        endpoint.set_irqs(index, start, [-1] * count)
        return
    if len(message.fds) != count:
        raise ProtocolError("interrupt request has not one descriptor for each vector")
    for fd in message.fds:
        check_eventfd(fd)
    endpoint.set_irqs(index, start, message.take_fds())


def check_eventfd(fd: int) -> None:
    """Make sure that writing to a guest's descriptor is a short matter: an eventfd, set not to block.

    A pipe that nobody reads, or an eventfd at its maximum, would hold whoever signals it. (The flag is
    shared with the guest, which can take it off again: who signals from a loop that others depend on has to
    outlive that.) Raises ProtocolError (EINVAL).
    """
    try:
        if str(Path(f"/proc/self/fd/{fd}").readlink()) != _EVENTFD:
            raise ProtocolError("interrupt descriptor is not an eventfd")
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    except OSError as error:
        raise ProtocolError(f"interrupt descriptor cannot be used: {error.strerror}") from error
