"""Captures: the frames of a pcap or pcapng file, whole Ethernet frames or an error that names what is wrong.

pcap as tcpdump and dpkt know it (both byte orders, microseconds and nanoseconds); pcapng by python-pcapng.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pcapng
from dpkt import pcap
from pcapng import blocks
from pcapng.exceptions import PcapngException

from vfwire.errors import BadInput, PermissionDenied
from vfwire.layouts.ethernet import ETHERNET_BYTES

_PCAPNG = b"\n\r\r\n"  # a section header block's type, the same in both byte orders
_HEADERS: dict[bytes, tuple[Any, Any]] = {
    struct.pack(">I", pcap.TCPDUMP_MAGIC): (pcap.FileHdr, pcap.PktHdr),
    struct.pack(">I", pcap.TCPDUMP_MAGIC_NANO): (pcap.FileHdr, pcap.PktHdr),
    struct.pack("<I", pcap.TCPDUMP_MAGIC): (pcap.LEFileHdr, pcap.LEPktHdr),
    struct.pack("<I", pcap.TCPDUMP_MAGIC_NANO): (pcap.LEFileHdr, pcap.LEPktHdr),
}
_RETAKE = "take it again to its end, with tcpdump -s 0"
_LARGEST = 1 << 20  # bytes; a length beyond is damage, not a frame


def read_capture(path: Path, longest: int) -> list[bytes]:
    """All frames in order, each as it was on the wire, without FCS. longest: bytes that the path takes.

    Raises BadInput for a file that is no capture, not of Ethernet, cut off, or with frames cut short or too
    long; PermissionDenied where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic == _PCAPNG:
                frames = list(_read_pcapng(path, file))
            elif magic in _HEADERS:
                frames = list(_read_pcap(path, file, *_HEADERS[magic]))
            else:
                raise BadInput(
                    f"{path} is neither pcap nor pcapng", "give a file that tcpdump -w has written"
                )
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if not frames:
        raise BadInput(f"{path} has no frames")
    for number, frame in enumerate(frames, 1):
        if len(frame) < ETHERNET_BYTES:
            raise BadInput(f"{path}: frame {number} has {len(frame)} bytes, less than an Ethernet header")
        if len(frame) > longest:
            raise BadInput(
                f"{path}: frame {number} has {len(frame)} bytes, and the path takes {longest}",
                "capture with segmentation offload off: ethtool -K DEV tso off gso off gro off",
            )
    return frames


def _read_pcap(path: Path, file: BinaryIO, file_header: Any, packet_header: Any) -> Iterator[bytes]:
    start = file.read(file_header.__hdr_len__)
    if len(start) < file_header.__hdr_len__:
        raise BadInput(f"{path} is cut off in its header", _RETAKE)
    _check_link(path, file_header(start).linktype & 0xFFFF)
    number = 0
    while data := file.read(packet_header.__hdr_len__):
        number += 1
        if len(data) < packet_header.__hdr_len__:
            raise BadInput(f"{path} is cut off in frame {number}", _RETAKE)
        header = packet_header(data)
        if header.caplen > _LARGEST:
            raise BadInput(f"{path} is damaged at frame {number}", _RETAKE)
        frame = file.read(header.caplen)
        if len(frame) < header.caplen:
            raise BadInput(f"{path} is cut off in frame {number}", _RETAKE)
        _check_whole(path, number, header.caplen, header.len)
        yield frame


def _read_pcapng(path: Path, file: BinaryIO) -> Iterator[bytes]:
    number = 0
    try:
        for block in pcapng.FileScanner(file):
            if isinstance(block, blocks.InterfaceDescription):
                _check_link(path, block.link_type)
            elif isinstance(block, blocks.EnhancedPacket | blocks.SimplePacket | blocks.ObsoletePacket):
                number += 1
                _check_whole(path, number, len(block.packet_data), block.packet_len)
                yield bytes(block.packet_data)
    except (PcapngException, struct.error, ValueError, KeyError, IndexError) as error:
        raise BadInput(f"{path} is cut off or damaged after frame {number}: {error}", _RETAKE) from error


def _check_link(path: Path, link: int) -> None:
    if link != pcap.DLT_EN10MB:
        raise BadInput(
            f"{path} is a capture of link type {link}, not of Ethernet", "capture on one interface"
        )


def _check_whole(path: Path, number: int, captured: int, length: int) -> None:
    if captured != length:
        raise BadInput(
            f"{path}: frame {number} was captured with {captured} of its {length} bytes",
            "capture whole frames: tcpdump -s 0",
        )
