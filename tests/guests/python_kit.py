"""This Python and this vfwire inside a guest: exactly the modules that some commands import, already compiled.

A guest under software emulation is some twenty times slower: to compile all of a library there would take minutes. So
the commands run here first, and what they imported goes along, with the interpreter and the libraries that it links.
"""

import json
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfwire.guests.guest import Guest

HOME = "/opt/python"
_LIBRARY = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
_LOADER = "ld-linux-x86-64.so.2"
# Runs commands and tells the files of all modules; a command may end as it likes.
_COLLECT = """
import contextlib, io, json, sys
from vfwire.cli import run
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run(words)
specs = [getattr(module, "__spec__", None) for module in sys.modules.values()]
print(json.dumps([spec.origin for spec in specs if spec and spec.origin]))
"""

_STARTED = f"{HOME}/lib/{_LOADER} --library-path {HOME}/lib {HOME}/bin/python"
_PYTHON = f"PYTHONHOME={HOME} PYTHONDONTWRITEBYTECODE=1 {_STARTED}"
_RUN_AT = f"{HOME}/run_inside.py"
# Each command's exit code and what it printed, as one line of JSON.
_RUN = """
import contextlib, io, json, sys
from vfwire.cli import run
done = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    done.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(done))
"""
INSIDE_SECONDS = 300.0  # a guest shares the cores with whatever else runs


def guest_python(directory: Path, commands: Iterable[Iterable[str]]) -> dict[str, Path]:
    """Stage it all in `directory`; gives what `Machine.files` takes. commands: words after `vfwire`."""
    script = [sys.executable, "-c", _COLLECT, json.dumps([list(words) for words in commands])]
    told = subprocess.run(script, capture_output=True, text=True, check=True, timeout=120).stdout
    modules = [Path(origin) for origin in json.loads(told) if Path(origin).is_file()]
    for module in modules:
        _stage(module, directory / _LIBRARY)
    (directory / "bin").mkdir()
    interpreter = Path(sys.executable).resolve()
    shutil.copy2(interpreter, directory / "bin" / "python")
    for library in _libraries([interpreter, *(module for module in modules if ".so" in module.suffixes)]):
        shutil.copy2(library, directory / "lib" / library.name)
    (directory / Path(_RUN_AT).name).write_text(_RUN)
    return {HOME: directory}


def _stage(module: Path, library: Path) -> None:
    """At the place that it has in this Python; a .py compiled, to be taken as it is whatever its time."""
    for root in sorted({Path(path) for path in sys.path if path}, key=lambda path: -len(path.parts)):
        if module.is_relative_to(root):
            inside = "lib-dynload" if root.name == "lib-dynload" else "site-packages" if _added(root) else ""
            place = library / inside / module.relative_to(root)
            break
    else:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(module, place)
    if module.suffix == ".py":
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(place), doraise=True, invalidation_mode=mode)


def _added(root: Path) -> bool:
    """A directory of sys.path that is not the standard library's."""
    return root.resolve() != Path(sysconfig.get_path("stdlib")).resolve()


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """The shared libraries that these link, and the loader (ldd(1))."""
    found: set[Path] = set()
    for binary in binaries:
        lines = subprocess.run(
            ["ldd", str(binary)], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        for line in lines:
            words = line.split()
            path = words[2] if len(words) > 2 and words[1] == "=>" else words[0] if words else ""
            if path.startswith("/") and Path(path).is_file():
                found.add(Path(path))
    return found


@dataclass(frozen=True)
class Done:
    """How a command of ours ended in the guest. told: its JSON, where it printed some."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> Any:
        return json.loads(self.out)


def run_inside(guest: Guest, *commands: str) -> list[Done]:
    """`vfwire COMMAND` for each, one after the other in one process of the guest: to start one takes ten seconds."""
    words = json.dumps([command.split() for command in commands])
    printed = guest.check(f"{_PYTHON} {_RUN_AT} '{words}'", timeout=INSIDE_SECONDS)
    return [Done(**one) for one in json.loads(printed.splitlines()[-1])]
