"""Xen's structures, typed here from the public headers as C declares them, against our constants."""

import ctypes

import pytest

from vfwire.layouts import xen_grant, xen_netif, xen_ring, xenbus

u8, u16, s16, u32 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_int16, ctypes.c_uint32


class TxRequest(ctypes.Structure):
    _fields_ = (("gref", u32), ("offset", u16), ("flags", u16), ("id", u16), ("size", u16))


class TxResponse(ctypes.Structure):
    _fields_ = (("id", u16), ("status", s16))


class RxRequest(ctypes.Structure):
    _fields_ = (("id", u16), ("pad", u16), ("gref", u32))


class RxResponse(ctypes.Structure):
    _fields_ = (("id", u16), ("offset", u16), ("flags", u16), ("status", s16))


class Gso(ctypes.Structure):
    _fields_ = (("size", u16), ("type", u8), ("pad", u8), ("features", u16))


class ExtraInfo(ctypes.Structure):
    _fields_ = (("type", u8), ("flags", u8), ("gso", Gso))


class TxEntry(ctypes.Union):
    _fields_ = (("req", TxRequest), ("rsp", TxResponse))


class RxEntry(ctypes.Union):
    _fields_ = (("req", RxRequest), ("rsp", RxResponse))


class Sring(ctypes.Structure):
    _fields_ = (
        ("req_prod", u32),
        ("req_event", u32),
        ("rsp_prod", u32),
        ("rsp_event", u32),
        ("pad", u8 * 48),
        ("ring", u8 * 4032),
    )


class GrantEntryV1(ctypes.Structure):
    _fields_ = (("flags", u16), ("domid", u16), ("frame", u32))


@pytest.mark.parametrize(
    ("structure", "prefix", "module"),
    [
        (TxRequest, "TXREQ", xen_netif),
        (TxResponse, "TXRSP", xen_netif),
        (RxRequest, "RXREQ", xen_netif),
        (RxResponse, "RXRSP", xen_netif),
        (GrantEntryV1, "ENTRY", xen_grant),
    ],
)
def test_fields_lie_where_the_headers_put_them(structure, prefix, module):
    for name, _ in structure._fields_:
        if name != "pad":
            assert getattr(module, f"{prefix}_{name.upper()}") == getattr(structure, name).offset, name
    assert getattr(module, f"{prefix}_BYTES") == ctypes.sizeof(structure)


def test_shared_ring_page():
    assert (Sring.req_prod.offset, Sring.req_event.offset) == (xen_ring.REQ_PROD, xen_ring.REQ_EVENT)
    assert (Sring.rsp_prod.offset, Sring.rsp_event.offset) == (xen_ring.RSP_PROD, xen_ring.RSP_EVENT)
    assert Sring.ring.offset == xen_ring.ENTRIES
    assert ctypes.sizeof(Sring) == xen_ring.PAGE_BYTES


def test_entries_and_ring_sizes():
    assert ctypes.sizeof(TxEntry) == xen_netif.TX_ENTRY_BYTES == 12
    assert ctypes.sizeof(RxEntry) == xen_netif.RX_ENTRY_BYTES == 8
    assert ctypes.sizeof(ExtraInfo) == xen_netif.EXTRA_BYTES == 8
    assert xen_netif.TX_RING_SIZE == 256  # Linux: NET_TX_RING_SIZE, __CONST_RING_SIZE(xen_netif_tx, 4096)
    assert xen_netif.RX_RING_SIZE == 256
    assert xen_ring.ring_entries(112) == 32  # blkif's, as a second opinion on the rounding


@pytest.mark.parametrize(
    ("module", "table"),
    [
        (
            xen_netif,
            {
                "NETTXF_CSUM_BLANK": 0x01,
                "NETTXF_DATA_VALIDATED": 0x02,
                "NETTXF_MORE_DATA": 0x04,
                "NETTXF_EXTRA_INFO": 0x08,
                "NETRXF_DATA_VALIDATED": 0x01,
                "NETRXF_CSUM_BLANK": 0x02,
                "NETRXF_MORE_DATA": 0x04,
                "NETRXF_EXTRA_INFO": 0x08,
                "NETRXF_GSO_PREFIX": 0x10,
                "NETIF_RSP_DROPPED": -2,
                "NETIF_RSP_ERROR": -1,
                "NETIF_RSP_OKAY": 0,
                "NETIF_RSP_NULL": 1,
            },
        ),
        (
            xen_grant,
            {
                "GTF_INVALID": 0,
                "GTF_PERMIT_ACCESS": 1,
                "GTF_ACCEPT_TRANSFER": 2,
                "GTF_TRANSITIVE": 3,
                "GTF_TYPE_MASK": 3,
                "GTF_READONLY": 4,
                "GTF_READING": 8,
                "GTF_WRITING": 16,
                "GTF_SUB_PAGE": 256,
                "GNTST_OKAY": 0,
                "GNTST_GENERAL_ERROR": -1,
                "GNTST_BAD_DOMAIN": -2,
                "GNTST_BAD_GNTREF": -3,
                "GNTST_PERMISSION_DENIED": -8,
                "GNTST_BAD_PAGE": -9,
                "GNTST_BAD_COPY_ARG": -10,
                "RESERVED_ENTRIES": 8,
                "DOMID_FIRST_RESERVED": 0x7FF0,
            },
        ),
    ],
)
def test_constants(module, table):
    assert {name: getattr(module, name) for name in table} == table


def test_xenbus_states():
    assert [state.value for state in xenbus.XenbusState] == list(range(9))
    names = ["UNKNOWN", "INITIALISING", "INIT_WAIT", "INITIALISED", "CONNECTED", "CLOSING", "CLOSED"]
    assert [state.name for state in xenbus.XenbusState][:7] == names
