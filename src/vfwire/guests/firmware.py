"""UEFI for guests: OVMF in one piece, as Debian's package ovmf has it, or as other distributions do."""

from pathlib import Path

from vfwire.errors import UnsupportedMachine
from vfwire.guests.qemu import GET_ONE, Qemu

_PLACES = ("usr/share/ovmf/OVMF.fd", "usr/share/edk2/ovmf/OVMF.fd", "usr/share/qemu/OVMF.fd")


def find_uefi(qemu: Qemu) -> Path:
    """A firmware image for -bios: beside a fetched QEMU, or the system's. Raises UnsupportedMachine."""
    roots = (qemu.path.resolve().parent / "root", Path("/"))
    for root in roots:
        for place in _PLACES:
            if (root / place).is_file():
                return root / place
    raise UnsupportedMachine("there is no OVMF, UEFI for guests", f"install Debian's ovmf, or {GET_ONE}")
