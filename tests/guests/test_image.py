"""Packages and the guest made of them: what is fetched, what is pinned, and that it is the same each time."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.guests.guest_kit import guest_image
from vfwire.errors import BadInput, UnsupportedMachine, VfwireError
from vfwire.guests import packages
from vfwire.guests.image import Image, build
from vfwire.guests.packages import Archive, unpack

needs_the_archive = [pytest.mark.guests, pytest.mark.timeout(600)]


def make_package(folder: Path, files: dict[str, str]) -> Path:
    """A .deb with these files, by dpkg-deb."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: x\n"
    )
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    package = folder / "x.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, capture_output=True)
    return package


def test_all_of_a_package_lands_below_usr(tmp_path: Path) -> None:
    unpack([make_package(tmp_path, {"bin/old": "a", "usr/bin/new": "b"})], tmp_path / "root")
    assert sorted(path.name for path in (tmp_path / "root" / "usr" / "bin").iterdir()) == ["new", "old"]
    assert (tmp_path / "root" / "bin").is_symlink()


def test_a_broken_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.deb").write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"cannot unpack bad\.deb"):
        unpack([tmp_path / "bad.deb"], tmp_path / "root")


def test_what_apt_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "KEYRING", tmp_path / "none")
    with pytest.raises(UnsupportedMachine, match="debian-archive-keyring"):
        Archive()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedMachine, match="apt-get is missing"):
        Archive()


def test_an_archive_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(packages.MIRROR_VARIABLE, "http://127.0.0.1:9/debian")
    monkeypatch.setattr(packages, "_SECURITY", "http://127.0.0.1:9/security")
    with pytest.raises(VfwireError, match=r"apt-get: .*127\.0\.0\.1.*; look at the network"):
        Archive().fetch(["busybox-static"])


class TestBuilt:
    pytestmark = needs_the_archive

    def test_the_manifest_pins_every_package_and_every_file(self) -> None:
        image = guest_image()
        manifest = image.manifest
        named = {package["name"]: package for package in manifest["packages"]}
        assert {"busybox-static", "ethtool", "iproute2", "iperf3", "libc6"} <= named.keys()
        assert all(re.fullmatch("[0-9a-f]{64}", package["sha256"]) for package in named.values())
        assert re.fullmatch(r"6\.12\.\d+\+deb13-cloud-amd64", manifest["kernel"])
        assert manifest["files"].keys() == {"vmlinuz", "vmlinux", "initrd"} and image.whole

    @pytest.mark.soak
    def test_the_same_packages_give_the_same_bytes(self, tmp_path: Path) -> None:
        first, second = (build(tmp_path / name) for name in ("a", "b"))
        assert first.manifest == second.manifest and first.whole and second.whole

    def test_an_image_that_was_changed_is_not_whole(self, tmp_path: Path) -> None:
        for name in ("vmlinuz", "vmlinux", "initrd", "manifest.json"):
            (tmp_path / name).write_bytes((guest_image().directory / name).read_bytes())
        assert Image(tmp_path).whole
        (tmp_path / "initrd").write_bytes(b"")
        assert not Image(tmp_path).whole
        (tmp_path / "manifest.json").write_text(json.dumps([]))
        assert not Image(tmp_path).whole
