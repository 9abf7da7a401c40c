"""What this project's own drivers need in a guest: NumPy and Numba for the guest's Python, and vfwire itself.

The interpreter is Debian's. The wheels are PyPI's, of the versions that run here, fetched by pip, which checks their
hashes against the index, and kept in the user's cache.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import vfwire
from vfwire.errors import UnsupportedMachine
from vfwire.guests.cache import cache_directory, held
from vfwire.guests.image import Image, build
from vfwire.guests.packages import Package

PACKAGES = ("python3", "libstdc++6")
WHEELS = ("numpy", "numba", "llvmlite")
_SITE, _HOME = "/opt/python", "/opt/vfwire"
PLATFORMS = (
    "manylinux2014_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_28_x86_64",
)
_SECONDS = 600.0


def build_with_python(
    out: Path, extra: tuple[str, ...] = (), progress: Callable[[str], None] = lambda _text: None
) -> Image:
    """`image.build` with all of it inside, where Python finds it by itself.

    Raises what that raises, and UnsupportedMachine where pip does not bring the wheels.
    """

    def trees(packages: Iterable[Package]) -> dict[str, Path]:
        files = _files(python_version(package.name for package in packages), progress)
        search_path = cache_directory("python") / "vfwire.pth"
        search_path.write_text(f"{_SITE}\n{_HOME}\n")
        return {**files, "/usr/lib/python3/dist-packages/vfwire.pth": search_path}

    return build(out, (*PACKAGES, *extra), progress, trees)


def _files(version: str, progress: Callable[[str], None]) -> dict[str, Path]:
    pins = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    site = cache_directory("python") / "-".join([version, *(pin.replace("==", "-") for pin in pins)])
    with held(site.parent):
        if not site.is_dir():
            progress(f"fetching NumPy and Numba for the guest's Python {version}")
            _fetch(version, pins, site)
    return {_SITE: site, f"{_HOME}/vfwire": Path(vfwire.__file__).parent}


def python_version(packages: Iterable[str]) -> str:
    """ "3.13", from the names of an image's packages. Raises UnsupportedMachine for one without Python."""
    for name in packages:
        if found := re.fullmatch(r"python(3\.\d+)", name):
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
