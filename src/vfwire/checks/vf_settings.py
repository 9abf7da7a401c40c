"""What a PF's driver keeps for each of its VFs: `ip link show`'s "vf 0 link/ether … vlan …" (IFLA_VFINFO_LIST)."""

from dataclasses import dataclass
from typing import Any

_RTEXT_FILTER_VF = 1  # Linux include/uapi/linux/rtnetlink.h
_STATES = {0: "auto", 1: "enable", 2: "disable"}


@dataclass(frozen=True)
class VfSettings:
    """max_tx_rate in Mbit/s, 0 for none. What the driver does not serve is None."""

    mac: str
    vlan: int
    qos: int
    spoofchk: bool | None
    trust: bool | None
    link_state: str | None
    max_tx_rate: int


def read_vf_settings(index: int) -> dict[int, VfSettings]:
    """By VF number, of the PF whose interface has this index; {} if its driver tells nothing, or it has gone."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as ip:
            messages = ip.link("get", index=index, ext_mask=_RTEXT_FILTER_VF)
    except NetlinkError:
        return {}
    listed = messages[0].get_attr("IFLA_VFINFO_LIST") if messages else None
    found = [] if listed is None else listed.get_attrs("IFLA_VF_INFO")
    return {
        int(one.get_attr("IFLA_VF_MAC")["vf"]): _settings(one) for one in found if one.get_attr("IFLA_VF_MAC")
    }


def _settings(one: Any) -> VfSettings:
    vlan = one.get_attr("IFLA_VF_VLAN") or {"vlan": 0, "qos": 0}
    rate = one.get_attr("IFLA_VF_RATE") or {"max_tx_rate": 0}
    state = one.get_attr("IFLA_VF_LINK_STATE")
    return VfSettings(
        mac=one.get_attr("IFLA_VF_MAC")["mac"][
            :17
        ],  # room for 32 bytes: an Ethernet address is the first six
        vlan=vlan["vlan"],
        qos=vlan["qos"],
        spoofchk=_switch(one.get_attr("IFLA_VF_SPOOFCHK")),
        trust=_switch(one.get_attr("IFLA_VF_TRUST")),
        link_state=None if state is None else _STATES.get(state["link_state"]),
        max_tx_rate=rate["max_tx_rate"],
    )


def _switch(attribute: Any) -> bool | None:
    """Drivers that do not serve a switch have all ones in its place."""
    setting = None if attribute is None else attribute.get("setting", attribute.get("value"))
    return bool(setting) if setting in (0, 1) else None
