import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from tools import make_venv

WHEEL = b"a wheel"
PAGE = f'<a href="../../files/pip-1.0-py3-none-any.whl#sha256=x">old</a><a href="../../f/{make_venv.PIP_WHEEL}#y">'
INDEX = "https://index.example/simple"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses asked for, in order; a stand-in for the package index answers them."""
    addresses: list[str] = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        addresses.append(address)
        return io.BytesIO(PAGE.encode() if address.endswith("/") else WHEEL)

    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    monkeypatch.setattr(make_venv.urllib.request, "urlopen", answer)
    monkeypatch.setattr(make_venv, "PIP_SHA256", hashlib.sha256(WHEEL).hexdigest())
    return addresses


def test_pip_comes_from_the_index_as_pinned(asked: list[str], tmp_path: Path) -> None:
    wheel = make_venv.fetch_pip(tmp_path)
    assert wheel.read_bytes() == WHEEL
    assert asked == [f"{INDEX}/pip/", f"https://index.example/f/{make_venv.PIP_WHEEL}"]


@pytest.mark.usefixtures("asked")
def test_another_pip_than_the_pinned_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(make_venv, "PIP_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="not the pinned one"):
        make_venv.fetch_pip(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("asked")
def test_an_index_without_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(make_venv, "PIP_WHEEL", "pip-0.0-none.whl")
    with pytest.raises(ValueError, match=r"index\.example/simple/pip/ does not list"):
        make_venv.fetch_pip(tmp_path)


def test_a_failure_is_one_line_with_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(_address: str, timeout: float) -> io.BytesIO:
        raise OSError("no route")

    monkeypatch.setattr(make_venv, "find_spec", lambda _name: None)
    monkeypatch.setattr(make_venv.urllib.request, "urlopen", no_network)
    monkeypatch.setattr(sys, "argv", ["make_venv.py", str(tmp_path / "venv")])
    message = make_venv.main()
    assert message is not None and "no route; install it by hand: apt-get install python3-venv" in message
    assert "\n" not in message


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(make_venv, "OLDEST", (99, 0))
    monkeypatch.setattr(sys, "argv", ["make_venv.py", str(tmp_path / "venv")])
    assert "too old" in (make_venv.main() or "")


def test_a_half_made_environment_is_not_whole(tmp_path: Path) -> None:
    assert not make_venv.is_whole(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "half")], check=True)
    assert not make_venv.is_whole(tmp_path / "half")
