"""What runs the guest's instructions: KVM where it works, software emulation (TCG) elsewhere.

That /dev/kvm opens does not say that it works: inside some virtual machines it gives up in the middle of a guest
("internal error"). Then the guest is started again under TCG, and that is remembered until this machine boots again.
"""

import os
from pathlib import Path

from vfwire.guests.cache import cache_directory

KVM, TCG = "kvm", "tcg"
OPTIONS = {KVM: "kvm", TCG: "tcg,thread=multi"}
CHOICES = ("auto", KVM, TCG)
_DEVICE = Path("/dev/kvm")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def candidates(choice: str) -> list[str]:
    """What to try, in this order."""
    if choice != "auto":
        return [choice]
    return [KVM, TCG] if os.access(_DEVICE, os.R_OK | os.W_OK) and not _has_failed() else [TCG]


def note_failure() -> None:
    """KVM gave up on a guest: do not try it again before the next boot."""
    _note().write_text(_BOOT.read_text())


def _has_failed() -> bool:
    note = _note()
    return note.exists() and note.read_text() == _BOOT.read_text()


def _note() -> Path:
    return cache_directory() / "kvm-gave-up"
