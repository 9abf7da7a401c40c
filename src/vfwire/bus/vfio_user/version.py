"""Version negotiation: VERSION's JSON, read with suspicion; the smaller version, common capabilities."""

import json
from dataclasses import dataclass
from typing import Any

from vfwire.errors import ProtocolError
from vfwire.layouts import vfio_user as layout
from vfwire.memory.shared import PAGE

MAX_DMA_MAPS = 16384  # a guest of QEMU needs about a dozen, one with an IOMMU of its own one for each page


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one side can take. Not named: the specification's default. `named` lists what it did name."""

    max_msg_fds: int = layout.DEFAULT_MAX_MSG_FDS
    max_data_xfer_size: int = layout.DEFAULT_MAX_DATA_XFER
    max_dma_maps: int = layout.DEFAULT_MAX_DMA_MAPS
    pgsizes: int = layout.DEFAULT_PAGE_SIZES
    write_multiple: bool = False
    named: frozenset[str] = frozenset()


OURS: dict[str, int | bool] = {
    "max_msg_fds": layout.MAX_MSG_FDS,
    "max_data_xfer_size": layout.MAX_DATA_XFER,
    "max_dma_maps": MAX_DMA_MAPS,
    "pgsizes": PAGE,
    "write_multiple": True,
}


def parse(payload: bytes) -> tuple[int, int, Capabilities]:
    """Major, minor and capabilities of a VERSION payload. Raises ProtocolError (EINVAL) for anything else."""
    if len(payload) < layout.VERSION.size:
        raise ProtocolError("version message is too short")
    major, minor = layout.VERSION.unpack_from(payload)
    return major, minor, _capabilities(payload[layout.VERSION.size :])


def pack(major: int, minor: int, capabilities: dict[str, int | bool]) -> bytes:
    """The payload of a VERSION message, either way."""
    text = json.dumps({"capabilities": capabilities}, separators=(",", ":"))
    return layout.VERSION.pack(major, minor) + text.encode() + b"\0"


def answer(payload: bytes) -> tuple[bytes, Capabilities]:
    """A server's reply to a client's VERSION payload, and what the client can take.

    The minor version is the smaller of the two; of our capabilities the client hears those it named itself
    (the reply's must be a subset of the proposal's). Raises ProtocolError (EINVAL).
    """
    major, minor, theirs = parse(payload)
    if major != layout.MAJOR:
        raise ProtocolError(f"protocol version {major}.{minor} is not {layout.MAJOR}.x")
    common = {name: value for name, value in OURS.items() if name in theirs.named}
    if not theirs.write_multiple:
        common.pop("write_multiple", None)
    return pack(major, min(minor, layout.MINOR), common), theirs


def _capabilities(text: bytes) -> Capabilities:
    if not text:
        return Capabilities()
    if text[-1] != 0:
        raise ProtocolError("version data does not end with NUL")
    if len(text) > layout.MAX_VERSION_JSON:
        raise ProtocolError("version data is too long")
    try:
        data = json.loads(text[:-1].decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError("version data is not JSON") from error
    if not isinstance(data, dict):
        raise ProtocolError("version data is not a JSON object")
    found = data.get("capabilities", {})
    if not isinstance(found, dict):
        raise ProtocolError("version capabilities are not a JSON object")
    return Capabilities(
        max_msg_fds=_number(found, "max_msg_fds", layout.DEFAULT_MAX_MSG_FDS, layout.PEER_MAX_MSG_FDS),
        max_data_xfer_size=_number(found, "max_data_xfer_size", layout.DEFAULT_MAX_DATA_XFER),
        max_dma_maps=_number(found, "max_dma_maps", layout.DEFAULT_MAX_DMA_MAPS),
        pgsizes=_number(found, "pgsizes", layout.DEFAULT_PAGE_SIZES),
        write_multiple=_flag(found, "write_multiple"),
        named=frozenset(OURS) & frozenset(found),
    )


def _number(found: dict[str, Any], name: str, default: int, maximum: int = (1 << 64) - 1) -> int:
    value = found.get(name, default)
    if type(value) is not int or not 0 <= value <= maximum:
        raise ProtocolError(f"version capability {name} is not a number in its range")
    return value


def _flag(found: dict[str, Any], name: str) -> bool:
    value = found.get(name, False)
    if type(value) is not bool:
        raise ProtocolError(f"version capability {name} is not true or false")
    return value
