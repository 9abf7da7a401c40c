"""A small guest from Debian's packages: kernel and initramfs, made by an ordinary user without mounting anything.

The kernel, its modules and every tool are the distribution's; ours is `init.sh`. The manifest names each package with
its version and SHA256. The same packages and the same code give the same bytes.
"""

import json
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from vfwire.errors import BadInput, PermissionDenied, VfwireError
from vfwire.guests import cpio, packages
from vfwire.guests.cache import cache_directory, held
from vfwire.guests.kernel_program import kernel_program, starts_unpacked
from vfwire.guests.packages import Archive, Package, unpack
from vfwire.guests.precompile import compile_python

# Words for its kernel. Under software emulation they save half of the time to boot; none changes what a network
# driver does.
QUICK_BOOT = "quiet cryptomgr.notests=1 mitigations=off lsm= audit=0 nokaslr"

KERNEL, PROGRAM, INITRD, MANIFEST = "vmlinuz", "vmlinux", "initrd", "manifest.json"
PACKAGES = (
    "linux-image-cloud-amd64",
    "busybox-static",
    "dash",
    "bash",
    "ethtool",
    "iproute2",
    "iperf3",
    "iputils-ping",
    "pciutils",
    "kmod",
)

# Of the kernel's modules: what a guest of ours can meet, with all that these need.
_MODULES = re.compile(
    r"kernel/(drivers/(net|nvme|vfio|iommu|virtio|vdpa|misc/pvpanic|char/hw_random|block/virtio_blk|block/xen-blkfront"
    r"|ptp|pci|uio)|net/(core|8021q|ipv4|ipv6|bridge|802|sched|packet|netfilter)|fs/(ext4|squashfs|isofs|fat|overlayfs))"
)
_LEAVE_OUT = (
    "boot", "etc/init.d", "usr/lib/modules", "usr/lib/systemd", "usr/share/doc", "usr/share/man", "usr/share/locale",
    "usr/share/lintian", "usr/share/bug", "usr/share/info", "usr/share/bash-completion", "usr/share/zoneinfo",
    "usr/lib/x86_64-linux-gnu/gconv", "usr/share/perl5", "usr/share/doc-base", "usr/share/zsh", "var",
)  # fmt: skip
_COMPILED = "__pycache__"  # of this machine's Python: it differs from run to run, and the guest has another
_EMPTY = ("busybox", "dev", "proc", "sys", "run", "tmp", "root", "mnt")


Progress = Callable[[str], None]
Trees = Callable[[Sequence[Package]], Mapping[str, Path]]
"""What else goes into an image of these packages: files or directories by their path in the guest."""


@dataclass(frozen=True)
class Image:
    """A built guest: where its files are, and what is in it."""

    directory: Path

    @property
    def kernel(self) -> Path:
        return self.directory / KERNEL

    @property
    def program(self) -> Path:
        """The same kernel, unpacked: an emulated guest is spared doing it. Where there is none, the kernel."""
        program = self.directory / PROGRAM
        return program if program.is_file() else self.kernel

    @property
    def initrd(self) -> Path:
        return self.directory / INITRD

    @property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.directory / MANIFEST).read_text())
        return manifest

    @property
    def whole(self) -> bool:
        """The files are there and are what the manifest says."""
        try:
            return all(
                _digest(self.directory / name) == hash_ for name, hash_ in self.manifest["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # what stands there is no manifest
            return False


def build(
    out: Path,
    extra: tuple[str, ...] = (),
    progress: Progress = lambda _text: None,
    trees: Trees = lambda _packages: {},
) -> Image:
    """Make `out` hold a guest of the archive's present packages. extra: more packages by name.

    An image that is there already of the same packages and code is left as it is. Raises what `Archive` raises,
    PermissionDenied, BadInput.
    """
    progress("asking Debian's archive, and fetching what is new")
    files = Archive().fetch((*PACKAGES, *extra))
    added = trees(list(files))
    digests = {place: _tree_digest(source) for place, source in added.items()}
    key = _key(list(files), digests)
    image = Image(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if image.whole and image.manifest["key"] == key:
            return image
        with tempfile.TemporaryDirectory(prefix="vfwire-build-") as scratch:
            progress(f"unpacking {len(files)} packages")
            unpack(files.values(), Path(scratch))
            _add_trees(Path(scratch), added)
            progress("writing kernel and initramfs")
            _write(image, Path(scratch))
            _write_manifest(image, Path(scratch), key, files, digests)
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot write {error.filename}: {error.strerror}", "choose another --out"
        ) from error
    return image


def cached_image(extra: tuple[str, ...] = (), progress: Progress = lambda _text: None) -> Image:
    """The image of this code in the user's cache, built when it is not there; the archive is asked only then."""
    recipe = sha256(_recipe() + repr(extra).encode()).hexdigest()[:16]
    base = cache_directory("guests")
    with held(base):
        image = Image(base / recipe)
        return image if image.whole else build(image.directory, extra, progress)


def _recipe() -> bytes:
    """All that decides what an image holds, besides the packages."""
    here = Path(__file__).parent
    sources = (
        Path(__file__),
        *(
            here / name
            for name in ("cpio.py", "kernel_program.py", "packages.py", "precompile.py", "init.sh")
        ),
    )
    return b"".join(source.read_bytes() for source in sources)


def _key(found: list[Package], added: Mapping[str, str]) -> str:
    text = _recipe() + "".join([*(package.sha256 for package in found), *added.values()]).encode()
    return sha256(text).hexdigest()


def _tree_digest(source: Path) -> str:
    """Of a file, or of all that goes along of a directory."""
    if not source.is_dir():
        return _digest(source)
    found = sha256()
    for path in sorted(source.rglob("*")):
        if path.is_file() and _COMPILED not in path.parts:
            found.update(f"{path.relative_to(source)} {_digest(path)}\n".encode())
    return found.hexdigest()


def _add_trees(root: Path, added: Mapping[str, Path]) -> None:
    """Put them below `root`, and compile what Python there is."""
    for place, source in added.items():
        target = root / place.strip("/")
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(_COMPILED))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    compile_python(root, [root / place.strip("/") for place in added])


def _kernel(root: Path) -> Path:
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise BadInput(f"{len(kernels)} kernels came with the packages, not one", "report this")
    return kernels[0]


def _write(image: Image, root: Path) -> None:
    kernel = _kernel(root)
    version = kernel.name.removeprefix("vmlinuz-")
    modules = _select_modules(root, version)
    shutil.copyfile(kernel, image.kernel)
    program = kernel_program(kernel.read_bytes())
    if starts_unpacked(program):
        (image.directory / PROGRAM).write_bytes(program)
    else:
        (image.directory / PROGRAM).unlink(missing_ok=True)
    with image.initrd.open("wb") as stream, cpio.CpioWriter(stream) as archive:
        for name in _EMPTY:
            archive.directory(name)
        archive.character_device("dev/console", 5, 1)
        archive.file("init", (Path(__file__).parent / "init.sh").read_bytes(), 0o755)
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n")
        archive.file("etc/group", b"root:x:0:\n")
        archive.link("usr/bin/sh", "dash")
        archive.tree(root, leave_out=_LEAVE_OUT)
        archive.tree(modules, at=f"usr/lib/modules/{version}")


def _write_manifest(
    image: Image, root: Path, key: str, files: dict[Package, Path], added: dict[str, str]
) -> None:
    manifest = {
        "key": key,
        "kernel": _kernel(root).name.removeprefix("vmlinuz-"),
        "release": packages.RELEASE,
        "files": {
            name: _digest(image.directory / name)
            for name in (KERNEL, PROGRAM, INITRD)
            if (image.directory / name).exists()
        },
        "packages": [package.to_json() for package in files],
        "added": added,
    }
    (image.directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _select_modules(root: Path, version: str) -> Path:
    """A directory with the modules that the guest gets, unpacked and indexed."""
    source = root / "usr" / "lib" / "modules" / version
    every = {str(path.relative_to(source)): path for path in source.rglob("*.ko.xz")}
    for path in every.values():
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()
    _depmod(root, version)
    needs = dict(_dependencies(source / "modules.dep"))
    wanted = {name for name in needs if _MODULES.match(name)}
    wanted |= {other for name in wanted for other in needs[name]}
    for name in needs.keys() - wanted:
        (source / name).unlink()
    _depmod(root, version)
    return source


def _dependencies(index: Path) -> list[tuple[str, list[str]]]:
    """Each module with all that it needs, near and far (modules.dep(5))."""
    lines = (line.partition(":") for line in index.read_text().splitlines())
    return [(name, needs.split()) for name, _, needs in lines]


def _depmod(root: Path, version: str) -> None:
    """Index the modules with the kmod that came with them, through its own loader: the system may have none."""
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    loader = root / "usr" / "lib64" / "ld-linux-x86-64.so.2"
    command = [
        str(loader), "--argv0", "depmod", "--library-path", str(libraries), str(root / "usr" / "bin" / "kmod"),
        "--basedir", str(root), version,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except OSError as error:
        raise VfwireError(
            f"depmod does not run: {error.strerror}", "build the guest on an x86-64 machine"
        ) from error
    if done.returncode != 0:
        raise VfwireError(f"depmod: {done.stderr.strip()}", "report this")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
