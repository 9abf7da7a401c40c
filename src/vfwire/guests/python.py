"""What this project's own drivers need in a guest: NumPy and Numba for the guest's Python, and vfwire itself.

The interpreter is Debian's (`PACKAGES`, for `cached_image`). The wheels are PyPI's, of the versions that run here,
fetched by pip, which checks their hashes against the index.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import vfwire
from vfwire.errors import UnsupportedMachine
from vfwire.guests.cache import cache_directory, held
from vfwire.guests.image import Image

PACKAGES = ("python3", "libstdc++6")
WHEELS = ("numpy", "numba", "llvmlite")
PATH = "/opt/python:/opt/vfwire"
"""PYTHONPATH in the guest."""
PLATFORMS = (
    "manylinux2014_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_28_x86_64",
)
_SECONDS = 600.0


def python_files(image: Image, progress: Callable[[str], None] = lambda _text: None) -> dict[str, Path]:
    """`Machine.files` for a guest of `image`, which has `PACKAGES` in it. Fetched once, then from the user's cache.

    Raises UnsupportedMachine where pip does not bring them.
    """
    version = python_version(image)
    pins = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    site = cache_directory("python") / "-".join([version, *(pin.replace("==", "-") for pin in pins)])
    with held(site.parent):
        if not site.is_dir():
            progress(f"fetching NumPy and Numba for the guest's Python {version}")
            _fetch(version, pins, site)
    return {"/opt/python": site, "/opt/vfwire/vfwire": Path(vfwire.__file__).parent}


def python_version(image: Image) -> str:
    """ "3.13", from the packages of an image. Raises UnsupportedMachine for one without Python."""
    for package in image.manifest["packages"]:
        if found := re.fullmatch(r"python(3\.\d+)", package["name"]):
            return found[1]
    raise UnsupportedMachine("this guest has no Python", f"build it with {' and '.join(PACKAGES)}")


def _fetch(version: str, pins: list[str], site: Path) -> None:
    with tempfile.TemporaryDirectory(dir=site.parent) as scratch:
        wheels, unpacked = Path(scratch) / "wheels", Path(scratch) / "site"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--python-version", version, "--implementation", "cp", "--dest", str(wheels), *pins]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise UnsupportedMachine(
                f"pip does not fetch {' '.join(pins)}: {reason}", "see if PyPI can be reached"
            )
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
        for tests in [*unpacked.rglob("tests")]:  # half of all files, and nobody runs them there
            shutil.rmtree(tests, ignore_errors=True)
        unpacked.rename(site)
