"""Python in an image, compiled before it gets there: an emulated guest is some twenty times slower, and would compile
all that it imports at each start.

The interpreter is the image's own, run here through its own loader. What it leaves is taken as it is, whatever the
times of the sources say: in an initrd they are all zero.
"""

import os
import re
import subprocess
from pathlib import Path

from vfwire.errors import VfwireError

_NAME = re.compile(r"python3\.\d+")
_LIBRARIES = ("usr/lib/x86_64-linux-gnu",)
_SECONDS = 600.0


def compile_python(root: Path, folders: list[Path]) -> None:
    """Compile what lies below `root` in its interpreter's library and in `folders`. Nothing where it has none."""
    for interpreter in sorted((root / "usr" / "bin").glob("python3.*")):
        if _NAME.fullmatch(interpreter.name):
            _compile(root, interpreter, [root / "usr" / "lib" / interpreter.name, *folders])


def _compile(root: Path, interpreter: Path, folders: list[Path]) -> None:
    libraries = ":".join(str(root / folder) for folder in _LIBRARIES)
    command = [
        str(root / "usr/lib64/ld-linux-x86-64.so.2"),
        "--library-path",
        libraries,
        str(interpreter),
        "-I",
    ]
    command += ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(root)]
    command += ["-p", "/", *(str(folder) for folder in folders if folder.is_dir())]
    environment = {**os.environ, "PYTHONHOME": str(root / "usr")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_SECONDS, env=environment
    )
    if (
        "SyntaxError" not in done.stdout and done.returncode != 0
    ):  # some packages carry files for other versions
        raise VfwireError(f"{interpreter.name} does not compile: {done.stderr.strip()[-200:]}", "report this")
