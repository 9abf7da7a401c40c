"""CRC32c (Castagnoli), which SCTP has for a checksum (RFC 9260 appendix A), in pieces, a byte at a time.

Start from CRC32C_START, and exclusive-or the result with it: written little-endian, it is the field.
"""

import numpy as np

from vfwire.memory.compiled import inlined
from vfwire.memory.words import load8

CRC32C_START = 0xFFFF_FFFF
_POLYNOMIAL = 0x82F6_3B78  # 0x1EDC6F41 with its bits in reverse


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = np.array([_entry(value) for value in range(256)], np.int64)


@inlined
def crc32c(crc, address, count):  # type: ignore[no-untyped-def]
    """`crc` gone on over the `count` bytes at `address`. Returns 0 to 2**32 - 1."""
    for place in range(count):
        crc = _TABLE[(crc ^ load8(address + place)) & 0xFF] ^ (crc >> 8)
    return crc


@inlined
def crc32c_zero(crc):  # type: ignore[no-untyped-def]
    """`crc` gone on over one byte of 0: what stands for a checksum field."""
    return _TABLE[crc & 0xFF] ^ (crc >> 8)
