"""What the ENA driver makes of a receive completion, written by hand after ena_eth_io_defs.h."""

import struct

import numpy as np
import pytest

from vfwire.datapath import port
from vfwire.datapath.bursts import receive_burst
from vfwire.drivers.verbs import burst, queue_records

SIZE = 64
IPV4, IPV6, TCP = 8, 11, 12 << 8
L3_BAD, L4_BAD, CHECKED = 1 << 13, 1 << 14, 1 << 16
PHASE, LAST = 1 << 24, 1 << 27


def received(status: int, value: int) -> np.void:
    """The frame of one completion."""
    completions, slots, ring = (np.zeros(SIZE * words, np.int64) for words in (2, 1, 2))
    buffers, words = np.zeros(2048, np.uint8), np.zeros(1, port.POOL).view(np.recarray)
    words[0].buffer_bytes = words[0].stride = len(buffers)
    slots[3] = words[0].first = buffers.ctypes.data
    completions.view(np.uint8)[:16] = list(struct.pack("<IHHIHBB", status, 60, 3, value, 0, 0, 0))
    queues = queue_records(1)
    queues[0].kind, queues[0].size, queues[0].completion_size = port.ENA, SIZE, SIZE
    queues[0].ring, queues[0].slots, queues[0].completions = (
        array.ctypes.data for array in (ring, slots, completions)
    )
    queues[0].tail = SIZE - 1
    frames = burst(4)
    assert receive_burst(queues, 0, words, np.zeros(1, np.int64), frames, 4) == 1
    assert (int(frames[0].address), int(frames[0].length)) == (buffers.ctypes.data, 60)
    return frames[0]


@pytest.mark.parametrize("value", [1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_any_hash_is_told_as_it_is(value: int) -> None:
    frame = received(PHASE | LAST | IPV4, value)
    assert int(frame["hash"]) & 0xFFFFFFFF == value and frame["flags"] & port.RX_HASH


@pytest.mark.parametrize(
    ("status", "flags"),
    [
        (0, 0),
        (IPV4, port.RX_IP_GOOD),
        (IPV4 | L3_BAD, port.RX_CHECKSUM_BAD),
        (IPV4 | TCP | CHECKED, port.RX_IP_GOOD | port.RX_L4_GOOD),
        (IPV4 | TCP | CHECKED | L4_BAD, port.RX_IP_GOOD | port.RX_CHECKSUM_BAD),
        (IPV4 | TCP | CHECKED | L3_BAD, port.RX_CHECKSUM_BAD | port.RX_L4_GOOD),
        (IPV4 | TCP | L4_BAD, port.RX_IP_GOOD),
        (IPV6 | TCP | CHECKED, port.RX_L4_GOOD),
        (IPV6 | TCP | CHECKED | L4_BAD, port.RX_CHECKSUM_BAD),
    ],
)
def test_sums_are_told_as_the_device_found_them(status: int, flags: int) -> None:
    assert received(PHASE | LAST | status, 0)["flags"] == flags


def test_what_goes_on_in_the_next_buffer_is_told_nothing_else_of() -> None:
    assert received(PHASE | IPV4 | L3_BAD | CHECKED, 0)["flags"] == port.RX_MORE
