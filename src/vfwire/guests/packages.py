"""Debian packages for an ordinary user: resolved, fetched and checked by apt in a directory of our own, then unpacked.

apt checks the signature of the release, the release's hashes of its lists, and the lists' hashes of each package
(apt-secure(8)). The machine's own package state is neither read nor changed: it need not even be the same release.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from urllib.parse import unquote

from vfwire.errors import BadInput, UnsupportedMachine, VfwireError, WaitTimeout
from vfwire.guests.cache import cache_directory, held

RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE = "VFWIRE_DEBIAN_MIRROR"
_MIRROR = "http://deb.debian.org/debian"
_SECURITY = "http://deb.debian.org/debian-security"
_TOOLS = ("apt-get", "apt-cache", "dpkg-deb")
_LISTS_AGE_SECONDS = 12 * 3600
_SECONDS = 280.0

# What runs when a package is installed on a system, and has no work where it is only unpacked.
NOT_NEEDED = (
    "adduser", "base-passwd", "debconf", "dpkg", "init-system-helpers", "initramfs-tools", "install-info",
    "libcap2-bin", "libpam-modules", "libpam-runtime", "linux-base", "passwd", "perl-base", "sensible-utils",
    "systemd", "tar",
)  # fmt: skip


@dataclass(frozen=True)
class Package:
    """A package as the archive has it. file: apt's name for it. sha256: hexadecimal, from the signed lists."""

    name: str
    version: str
    architecture: str
    sha256: str
    uri: str
    file: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


class Archive:
    """A view of Debian's archive. newer: prefer the release's backports. architecture: Debian's name ("amd64").

    Raises UnsupportedMachine where apt or Debian's keys are missing."""

    def __init__(self, *, newer: bool = False, architecture: str = "amd64") -> None:
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing:
            raise UnsupportedMachine(
                f"{missing[0]} is missing: packages are fetched with apt",
                "install apt and dpkg, or do this on a Debian or Ubuntu machine",
            )
        if not KEYRING.exists():
            raise UnsupportedMachine(
                f"{KEYRING} is missing: it holds the keys that Debian signs with",
                "install the package debian-archive-keyring",
            )
        self._directory = cache_directory("apt", architecture)
        self._packages = cache_directory("packages")
        self._options = self._configure(architecture)
        if newer:
            self._options += ["-o", f"APT::Default-Release={RELEASE}-backports"]

    def fetch(self, names: Sequence[str]) -> dict[Package, Path]:
        """`names` with all that they depend on, as files. Raises VfwireError with apt's own words, WaitTimeout."""
        with held(self._directory):
            self._update()
            wanted = self._resolve(names)
            if any(not self._is_whole(package) for package in wanted):
                self._apt("install", "--download-only", "--yes", *names)
        broken = [package.name for package in wanted if not self._is_whole(package)]
        if broken:
            raise BadInput(f"{broken[0]} did not arrive as the archive has it", "try again")
        return {package: self._file(package) for package in wanted}

    def _file(self, package: Package) -> Path:
        return self._packages / package.file

    def _is_whole(self, package: Package) -> bool:
        try:
            with self._file(package).open("rb") as file:
                return file_digest(file, "sha256").hexdigest() == package.sha256
        except FileNotFoundError:
            return False

    def _resolve(self, names: Sequence[str]) -> list[Package]:
        """As apt would install them on an empty system, in a fixed order."""
        empty = self._directory / "empty"
        (empty / "partial").mkdir(parents=True, exist_ok=True)
        said = self._apt(
            "install", "--print-uris", "-qq", "--yes", "-o", f"Dir::Cache::archives={empty}", *names
        )
        found = []
        for line in said.splitlines():
            if line.startswith("'"):
                uri, file, _size, digest = line.split()
                name, version, architecture = unquote(file.removesuffix(".deb")).split("_")
                kind, _, value = digest.partition(":")
                if kind != "SHA256":
                    raise BadInput(f"the archive gives no SHA256 of {name}", "choose another mirror")
                found.append(Package(name, version, architecture, value, uri.strip("'"), file))
        return sorted(found, key=lambda package: package.name)

    def _update(self) -> None:
        """Fetch the archive's lists, unless they are of today and of this mirror."""
        stamp, sources = self._directory / "updated", self._directory / "sources.list"
        wanted = sources.read_text()
        fresh = stamp.exists() and stamp.read_text() == wanted
        if fresh and time.time() - stamp.stat().st_mtime < _LISTS_AGE_SECONDS:
            return
        self._apt("update", "-o", "APT::Update::Error-Mode=any")
        stamp.write_text(wanted)

    def _apt(self, *arguments: str) -> str:
        command = ["apt-get", "-q", *self._options, *arguments]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_SECONDS, env=environment,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise WaitTimeout(f"apt-get was not done after {_SECONDS:g} s", "look at the network") from error
        if done.returncode != 0:
            raise VfwireError(
                f"apt-get: {_first_error(done.stderr)}",
                f"look at the network, or set {MIRROR_VARIABLE} to a mirror near you",
            )
        return done.stdout

    def _configure(self, architecture: str) -> list[str]:
        """Make what apt wants to find, and give the options that lead it there."""
        here = self._directory
        for part in ("lists/partial", "state", "cache", "none"):
            (here / part).mkdir(parents=True, exist_ok=True)
        (self._packages / "partial").mkdir(exist_ok=True)
        (here / "status").write_text("".join(_as_installed(name) for name in NOT_NEEDED))
        mirror = os.environ.get(MIRROR_VARIABLE, _MIRROR)
        places = [(mirror, f"{RELEASE}{suffix}") for suffix in ("", "-updates", "-backports")]
        places.append((_SECURITY, f"{RELEASE}-security"))
        _write_if_changed(
            here / "sources.list",
            "".join(f"deb [signed-by={KEYRING}] {uri} {suite} main\n" for uri, suite in places),
        )
        # The machine's own apt.conf.d stays in force: it may name a proxy.
        settings = {
            "Dir::State": here / "state",
            "Dir::State::lists": here / "lists",
            "Dir::State::status": here / "status",
            "Dir::Cache": here / "cache",
            "Dir::Cache::archives": self._packages,
            "Dir::Etc::sourcelist": here / "sources.list",
            "Dir::Etc::sourceparts": here / "none",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": here / "none",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "",
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "30",
            "Debug::NoLocking": "true",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _as_installed(name: str) -> str:
    return (
        f"Package: {name}\nStatus: install ok installed\nVersion: 99:0\nArchitecture: all\nMulti-Arch: foreign\n"
        "Maintainer: nobody <nobody@localhost>\nDescription: not needed where packages are only unpacked\n\n"
    )


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _first_error(said: str) -> str:
    errors = [line[2:].strip() for line in said.splitlines() if line.startswith("E:")]
    return errors[0] if errors else (said.strip().splitlines() or ["failed without a word"])[-1]


def unpack(files: Iterable[Path], root: Path) -> None:
    """Unpack packages over each other below `root`, without running anything of theirs. Raises BadInput."""
    root.mkdir(parents=True, exist_ok=True)
    for name in (
        "bin",
        "sbin",
        "lib",
        "lib64",
    ):  # one /usr for all, as in the distribution since its release 12
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for file in files:
        # By tar and not by `dpkg-deb --extract`, which would put directories in place of those links.
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE) as source:
            tar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
            done = subprocess.run(tar, stdin=source.stdout, capture_output=True, text=True, check=False)
        if done.returncode != 0 or source.returncode != 0:
            raise BadInput(f"cannot unpack {file.name}: {done.stderr.strip()}", "remove it, and try again")
