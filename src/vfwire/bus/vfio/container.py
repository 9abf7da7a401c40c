"""The kernel's IOMMU for one function: a VFIO container with the function's group in it, and DMA maps.

Source: Linux Documentation/driver-api/vfio.rst (the order of calls), `layouts/vfio.py` (requests and structures).
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from vfwire.bus.info_capabilities import pairs
from vfwire.errors import PermissionDenied, ResourceBusy, UnsupportedMachine, VfwireError
from vfwire.layouts import vfio
from vfwire.memory.shared import PAGE, SharedMemory

DEVICES = Path("/dev/vfio")
_INFO_BYTES = 4096  # of an IOMMU's info with its capabilities; a few hundred are used
_LOWEST = 1 << 20  # where addresses are handed out: not the zero page, nor what a PC keeps below 1 MiB


def request(fd: int, number: int, argument: bytearray | int = 0) -> int:
    """One ioctl, again after a signal. Raises OSError."""
    while True:
        try:
            return fcntl.ioctl(fd, number, argument)
        except InterruptedError:
            continue


class Container:
    """A container that holds one group, with a type 1 (version 2) IOMMU.

    Raises PermissionDenied, ResourceBusy (another process has the group), UnsupportedMachine.
    """

    def __init__(self, group: int, devices: Path = DEVICES) -> None:
        self._container = self._group = -1
        self._ranges: list[tuple[int, int]] = []
        self._mapped: dict[int, int] = {}
        try:
            self._container = _open(devices / "vfio")
            if request(self._container, vfio.GET_API_VERSION) != vfio.API_VERSION:
                raise UnsupportedMachine("this kernel speaks another version of VFIO")
            if not request(self._container, vfio.CHECK_EXTENSION, vfio.TYPE1V2_IOMMU):
                raise UnsupportedMachine(
                    "VFIO has no type 1 IOMMU here", "modprobe vfio_iommu_type1, as root"
                )
            self._group = _open(devices / str(group))
            self._attach(group)
            self._ranges = self._read_ranges()
        except BaseException:
            self.close()
            raise

    def _attach(self, group: int) -> None:
        status = bytearray(vfio.GROUP_STATUS.pack(vfio.GROUP_STATUS.size, 0))
        request(self._group, vfio.GROUP_GET_STATUS, status)
        _, flags = vfio.GROUP_STATUS.unpack(status)
        if not flags & vfio.GROUP_FLAGS_VIABLE:
            raise ResourceBusy(
                f"IOMMU group {group} is not viable: a kernel driver has another function of it",
                "bind all functions of the group to vfio-pci",
            )
        try:
            request(self._group, vfio.GROUP_SET_CONTAINER, bytearray(self._container.to_bytes(4, "little")))
            request(self._container, vfio.SET_IOMMU, vfio.TYPE1V2_IOMMU)
        except OSError as error:
            raise UnsupportedMachine(
                f"the IOMMU does not take group {group}: {error.strerror}",
                "see dmesg: without interrupt remapping VFIO wants allow_unsafe_interrupts=1",
            ) from error

    def device(self, address: str) -> int:
        """A new descriptor of the function at `address`, which the caller closes."""
        try:
            return request(self._group, vfio.GROUP_GET_DEVICE_FD, bytearray(address.encode() + b"\0"))
        except OSError as error:
            raise VfwireError(
                f"VFIO does not open {address}: {error.strerror}", "see what dmesg says"
            ) from error

    def address_for(self, memory: SharedMemory) -> int:
        """The memory's own address where the IOMMU has it, else the lowest free one of its ranges."""
        if self._fits(memory.address, memory.size):
            return memory.address
        taken = sorted(self._mapped.items())
        for first, last in self._ranges:
            at = max(first, _LOWEST)
            for start, size in taken:
                if start < at + memory.size and at < start + size:
                    at = start + size
            at = -(-at // PAGE) * PAGE
            if at + memory.size - 1 <= last:
                return at
        raise VfwireError("the IOMMU has no room for this memory", "take a smaller pool")

    def _fits(self, start: int, size: int) -> bool:
        return any(first <= start and start + size - 1 <= last for first, last in self._ranges)

    def map(self, memory: SharedMemory, iova: int) -> None:
        """Let the device reach all of `memory` at I/O address `iova`; its pages are pinned from now on."""
        flags = vfio.MAP_READ | vfio.MAP_WRITE
        wanted = vfio.TYPE1_MAP.pack(vfio.TYPE1_MAP.size, flags, memory.address, iova, memory.size)
        try:
            request(self._container, vfio.IOMMU_MAP_DMA, bytearray(wanted))
        except OSError as error:
            if error.errno == errno.ENOMEM:
                mib = -(-memory.size // (1 << 20))
                raise PermissionDenied(
                    f"the kernel does not pin {mib} MiB for DMA", f"ulimit -l {mib * 1024}, or a smaller pool"
                ) from error
            raise VfwireError(
                f"the IOMMU refuses {memory.size} bytes at {iova:#x}: {error.strerror}"
            ) from error
        self._mapped[iova] = memory.size

    def unmap(self, iova: int, size: int) -> None:
        """Take back exactly what was mapped. Raises VfwireError when the kernel gave back another size."""
        request_bytes = bytearray(vfio.TYPE1_UNMAP.pack(vfio.TYPE1_UNMAP.size, 0, iova, size))
        request(self._container, vfio.IOMMU_UNMAP_DMA, request_bytes)
        gone = vfio.TYPE1_UNMAP.unpack(request_bytes)[3]
        if gone != size:
            raise VfwireError(f"{gone} bytes were mapped at {iova:#x}, not {size}")
        self._mapped.pop(iova, None)

    def _read_ranges(self) -> list[tuple[int, int]]:
        """(first, last) I/O addresses that the IOMMU has, the reserved ones left out."""
        info = bytearray(_INFO_BYTES)
        vfio.TYPE1_INFO.pack_into(info, 0, len(info), 0, 0, 0, 0)
        request(self._container, vfio.IOMMU_GET_INFO, info)
        size, flags, _, cap, _ = vfio.TYPE1_INFO.unpack_from(info)
        if not flags & vfio.INFO_CAPS or size > len(info):
            raise UnsupportedMachine(
                "this kernel does not tell which I/O addresses it has", "Linux 5.4 or later"
            )
        found = pairs(bytes(info[:size]), cap, vfio.CAP_IOVA_RANGE, vfio.TYPE1_INFO.size)
        if not found:
            raise UnsupportedMachine("the IOMMU has no I/O addresses")
        return found

    def close(self) -> None:
        """All maps go with the container. Close the device's descriptor first. Safe to call twice."""
        if self._group >= 0:
            with contextlib.suppress(OSError):
                request(self._group, vfio.GROUP_UNSET_CONTAINER)
            os.close(self._group)
        if self._container >= 0:
            os.close(self._container)
        self._group = self._container = -1


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        raise PermissionDenied(
            f"no permission to open {path}", "run as root, or have a udev rule give you the group's file"
        ) from error
    except FileNotFoundError as error:
        raise UnsupportedMachine(
            f"there is no {path}", "modprobe vfio-pci, and bind the function to it"
        ) from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ResourceBusy(f"another process uses {path}", "end it first (fuser shows which)") from error
        raise VfwireError(f"{path} does not open: {error.strerror}") from error
