"""What a function has to be told, so that the frames of a capture reach it: they carry other stations' addresses.

An 82599 grants no VF promiscuous mode (Linux ixgbe_sriov.c, ixgbe_update_vf_xcast_mode), so the receiving VF asks for
each destination as one more MAC filter, for each VLAN, and for all multicast; its PF has set it `trust on`, and the
sending VF `spoofchk off`. A trusted ENA hears everything without asking. The capture's frames all go from system 1 to
system 2, both directions of a conversation.
"""

from dataclasses import dataclass
from typing import Any

from vfwire.errors import BadInput
from vfwire.layouts.ethernet import ETHERNET_TYPE, ETHERTYPE_VLAN, MAC_BYTES, VLAN_BYTES, VLAN_ID_MASK
from vfwire.paths.applications import Packed

MOST_MACS = 100  # MAC filters that an 82599 has to give to one VF, nearly
MOST_VLANS = 60  # of the 64 VLAN filters
PF_SETTINGS: dict[str, Any] = {"trust": True, "spoofchk": False}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Unicast destinations and VLANs of some frames."""

    macs: tuple[bytes, ...]
    vlans: tuple[int, ...]


def addresses_of(packed: Packed) -> Addresses:
    """What the frames are addressed to. Raises BadInput when it is more than an 82599 VF can be told."""
    macs, vlans = set(), set()
    for offset, length in packed.index.tolist():
        head = packed.data[offset : offset + min(length, ETHERNET_TYPE + VLAN_BYTES)].tobytes()
        if not head[0] & 1:
            macs.add(head[:MAC_BYTES])
        if int.from_bytes(head[ETHERNET_TYPE : ETHERNET_TYPE + 2], "big") == ETHERTYPE_VLAN:
            vlans.add(int.from_bytes(head[ETHERNET_TYPE + 2 :], "big") & VLAN_ID_MASK)
    if len(macs) > MOST_MACS or len(vlans) > MOST_VLANS:
        raise BadInput(
            f"the capture has {len(macs)} destinations and {len(vlans)} VLANs; a VF takes {MOST_MACS} and {MOST_VLANS}",
            "replay a part of it: tcpdump -r FILE -w PART host …",
        )
    return Addresses(tuple(sorted(macs)), tuple(sorted(vlans - {0})))
