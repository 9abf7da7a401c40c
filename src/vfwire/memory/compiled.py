"""How the per-packet loops are compiled: one decorator, one cache that cannot lie.

Numba's own cache watches only the file of the function it compiles; when a constant that it imported
changes, stale machine code comes back. So the cache directory is named by a hash of everything that a
compiled loop can import: `layouts/`, `memory/` and `datapath/`, with the Numba and NumPy versions.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config

from vfwire.memory.fragments import EntryPipeline, FragmentPipeline, compile_once

_PACKAGE = Path(__file__).resolve().parent.parent
_SOURCES = ("layouts", "memory", "datapath")

_FRAGMENT: dict[str, Any] = {
    "pipeline_class": FragmentPipeline,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

F = TypeVar("F", bound=Callable[..., Any])


def cache_root() -> Path:
    """The directory that holds one folder for each version of the compiled sources."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vfwire"


def sources_digest() -> str:
    """A hash of all that compiled code can depend on; it names the cache folder."""
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__}".encode())
    for folder in _SOURCES:
        for path in sorted((_PACKAGE / folder).glob("*.py")):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    return cache_root() / sources_digest()


def jit_disabled() -> bool:
    """True under NUMBA_DISABLE_JIT=1, where the same loops run as plain Python (for coverage)."""
    return bool(config.DISABLE_JIT)


def _fields_first(record: np.record, name: str) -> Any:
    fields = np.void.__getattribute__(record, "dtype").fields
    if fields is not None and name in fields:
        return np.void.__getitem__(record, name)
    return np.void.__getattribute__(record, name)


if jit_disabled():
    # A NumPy record has a `size`, `flags` and `base` of its own, which hide the fields of those names; a Numba
    # record has fields only. Uncompiled loops are to see what compiled ones see.
    np.record.__getattribute__ = _fields_first  # type: ignore[method-assign]

if not os.environ.get("NUMBA_CACHE_DIR"):
    config.CACHE_DIR = str(cache_directory())


def compiled(function: F) -> F:
    """Decorate a loop: compiled at first call, cached on disk, run without the GIL, C division."""
    decorate: Callable[[F], F] = numba.njit(
        cache=True, nogil=True, error_model="numpy", pipeline_class=EntryPipeline
    )
    return decorate(function)


def inlined(function: F) -> F:
    """Decorate a small function that is compiled into its callers (LLVM decides how)."""
    decorate: Callable[[F], F] = numba.njit(nogil=True, error_model="numpy", **_FRAGMENT)
    return _once(decorate(function))


def always_inlined(function: F) -> F:
    """Decorate a function on every packet's path: compiled into its callers whatever LLVM thinks of it."""
    decorate: Callable[[F], F] = numba.njit(nogil=True, error_model="numpy", forceinline=True, **_FRAGMENT)
    return _once(decorate(function))


def _once(function: F) -> F:
    if not jit_disabled():
        compile_once(function)
    return function


def is_cached(function: Any) -> bool:
    """True when machine code for `function` is on disk already (so that a first call is quick)."""
    stats = getattr(function, "_cache", None)
    path = getattr(stats, "cache_path", None)
    name = getattr(function, "__name__", "")
    return path is not None and any(Path(path).glob(f"*{name}-*.nbi"))
