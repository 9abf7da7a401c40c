"""One frame into an 82599's receive descriptors, in the form that the queue's VFSRRCTL asks for (82599 datasheet 7.1.5,
7.1.6, 7.1.10).

Advanced descriptors of one buffer are what every current driver uses. Legacy descriptors (DESCTYPE 0, also what a reset
leaves) are what iPXE's intelxvf uses. Header split puts the headers that VFPSRTYPE names into a buffer of their own.
"""

from vfwire.datapath.checksum_status import IP_BAD, IP_GOOD, L4_BAD, L4_GOOD
from vfwire.datapath.dma import stop_function
from vfwire.datapath.in_hand import copy_range
from vfwire.datapath.ixgbevf_queues import buffer_address
from vfwire.datapath.packet import KIND_IPV4, KIND_IPV6, KIND_TCP, KIND_UDP
from vfwire.datapath.state import Drop
from vfwire.layouts.ixgbe_descriptors import (
    RXD_ERR_HBO,
    RXD_ERR_IPE,
    RXD_ERR_TCPE,
    RXD_HDRLEN_MASK,
    RXD_LEGACY_ERROR_SHIFT,
    RXD_LEGACY_HIGH_ERRORS_SHIFT,
    RXD_LEGACY_STATUS_MASK,
    RXD_LEGACY_STATUS_SHIFT,
    RXD_LEGACY_VLAN_SHIFT,
    RXD_Q0_HDRLEN_SHIFT,
    RXD_Q1_LENGTH_SHIFT,
    RXD_SPH,
    RXD_STAT_DD,
    RXD_STAT_EOP,
    RXD_STAT_IPCS,
    RXD_STAT_L4CS,
)
from vfwire.layouts.ixgbevf import (
    PSRTYPE_IPV4HDR,
    PSRTYPE_IPV6HDR,
    PSRTYPE_L2HDR,
    PSRTYPE_TCPHDR,
    PSRTYPE_UDPHDR,
    SRRCTL_BSIZEHDR_MASK,
    SRRCTL_BSIZEHDR_SHIFT,
    SRRCTL_BSIZEHDR_UNIT,
    SRRCTL_DESCTYPE_HDR_SPLIT,
    SRRCTL_DESCTYPE_HDR_SPLIT_ALWAYS,
    SRRCTL_DESCTYPE_LEGACY,
    SRRCTL_DESCTYPE_MASK,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.words import load64, store64

BAD_DMA = int(Drop.BAD_DMA)
LONGEST_HEADER = RXD_HDRLEN_MASK >> RXD_Q0_HDRLEN_SHIFT
_LOW32 = 0xFFFF_FFFF


@inlined
def checksum_bits(found):  # type: ignore[no-untyped-def]
    """What was found out about a frame's checksums (packet.py's flags), as status and error bits."""
    status = 0
    if found & (IP_GOOD | IP_BAD):
        status |= RXD_STAT_IPCS
    if found & (L4_GOOD | L4_BAD):
        status |= RXD_STAT_L4CS
    if found & IP_BAD:
        status |= RXD_ERR_IPE
    if found & L4_BAD:
        status |= RXD_ERR_TCPE
    return status


@inlined
def _header_bytes(kind, l2, l3, l4, psrtype):  # type: ignore[no-untyped-def]
    """Where VFPSRTYPE has a frame split: after the last header that it names. 0: nowhere."""
    if (kind & KIND_TCP and psrtype & PSRTYPE_TCPHDR) or (kind & KIND_UDP and psrtype & PSRTYPE_UDPHDR):
        return l2 + l3 + l4
    if (kind & KIND_IPV4 and psrtype & PSRTYPE_IPV4HDR) or (kind & KIND_IPV6 and psrtype & PSRTYPE_IPV6HDR):
        return l2 + l3
    return l2 if psrtype & PSRTYPE_L2HDR else 0


@inlined
def split(inbox, kind, l2, l3, l4, psrtype, total):  # type: ignore[no-untyped-def]
    """(bytes for the header buffer, bits of qword0, error bits) of a frame of `total` bytes (datasheet 7.1.10)."""
    descriptor_type = inbox.srrctl & SRRCTL_DESCTYPE_MASK
    always = descriptor_type == SRRCTL_DESCTYPE_HDR_SPLIT_ALWAYS
    if not always and descriptor_type != SRRCTL_DESCTYPE_HDR_SPLIT:
        return 0, 0, 0
    room = ((inbox.srrctl & SRRCTL_BSIZEHDR_MASK) >> SRRCTL_BSIZEHDR_SHIFT) * SRRCTL_BSIZEHDR_UNIT
    room = min(room, LONGEST_HEADER)
    found = _header_bytes(kind, l2, l3, l4, psrtype)
    front, known, error = room if always else 0, 0, 0
    if always and total <= room:
        front, known = total, total << RXD_Q0_HDRLEN_SHIFT
    elif found == 0 or found > LONGEST_HEADER:
        known = front << RXD_Q0_HDRLEN_SHIFT
    elif found <= room:
        front, known = found, RXD_SPH | (found << RXD_Q0_HDRLEN_SHIFT)
    else:
        known, error = RXD_SPH | (found << RXD_Q0_HDRLEN_SHIFT), RXD_ERR_HBO
    return front, known, error


@inlined
def _write_back(inbox, entry, word0, status, part, vlan):  # type: ignore[no-untyped-def]
    """Hand the descriptor at `entry` to the driver: DD goes last, with the whole of qword1."""
    if inbox.srrctl & SRRCTL_DESCTYPE_MASK == SRRCTL_DESCTYPE_LEGACY:
        low = (status & RXD_LEGACY_STATUS_MASK) << RXD_LEGACY_STATUS_SHIFT
        errors = ((status & _LOW32) >> RXD_LEGACY_HIGH_ERRORS_SHIFT) << RXD_LEGACY_ERROR_SHIFT
        store64(entry + 8, low | errors | part | (vlan << RXD_LEGACY_VLAN_SHIFT))
    else:
        store64(entry, word0)
        store64(entry + 8, status | (part << RXD_Q1_LENGTH_SHIFT) | (vlan << 48))


@inlined
def fill_buffers(state, function, inbox, header, header_length, total, front, word0, status, vlan):  # type: ignore[no-untyped-def]
    """Write the frame into the buffers it takes, each with its descriptor.

    header: the private front of the frame as the receiver gets it. front: bytes that go into the first
    descriptor's header buffer. word0: of every descriptor; status, vlan: of the last. False: a bad address
    stopped the receiver.
    """
    position = 0
    while True:
        entry = inbox.ring + inbox.head * 16
        packet_at, header_at = load64(entry), load64(entry + 8)
        if position == 0 and front:
            buffer = buffer_address(state, function, inbox, header_at & ~1, front, 1)
            if buffer == 0:
                stop_function(state, function, BAD_DMA)
                return False
            copy_range(state, buffer, header, header_length, 0, front)
            position = front
        part = min(inbox.buffer_bytes, total - position)
        if part:
            buffer = buffer_address(state, function, inbox, packet_at, part, 1)
            if buffer == 0:
                stop_function(state, function, BAD_DMA)
                return False
            copy_range(state, buffer, header, header_length, position, part)
        position += part
        if position == total:
            _write_back(inbox, entry, word0, RXD_STAT_DD | RXD_STAT_EOP | status, part, vlan)
        else:
            _write_back(inbox, entry, word0, RXD_STAT_DD, part, 0)
        inbox.head = inbox.head + 1 if inbox.head + 1 < inbox.size else 0
        if position == total:
            return True
