"""Why a guest does not start, in one line with the next step."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import psutil

from vfwire.errors import PeerGone, ResourceBusy, UnsupportedMachine, VfwireError
from vfwire.guests.machine import Machine

_REFUSAL_SECONDS = 0.5  # a card closes the connection of a second client at once


def check_before(machine: Machine) -> None:
    """Raises PeerGone for a function that nobody serves, UnsupportedMachine where the guest's memory cannot be had."""
    for path in machine.functions:
        if not _is_socket(path):
            raise PeerGone(f"no card serves {path}", "start one with vfwire card")
    free = psutil.virtual_memory().available >> 20
    if free < machine.memory_mib:
        raise UnsupportedMachine(
            f"{machine.name} wants {machine.memory_mib} MiB of shared memory, {free} MiB are free",
            "give it less with --memory, or end something",
        )
    try:
        os.close(os.memfd_create("vfwire-probe"))
    except OSError as error:
        raise UnsupportedMachine(
            f"there is no shared memory for guests: {error.strerror}", "allow memfd_create in this sandbox"
        ) from error


def explain_start(machine: Machine, error: PeerGone) -> VfwireError:
    """What QEMU's failure to start comes from: looked at afterwards, so that the look itself is in nobody's way."""
    for path in machine.functions:
        state = _look_at(path)
        if state == "used":
            return ResourceBusy(f"{path} is in use by another guest", "end that one, or take another VF")
        if state == "dead":
            return PeerGone(f"no card serves {path}", "start one with vfwire card")
    return error


def _is_socket(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(path.stat().st_mode)
    return False


def _look_at(path: Path) -> str:
    """ "free", "used" or "dead"."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_REFUSAL_SECONDS)
        try:
            probe.connect(os.fspath(path))
            return "used" if probe.recv(1) == b"" else "free"
        except TimeoutError:
            return "free"
        except ConnectionResetError:
            return "used"
        except OSError:
            return "dead"
