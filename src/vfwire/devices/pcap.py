"""A capture of functions' frames as pcapng, for Wireshark: an interface for each function, a direction for each frame.

Frames are as the function's driver sees them: tags in line, offloaded checksums filled in, segments as they leave. The
section and its interfaces are written by python-pcapng; the block of each frame is packed here, for that library takes
40 µs a frame. (pcapng: draft-ietf-opsawg-pcapng, section 4.3.)
"""

import struct
import time
import warnings
from pathlib import Path

from pcapng import FileWriter
from pcapng.blocks import InterfaceDescription, InterfaceStatistics, SectionHeader

from vfwire.datapath.recorder import RECORD_FRAMES
from vfwire.devices.card import Card
from vfwire.devices.recorder import Event, open_file
from vfwire.devices.settings import format_mac

_ETHERNET = 1  # LINKTYPE_ETHERNET
_NANOSECONDS = b"\x09"  # if_tsresol: 10 to the minus 9
_BLOCK = struct.Struct("<IIIIIII")  # type, length, interface, time high and low, captured length, length
_ENHANCED_PACKET = 6
_TAIL = struct.Struct("<HHIHHI")  # option epb_flags with its length and value, end of options, length
_FLAGS = 2  # epb_flags
_INBOUND, _OUTBOUND = 1, 2


class PcapFile:
    """Writes the frames of `functions` (numbers on the card, None for all) to `path`. Raises as `open_file` does."""

    wants = RECORD_FRAMES

    def __init__(self, card: Card, path: Path, functions: set[int] | None = None) -> None:
        self.path = path
        self._file = open_file(path, "capture")
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        section = SectionHeader(endianness="<", options={"shb_userappl": "vfwire"})
        self._interfaces: dict[int, int] = {}
        for function in card.functions:
            if functions is None or function.port.pool in functions:
                self._interfaces[function.port.function] = len(self._interfaces)
                options = {
                    "if_name": function.name,
                    "if_description": f"{card.address(function.port.pool)}, inbound is to the function's driver",
                    "if_MACaddr": format_mac(function.port.mac),
                    "if_tsresol": _NANOSECONDS,
                }
                section.new_member(InterfaceDescription, link_type=_ETHERNET, options=options)
        self._section = section
        with warnings.catch_warnings():  # python-pcapng warns of its own table's entry for if_tsresol
            warnings.simplefilter("ignore", DeprecationWarning)
            self._writer = FileWriter(self._file, section)
        self._file.flush()

    def __str__(self) -> str:
        return str(self.path)

    def write(self, event: Event) -> None:
        interface = self._interfaces.get(event.function)
        if event.kind != "frame" or interface is None:
            return
        sent, frame = event.what
        when = event.time_ns + self._epoch_ns
        padded = frame + bytes(-len(frame) % 4)
        size = _BLOCK.size + len(padded) + _TAIL.size
        self._file.write(
            _BLOCK.pack(
                _ENHANCED_PACKET, size, interface, when >> 32, when & 0xFFFFFFFF, len(frame), len(frame)
            )
        )
        self._file.write(padded)
        self._file.write(_TAIL.pack(_FLAGS, 4, _OUTBOUND if sent else _INBOUND, 0, 0, size))

    def flush(self) -> None:
        self._file.flush()

    def close(self, lost: int) -> None:
        """Say in the statistics of each interface how many events were lost, of all of them together."""
        now = time.time_ns()
        with self._file:
            for interface in self._interfaces.values():
                statistics = self._section.new_member(
                    InterfaceStatistics,
                    interface_id=interface,
                    timestamp_high=now >> 32,
                    timestamp_low=now & 0xFFFFFFFF,
                    options={"isb_ifdrop": lost},
                )
                self._writer.write_block(statistics)
