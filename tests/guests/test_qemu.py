"""Finding a QEMU: by programs that answer as one would."""

from pathlib import Path

import pytest

from vfwire.errors import UnsupportedMachine
from vfwire.guests.qemu import PROGRAM, find_qemu


def make(folder: Path, version: str, devices: str) -> Path:
    folder.mkdir()
    path = folder / PROGRAM
    path.write_text(
        f"#!/bin/sh\ncase $1 in --version) echo \"QEMU emulator version {version}\" ;; *) echo '{devices}' ;; esac\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("VFWIRE_QEMU", raising=False)


def test_the_first_fit_one_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make(tmp_path / "old", "7.2.0", 'name "vfio-pci"')
    new = make(tmp_path / "new", "10.1.0", 'name "vfio-user-pci", bus PCI')
    monkeypatch.setenv("PATH", f"{old.parent}:{new.parent}:/usr/bin:/bin")
    assert (find_qemu().path, find_qemu().version) == (new, "10.1.0")


def test_one_too_old_is_named_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make(tmp_path / "old", "7.2.0", 'name "vfio-pci"')
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    with pytest.raises(UnsupportedMachine, match=r"version 7\.2\.0, no vfio-user-pci.*vfwire guest qemu"):
        find_qemu()


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMachine, match=r"is on PATH; get one with `vfwire guest qemu`"):
        find_qemu()


def test_what_is_named_is_taken_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = make(tmp_path / "fit", "10.1.0", 'name "vfio-user-pci", bus PCI')
    assert find_qemu(fit).path == fit
    monkeypatch.setenv("VFWIRE_QEMU", str(fit))
    assert find_qemu().path == fit
    with pytest.raises(UnsupportedMachine, match="there is no"):
        find_qemu(tmp_path / "none")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/false\n")
    broken.chmod(0o755)
    with pytest.raises(UnsupportedMachine, match="does not start"):
        find_qemu(broken)
