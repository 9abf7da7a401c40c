"""Whether this system's kernel has a driver: loaded, built in, there to be loaded, or missing (see depmod(8))."""

from enum import StrEnum
from pathlib import PurePosixPath

from vfwire.checks.tree import Tree


class ModuleState(StrEnum):
    LOADED = "loaded"
    BUILT_IN = "built in"
    AVAILABLE = "available"
    MISSING = "missing"
    UNKNOWN = "unknown"  # no /lib/modules of this kernel, as in a container


def module_state(tree: Tree, name: str) -> ModuleState:
    """What the kernel that runs has of the module `name`; dashes and underscores are the same to it."""
    name = name.replace("-", "_")
    release = tree.text("proc/sys/kernel/osrelease")
    if tree.exists(f"sys/module/{name}/initstate"):
        return ModuleState.LOADED
    if release is None or "/" in release:
        return ModuleState.UNKNOWN
    where = f"lib/modules/{release}"
    if name in _names(tree, f"{where}/modules.builtin"):
        return ModuleState.BUILT_IN
    there = _names(tree, f"{where}/modules.dep")
    if name in there:
        return ModuleState.AVAILABLE
    return ModuleState.MISSING if there else ModuleState.UNKNOWN


def _names(tree: Tree, path: str) -> set[str]:
    """Modules that a list names, one a line: kernel/drivers/net/x.ko.xz: what it needs."""
    files = (PurePosixPath(line.split(":")[0]).name for line in (tree.text(path) or "").splitlines())
    return {file.split(".ko")[0].replace("-", "_") for file in files}


def how_to_load(tree: Tree, name: str) -> str:
    """The next step that makes a driver bind, half a sentence."""
    state = module_state(tree, name)
    if state is ModuleState.AVAILABLE:
        return f"load its driver: modprobe {name}"
    if state is ModuleState.MISSING:
        return f"this kernel has no {name}: install one that has it, or build the module"
    if state is ModuleState.UNKNOWN:
        return f"load its driver: modprobe {name} (whether this kernel has it cannot be seen from here)"
    return f"{name} is {state}, and does not hold the device: dmesg | grep {name} tells why"
