"""Captures: what tcpdump and Wireshark write is read whole; everything else is refused with its cause."""

import io
import struct
from pathlib import Path

import dpkt
import pytest

from vfwire.errors import BadInput
from vfwire.measure.capture import read_capture

LONGEST = 1514
FRAMES = [bytes([number]) * (60 + number) for number in range(5)]


def as_pcap(frames: list[bytes], order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1) -> bytes:
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for number, frame in enumerate(frames):
        data += struct.pack(order + "IIII", number, 0, len(frame), len(frame)) + frame
    return data


def as_pcapng(frames: list[bytes]) -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file)
    for number, frame in enumerate(frames):
        writer.writepkt(frame, ts=float(number))
    return file.getvalue()


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "capture"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_of_any_byte_order_and_clock(tmp_path: Path, order: str, magic: int) -> None:
    assert read_capture(write(tmp_path, as_pcap(FRAMES, order, magic)), LONGEST) == FRAMES


def test_pcapng(tmp_path: Path) -> None:
    assert read_capture(write(tmp_path, as_pcapng(FRAMES)), LONGEST) == FRAMES


@pytest.mark.parametrize("make", [as_pcap, as_pcapng])
@pytest.mark.parametrize("missing", [1, 7, 20, 61])
def test_a_file_that_is_cut_off(tmp_path: Path, make: object, missing: int) -> None:
    data = make(FRAMES)  # type: ignore[operator]
    with pytest.raises(BadInput, match="cut off"):
        read_capture(write(tmp_path, data[:-missing]), LONGEST)


def test_a_header_that_is_cut_off(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cut off in its header"):
        read_capture(write(tmp_path, as_pcap([])[:20]), LONGEST)


@pytest.mark.parametrize("data", [b"", b"x", b"GIF89a" + bytes(100), bytes(1000)])
def test_no_capture_at_all(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadInput, match="neither pcap nor pcapng"):
        read_capture(write(tmp_path, data), LONGEST)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_capture(tmp_path / "nothing", LONGEST)


def test_an_empty_capture(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no frames"):
        read_capture(write(tmp_path, as_pcap([])), LONGEST)


def test_another_link_type(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="link type 113"):
        read_capture(write(tmp_path, as_pcap(FRAMES, link=113)), LONGEST)


def test_frames_cut_by_a_snap_length(tmp_path: Path) -> None:
    data = as_pcap([]) + struct.pack("<IIII", 0, 0, 60, 1514) + bytes(60)
    with pytest.raises(BadInput, match="60 of its 1514 bytes"):
        read_capture(write(tmp_path, data), LONGEST)


@pytest.mark.parametrize(("length", "cause"), [(1515, "path takes 1514"), (13, "Ethernet header")])
def test_frames_that_do_not_fit(tmp_path: Path, length: int, cause: str) -> None:
    with pytest.raises(BadInput, match=cause):
        read_capture(write(tmp_path, as_pcap([bytes(60), bytes(length)])), LONGEST)


def test_a_length_that_is_damage(tmp_path: Path) -> None:
    data = as_pcap([]) + struct.pack("<IIII", 0, 0, 0x7FFFFFFF, 0x7FFFFFFF) + bytes(60)
    with pytest.raises(BadInput, match="damaged"):
        read_capture(write(tmp_path, data), LONGEST)
