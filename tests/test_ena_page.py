"""docs/ena.md says of each register, command, feature and event what the code says, and names tests that exist."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from vfwire.devices import ena_features, ena_registers, ena_statistics
from vfwire.devices.ena_options import CAPABILITIES, CAPABILITY_NAMES, GROUPS
from vfwire.layouts import ena_admin as admin
from vfwire.layouts.ena_registers import REGISTERS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ena.md").read_text()
DRIVER = "".join(path.read_text() for path in (ROOT / "src/vfwire/drivers").glob("ena*.py"))


def _yes(has: bool) -> str:
    return "yes" if has else "no"


def _features() -> dict[str, tuple[str, str]]:
    ways = (("get", ena_features._READERS), ("set", ena_features._WRITERS))
    return {
        name: (str(number), ", ".join(way for way, table in ways if number in table) or "no")
        for number, name in admin.FEATURE_NAMES.items()
    }


def _numbered(names: Mapping[int, str], has: object) -> dict[str, tuple[str, str]]:
    assert isinstance(has, (frozenset, dict))
    return {name: (str(number), _yes(number in has)) for number, name in names.items()}


TABLES = {  # heading: name -> (number, what the device has)
    "Registers (BAR0)": {
        row.name: (
            f"{row.offset:#x}",
            "yes" if row.name in {**ena_registers._READERS, **ena_registers._WRITERS} else "reads 0",
        )
        for row in REGISTERS
    },
    "Admin commands": _numbered(admin.OPCODE_NAMES, admin.OPCODE_NAMES),
    "Features": _features(),
    "Statistics": _numbered(admin.STATS_NAMES, ena_statistics._READERS),
    "Capabilities": _numbered(CAPABILITY_NAMES, CAPABILITIES),
    "Events": _numbered(admin.EVENT_NAMES, GROUPS),
}


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_says_what_the_device_has(heading: str) -> None:
    assert {row[0]: (row[1], row[2]) for row in rows(heading)} == TABLES[heading]


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_says_what_the_driver_uses(heading: str) -> None:
    module = "reg" if heading.startswith("Registers") else "admin"
    for name, _, _, driver, _ in rows(heading):
        written = name.replace(
            "_HI", "_LO"
        )  # the driver writes both halves of an address by the name of the lower
        assert driver == _yes(bool(re.search(rf"\b{module}\.{written}\b", DRIVER))), name


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_names_tests_that_there_are(heading: str) -> None:
    for name, *_, shown in rows(heading):
        file, test = shown.strip("`").split("::")
        text = (ROOT / "tests" / "devices" / f"{file}.py").read_text()
        assert f"def {test}(" in text, f"{name}: {shown}"


def test_the_page_names_files_that_there_are() -> None:
    named = set(re.findall(r"`((?:tests/)?(?:\w+/)?test_\w+\.py)`", PAGE))
    missing = {
        name
        for name in named
        if not (ROOT / name).is_file() and not (ROOT / "tests" / "guests" / name).is_file()
    }
    assert len(named) > 10 and not missing
