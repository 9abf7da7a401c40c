"""The Internet checksum as RFC 1071 puts it, byte by byte: what tests compare the fast one with."""

import struct


def ones_sum(data: bytes) -> int:
    """The 16-bit ones'-complement sum of big-endian words; an odd last byte is followed by a 0."""
    total = 0
    for index in range(0, len(data), 2):
        total += (data[index] << 8) + (data[index + 1] if index + 1 < len(data) else 0)
        if total > 0xFFFF:
            total -= 0xFFFF
    return total


def internet_checksum(data: bytes) -> int:
    """The number, big-endian, that belongs in the checksum field of `data` (which is 0 there)."""
    return 0xFFFF - ones_sum(data)


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack(">BBH", 0, protocol, length)
    return source + destination + struct.pack(">I3xB", length, protocol)
