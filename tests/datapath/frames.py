"""Frames for tests, built with struct alone: what they hold is known from how they are made."""

import struct
from dataclasses import dataclass

import internet_checksum as reference

TCP, UDP, SCTP, ICMP = 6, 17, 132, 1
ETHERNET = bytes.fromhex("0200000000010200000000 02".replace(" ", ""))


def crc32c(data: bytes) -> int:
    """Bit by bit (RFC 9260 appendix A), as the number that SCTP stores little-endian."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Packet:
    """One IP packet: `extensions` are IPv6 extension headers as (protocol, all but the first byte)."""

    source: bytes = bytes([10, 0, 0, 1])
    destination: bytes = bytes([10, 0, 0, 2])
    protocol: int = TCP
    payload: bytes = b"payload"
    l4_options: bytes = b""
    ip_options: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()
    fragment: int = 0
    identification: int = 0x1234
    sequence: int = 0x01020304
    flags: int = 0x18
    ports: tuple[int, int] = (1000, 2000)
    vlan: int | None = None
    udp_checksum: bool = True

    @property
    def is_ipv6(self) -> bool:
        return len(self.source) == 16

    @property
    def l2_len(self) -> int:
        return 14 if self.vlan is None else 18

    @property
    def l3_len(self) -> int:
        if self.is_ipv6:
            return 40 + sum(1 + len(rest) for _, rest in self.extensions)
        return 20 + len(self.ip_options)

    @property
    def l4_len(self) -> int:
        return {TCP: 20 + len(self.l4_options), UDP: 8, SCTP: 12}.get(self.protocol, 0)

    def l2(self) -> bytes:
        ethertype = 0x86DD if self.is_ipv6 else 0x0800
        if self.vlan is None:
            return ETHERNET + struct.pack(">H", ethertype)
        return ETHERNET + struct.pack(">HHH", 0x8100, self.vlan, ethertype)

    def l3(self, l4_bytes: int) -> bytes:
        if self.is_ipv6:
            chain = [kind for kind, _ in self.extensions] + [self.protocol]
            rest = b"".join(bytes([chain[i + 1]]) + body for i, (_, body) in enumerate(self.extensions))
            start = struct.pack(">IHBB", 6 << 28, len(rest) + l4_bytes, chain[0], 64)
            return start + self.source + self.destination + rest
        header = struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | (5 + len(self.ip_options) // 4),
            0,
            20 + len(self.ip_options) + l4_bytes,
            self.identification,
            self.fragment,
            64,
            self.protocol,
            0,
            self.source,
            self.destination,
        )
        header += self.ip_options
        return header[:10] + struct.pack(">H", reference.internet_checksum(header)) + header[12:]

    def l4(self) -> bytes:
        if self.protocol == TCP:
            offset = (5 + len(self.l4_options) // 4) << 4
            fixed = struct.pack(">HHIIBBHHH", *self.ports, self.sequence, 7, offset, self.flags, 512, 0, 0)
            return self._with_checksum(fixed + self.l4_options, 16)
        if self.protocol == UDP:
            header = struct.pack(">HHHH", *self.ports, 8 + len(self.payload), 0)
            return self._with_checksum(header, 6) if self.udp_checksum else header
        if self.protocol == SCTP:
            header = struct.pack(">HHII", *self.ports, 1, 0)
            return header[:8] + struct.pack("<I", crc32c(header + self.payload))
        return b""

    def _with_checksum(self, header: bytes, at: int) -> bytes:
        length = len(header) + len(self.payload)
        pseudo = reference.pseudo(self.source, self.destination, self.protocol, length)
        value = reference.internet_checksum(pseudo + header + self.payload)
        if self.protocol == UDP and value == 0:
            value = 0xFFFF
        return header[:at] + struct.pack(">H", value) + header[at + 2 :]

    def frame(self) -> bytes:
        l4 = self.l4() + self.payload
        return self.l2() + self.l3(len(l4)) + l4
