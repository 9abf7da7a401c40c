"""What a guest's ENA driver says of itself: the host info page, shown by `vfwire vf show`."""

from typing import Any

import numpy as np

from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages

_ABILITIES = {
    "rx_offset": admin.HOST_INFO_RX_OFFSET_MASK,
    "interrupt_moderation": admin.HOST_INFO_INTERRUPT_MODERATION_MASK,
    "rx_buf_mirroring": admin.HOST_INFO_RX_BUF_MIRRORING_MASK,
    "rss_configurable_function_key": admin.HOST_INFO_RSS_CONFIGURABLE_FUNCTION_KEY_MASK,
    "rx_page_reuse": admin.HOST_INFO_RX_PAGE_REUSE_MASK,
    "tx_ipv6_csum_offload": admin.HOST_INFO_TX_IPV6_CSUM_OFFLOAD_MASK,
    "phc": admin.HOST_INFO_PHC_MASK,
    "debug_area_ext": admin.HOST_INFO_DEBUG_AREA_EXT_MASK,
}


def host_info(page: bytes) -> dict[str, Any]:
    """The page (at least as long as `HOST_INFO`) as JSON. Text of the guest's is cut down to printable ASCII.

    release: what the header calls the distribution; Linux and DPDK put their own release there, as `uname -r` has it.
    """
    info = np.frombuffer(page[: messages.HOST_INFO.itemsize], messages.HOST_INFO)[0]
    version = int(info["driver_version"])
    features = int(info["driver_supported_features"])
    os_type = int(info["os_type"])
    spec = int(info["ena_spec_version"])
    return {
        "os": admin.OS_NAMES.get(os_type, f"type {os_type}"),
        "release": _printable(info["os_dist_str"]),
        "build": _printable(info["kernel_ver_str"]),
        "driver_version": ".".join(
            str(part)
            for part in (
                version & admin.HOST_INFO_MAJOR_MASK,
                (version & admin.HOST_INFO_MINOR_MASK) >> admin.HOST_INFO_MINOR_SHIFT,
                (version & admin.HOST_INFO_SUB_MINOR_MASK) >> admin.HOST_INFO_SUB_MINOR_SHIFT,
            )
        ),
        "module_type": (version & admin.HOST_INFO_MODULE_TYPE_MASK) >> admin.HOST_INFO_MODULE_TYPE_SHIFT,
        "spec_version": f"{spec >> 8}.{spec & 0xFF}",
        "cpus": int(info["num_cpus"]),
        "supports": [name for name, mask in _ABILITIES.items() if features & mask],
    }


def _printable(text: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in text.split(b"\0")[0])
