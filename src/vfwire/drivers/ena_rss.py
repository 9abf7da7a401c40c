"""An ENA driver's receive-side scaling: hash function and key, hashed fields, table (ena_com.c, ena_rss.c)."""

import numpy as np

from vfwire.drivers.ena_admin import Admin
from vfwire.errors import ProtocolError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg

KEY_BYTES = 40
WHOLE_TABLE = 0xFFFFFFFF
_ADDRESSES = admin.RSS_L3_SA | admin.RSS_L3_DA
_PORTS = admin.RSS_L4_SP | admin.RSS_L4_DP
_FIELDS = {
    **dict.fromkeys((admin.RSS_TCP4, admin.RSS_UDP4, admin.RSS_TCP6, admin.RSS_UDP6), _ADDRESSES | _PORTS),
    **dict.fromkeys((admin.RSS_IP4, admin.RSS_IP6, admin.RSS_IP4_FRAG), _ADDRESSES),
}


def set_up_rss(control: Admin, queues: list[int], key: bytes) -> None:
    """Hash addresses and ports with Toeplitz and spread what arrives evenly over `queues` (the device's numbers).

    key: 40 bytes, the first byte first; the device takes them in reverse order (DPDK ena_rss.c says so).
    """
    function = np.zeros((), msg.HASH_FUNCTION)
    function["selected_func"] = 1 << admin.TOEPLITZ
    buffer = np.zeros((), msg.HASH_KEY)
    buffer["key_parts"] = admin.RSS_KEY_PARTS
    buffer["key"] = np.frombuffer(key[::-1], "<u4")
    control.set_feature(admin.RSS_HASH_FUNCTION, function, buffer=_fill(control, buffer.tobytes()))
    fields = np.zeros((), msg.HASH_CONTROL)
    for protocol, chosen in _FIELDS.items():
        fields["selected_fields"]["fields"][protocol] = chosen
    order = np.zeros((), msg.HASH_INPUT)
    order["enabled_input_sort"] = (
        admin.FEATURE_RSS_FLOW_HASH_INPUT_ENABLE_L3_SORT_MASK
        | admin.FEATURE_RSS_FLOW_HASH_INPUT_ENABLE_L4_SORT_MASK
    )
    control.set_feature(admin.RSS_HASH_INPUT, order, buffer=_fill(control, fields.tobytes()))
    shape = control.get_feature(admin.RSS_INDIRECTION_TABLE_CONFIG, msg.IND_TABLE).copy()
    largest = len(control.view("buffer")) // msg.IND_TABLE_ENTRY.itemsize
    if int(shape["max_size"]) >= largest.bit_length():
        raise ProtocolError(
            f"an indirection table of 2^{int(shape['max_size'])} entries: at most {largest} are taken"
        )
    size = 1 << int(shape["max_size"])
    entries = np.zeros(size, msg.IND_TABLE_ENTRY)
    entries["cq_idx"] = np.resize(queues, size)
    shape["size"], shape["inline_index"] = shape["max_size"], WHOLE_TABLE
    filled = _fill(control, entries.tobytes())
    control.set_feature(admin.RSS_INDIRECTION_TABLE_CONFIG, shape, buffer=filled)


def _fill(control: Admin, data: bytes) -> int:
    control.view("buffer")[: len(data)] = np.frombuffer(data, np.uint8)
    return len(data)
