"""Capability chains behind the info structures of VFIO and vfio-user (linux/vfio.h struct vfio_info_cap_header)."""

from vfwire.errors import ProtocolError
from vfwire.layouts import vfio_user as layout


def sparse_areas(info: bytes, cap: int, otherwise: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(offset, size) of the areas in a region info's sparse mmap capability; `otherwise` where it has none.

    Raises ProtocolError for a chain that leaves the message, or that does not end.
    """
    found = pairs(info, cap, layout.CAP_SPARSE_MMAP)
    return otherwise if found is None else found


def pairs(
    info: bytes, cap: int, kind: int, smallest: int = layout.REGION_INFO.size
) -> list[tuple[int, int]] | None:
    """The pairs of 64-bit numbers in the first capability `kind` of an info structure, None where it has none.

    A sparse mmap's areas and an IOMMU's I/O address ranges have this one shape: header, count, reserved, pairs.
    cap: where in `info` the chain starts, 0 for no chain. smallest: bytes of the fixed part. Raises as `sparse_areas`.
    """
    seen = 0
    while cap:
        seen += 1
        if not smallest <= cap <= len(info) - layout.CAP_HEADER.size or seen > len(info):
            raise ProtocolError("region capabilities leave their message")
        found, _, following = layout.CAP_HEADER.unpack_from(info, cap)
        if found == kind:
            return _pairs_at(info, cap)
        cap = following
    return None


def _pairs_at(info: bytes, cap: int) -> list[tuple[int, int]]:
    first = cap + layout.SPARSE_MMAP.size
    if first > len(info):
        raise ProtocolError("region capabilities leave their message")
    count = layout.SPARSE_MMAP.unpack_from(info, cap)[3]
    if first + count * layout.SPARSE_AREA.size > len(info):
        raise ProtocolError("region capabilities leave their message")
    return [layout.SPARSE_AREA.unpack_from(info, first + i * layout.SPARSE_AREA.size) for i in range(count)]
