"""Names of PCI devices, from the list that the system has (pci.ids(5), of hwdata or pciutils); "" where it has none."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

_LISTS = tuple(
    Path(path) for path in ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids")
)


@cache
def device_name(vendor: int, device: int) -> str:
    """Vendor and device as `lspci` names them. Reads the list as far as the device; it is sorted by vendor."""
    for path in _LISTS:
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                return _find(lines, f"{vendor:04x}", f"{device:04x}")
        except OSError:
            continue
    return ""


def _find(lines: Iterable[str], vendor: str, device: str) -> str:
    """A vendor's line starts with its ID, its devices' lines follow with a tab before theirs."""
    vendor_name = ""
    for line in lines:
        if not vendor_name:
            if line.startswith(f"{vendor}  "):
                vendor_name = line[6:].strip()
        elif line.startswith(f"\t{device}  "):
            return f"{vendor_name} {line[7:].strip()}"
        elif not line.startswith(("\t", "#")):
            break
    return vendor_name
