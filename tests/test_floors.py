"""Imports go down only: every module's imports, read from its source, against the table of floors."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "vfwire"

# Who may import whom, besides itself and errors.py. One row a package, lowest floor first.
BOTTOM = {"layouts", "memory"}
CARRIERS = BOTTOM | {"pci", "bus", "datapath"}
MIDDLE = CARRIERS | {"devices", "drivers"}
UPPER = MIDDLE | {"paths", "guests"}
MAY_IMPORT: dict[str, set[str]] = {
    "layouts": set(),
    "memory": {"layouts"},
    "datapath": BOTTOM,
    "pci": BOTTOM,
    "bus": BOTTOM | {"pci"},
    "devices": CARRIERS,
    "drivers": CARRIERS,
    "paths": MIDDLE,
    "guests": MIDDLE | {"paths"},
    "measure": UPPER,
    "checks": UPPER,
    "cli": UPPER | {"measure", "checks"},
}
OPEN_BOTH = {"paths", "guests"}
MODULES = sorted(SOURCE.rglob("*.py"))


def imported_packages(source: str) -> set[str]:
    """The packages of vfwire that a module imports, anywhere in it; "." for a relative import."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.add(".")
            elif node.module == "vfwire":
                names = [f"vfwire.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("vfwire.")}
    return found


def violations(package: str, source: str) -> list[str]:
    """What is wrong with the imports of a module in `package` ("" for one directly in vfwire)."""
    imports = imported_packages(source)
    wrong = ["a relative import"] if "." in imports else []
    allowed = MAY_IMPORT.get(package, set()) | {package, "errors", ".", "__version__"}
    wrong += [f"{package} imports {other}" for other in sorted(imports - allowed)]
    if {"devices", "drivers"} <= imports and package not in OPEN_BOTH:
        wrong.append(f"{package} opens both a device and a driver")
    return wrong


def package_of(module: Path) -> str:
    parts = module.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else ""


def test_every_package_stands_on_a_floor() -> None:
    packages = {package_of(module) for module in MODULES} - {""}
    assert {"layouts", "memory", "pci", "datapath", "devices", "drivers"} <= packages
    assert packages <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_only(module: Path) -> None:
    assert violations(package_of(module), module.read_text()) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text()))


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("devices", "from vfwire.drivers.verbs import Pool"),
        ("drivers", "import vfwire.devices.card"),
        ("datapath", "from vfwire.pci.msix import MsixTable"),
        ("pci", "from vfwire.bus import vfio_user"),
        ("layouts", "def f():\n    from vfwire.memory import words"),
        ("bus", "from vfwire import datapath"),
        ("pci", "from .msix import MsixTable"),
        ("measure", "from vfwire.devices import card\nfrom vfwire.drivers import verbs"),
        ("cli", "from vfwire.devices import card\nfrom vfwire.drivers import verbs"),
        ("", "from vfwire.layouts import pci"),
    ],
)
def test_a_broken_floor_would_be_found(package: str, source: str) -> None:
    assert violations(package, source) != []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("bus", "from vfwire.pci.endpoint import Endpoint\nfrom vfwire.errors import BadAccess"),
        ("paths", "from vfwire.devices import card\nfrom vfwire.drivers import verbs"),
        ("devices", "import numpy\nfrom vfwire.devices.card import Card\nfrom vfwire.datapath import port"),
        ("cli", "from vfwire.measure import report"),
    ],
)
def test_what_is_allowed_is_not_found(package: str, source: str) -> None:
    assert violations(package, source) == []
