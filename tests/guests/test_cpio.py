"""The archives that the kernel unpacks, read back by a parser that shares nothing with their writer."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.guests.cpio import CpioWriter


def entries(data: bytes) -> list[tuple[str, int, tuple[int, int], bytes]]:
    """Name, mode, device and content, typed from Linux's buffer-format document: 13 fields of 8 hexadecimal digits."""
    found, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) // 4 * 4
        content = data[at : at + size]
        at = (at + size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found.append((name, mode, (fields[9], fields[10]), content))


def test_each_kind_of_entry() -> None:
    stream = io.BytesIO()
    with CpioWriter(stream) as archive:
        archive.file("bin/tool", b"\x7fELF", 0o755)
        archive.link("sbin", "bin")
        archive.character_device("dev/console", 5, 1)
    assert entries(stream.getvalue()) == [
        ("bin", 0o040755, (0, 0), b""),
        ("bin/tool", 0o100755, (0, 0), b"\x7fELF"),
        ("sbin", 0o120777, (0, 0), b"bin"),
        ("dev", 0o040755, (0, 0), b""),
        ("dev/console", 0o020600, (5, 1), b""),
    ]


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.binary(max_size=50), max_size=8))
def test_whatever_is_put_in_comes_out(files: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    with CpioWriter(stream) as archive:
        for name, content in files.items():
            archive.file(name, content)
    assert {name: content for name, _, _, content in entries(stream.getvalue())} == files


def test_a_tree_comes_sorted_and_without_what_is_left_out(tmp_path: Path) -> None:
    for name in ("b", "a", "doc/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "c").symlink_to("a")
    stream = io.BytesIO()
    with CpioWriter(stream) as archive:
        archive.tree(tmp_path, at="usr", leave_out=["doc"])
    assert [name for name, *_ in entries(stream.getvalue())] == ["usr", "usr/a", "usr/b", "usr/c"]


def test_an_archive_that_failed_has_no_end() -> None:
    stream = io.BytesIO()
    with pytest.raises(KeyError), CpioWriter(stream):
        raise KeyError
    assert b"TRAILER" not in stream.getvalue()
