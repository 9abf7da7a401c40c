"""Make the virtual environment that the Makefile works in. Needs nothing but Python's standard library.

Debian's python3 lacks `ensurepip` until python3-venv is installed. Then pip itself is fetched from the package index,
checked against the hash below, and installed from its own wheel.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from importlib.util import find_spec
from pathlib import Path

PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
OLDEST = (3, 11)
NEXT_STEP = "install it by hand: apt-get install python3-venv"


def fetch_pip(folder: Path) -> Path:
    """Download the pinned pip wheel into `folder`. Raises OSError or ValueError when it cannot be had as pinned."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    with urllib.request.urlopen(index, timeout=30) as answer:
        page = answer.read().decode()
    found = re.search(rf'href="([^"#]*{re.escape(PIP_WHEEL)})', page)
    if not found:
        raise ValueError(f"{index} does not list {PIP_WHEEL}")
    with urllib.request.urlopen(urllib.parse.urljoin(index, found[1]), timeout=60) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        raise ValueError(f"{PIP_WHEEL} from {index} is not the pinned one")
    path = folder / PIP_WHEEL
    path.write_bytes(wheel)
    return path


def is_whole(venv: Path) -> bool:
    """True when the environment's own pip starts (a half-made one, or one of a Python that is gone, does not)."""
    python = venv / "bin" / "python"
    if not python.exists():
        return False
    command = [str(python), "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def make(venv: Path) -> None:
    """Create `venv` with pip in it, over whatever stood there."""
    shutil.rmtree(venv, ignore_errors=True)
    if find_spec("ensurepip"):
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        return
    print("this Python has no ensurepip: fetching pip by itself", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_pip(Path(folder))
        python = str(venv / "bin" / "python")
        install = [python, f"{wheel}/pip", "install", "--quiet", "--no-index", "--no-compile", str(wheel)]
        subprocess.run(install, check=True)


def main() -> str | None:
    """Returns the one line to print on failure."""
    venv = Path(sys.argv[1])
    if sys.version_info < OLDEST:
        return f"Python {sys.version.split()[0]} is too old, 3.11 is wanted: make PYTHON=/path/to/python3.11"
    if is_whole(venv):
        return None
    try:
        make(venv)
    except (OSError, ValueError, subprocess.CalledProcessError, urllib.error.URLError) as error:
        return f"cannot set up {venv}: {error}; {NEXT_STEP}"
    return None


if __name__ == "__main__":
    sys.exit(main())
