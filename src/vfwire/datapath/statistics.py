"""The statistics registers of an 82599 VF, in its mapped pages (82599 datasheet 8.3.5.9): wrapping, never cleared."""

from vfwire.layouts.ixgbevf import (
    VFGORC_LSB,
    VFGORC_MSB,
    VFGOTC_LSB,
    VFGOTC_MSB,
    VFGPRC,
    VFGPTC,
    VFMPRC,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.words import store32

_OCTETS_HIGH = 0xF  # the counters of octets have 36 bits


@inlined
def publish_statistics(state, function):  # type: ignore[no-untyped-def]
    """Write the counters where the guest reads them. Octets count the FCS, as the hardware does."""
    record = state.functions[function]
    pages = record.pages
    received = record.rx_bytes + 4 * record.rx_frames
    sent = record.tx_bytes + 4 * record.tx_frames
    store32(pages + VFGPRC, record.rx_frames)
    store32(pages + VFGPTC, record.tx_frames)
    store32(pages + VFMPRC, record.rx_multicast)
    store32(pages + VFGORC_LSB, received)
    store32(pages + VFGORC_MSB, (received >> 32) & _OCTETS_HIGH)
    store32(pages + VFGOTC_LSB, sent)
    store32(pages + VFGOTC_MSB, (sent >> 32) & _OCTETS_HIGH)
