"""docs/ena.md says of each register, command, feature and event what the device has and what our driver was seen to
use, and names tests that exist.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.paths.card_kit import enas
from vfwire.devices import ena_features, ena_registers, ena_statistics
from vfwire.devices.card import Card, functions_of
from vfwire.devices.ena import VirtualFunctionEna
from vfwire.devices.ena_options import CAPABILITIES, CAPABILITY_NAMES, GROUPS, SENDABLE, EnaOptions
from vfwire.devices.engine import Engine
from vfwire.drivers.ena import Ena
from vfwire.drivers.ena_clock import PreciseClock
from vfwire.drivers.ena_events import WANTED
from vfwire.errors import WaitTimeout
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg
from vfwire.layouts.ena_registers import REGISTERS, decode

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ena.md").read_text()


def _yes(has: bool) -> str:
    return "yes" if has else "no"


def _features() -> dict[str, tuple[str, str]]:
    ways = (("get", ena_features._READERS), ("set", ena_features._WRITERS))
    return {
        name: (str(number), ", ".join(way for way, table in ways if number in table) or "no")
        for number, name in admin.FEATURE_NAMES.items()
    }


def _opcodes() -> frozenset[int]:
    """Those that the admin queue of a new ENA has somebody for."""
    engine = Engine([functions_of(1)])
    with contextlib.closing(engine), contextlib.closing(Card(engine, 0, "page", 1, model="ena")) as card:
        function = card.vfs[0]
        assert isinstance(function, VirtualFunctionEna)
        return frozenset(function.admin._handlers)


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
    "Admin commands": _numbered(admin.OPCODE_NAMES, _opcodes()),
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


def _watch(patch: pytest.MonkeyPatch, kind: type, name: str, note: Callable[..., None]) -> None:
    """Have `note` told of every call of a method."""
    original = getattr(kind, name)

    def noting(self: Any, *arguments: Any) -> Any:
        note(*arguments)
        return original(self, *arguments)

    patch.setattr(kind, name, noting)


def _exercise(nic: Ena, card: Card) -> None:
    """All that our driver does with a device, but frames."""
    nic.link_speed()
    nic.stats()
    nic.enable_receive_events()
    with contextlib.suppress(WaitTimeout):
        PreciseClock(nic.admin).read()
    for name in SENDABLE:
        card.vfs[0].send_event(name, {})
    assert nic.must_restart()
    nic.restart()
    nic.stop()


@pytest.fixture(scope="module")
def seen() -> dict[str, set[str]]:
    """What the devices of two cards saw our driver use: one that has everything, and an older one."""
    found: dict[str, set[str]] = {heading: set() for heading in TABLES}

    def note_register(offset: int, *_value: int) -> None:
        if (where := decode(offset)) is not None:
            found["Registers (BAR0)"].add(where[0])

    def note_feature(entry: bytes, _has_buffer: bool) -> None:
        feature = int(np.frombuffer(entry, msg.FEATURE_CMD)[0]["feat_common"]["feature_id"])
        found["Features"].add(admin.FEATURE_NAMES[feature])

    def note_statistics(entry: bytes, _has_buffer: bool) -> None:
        found["Statistics"].add(admin.STATS_NAMES[int(np.frombuffer(entry, msg.GET_STATS_CMD, 1)[0]["type"])])

    old = EnaOptions(readless=False, without=frozenset({"CUSTOMER_METRICS", "MAX_QUEUES_EXT"}))
    with pytest.MonkeyPatch.context() as patch:
        for way in ("read", "write"):
            _watch(patch, ena_registers.EnaRegisters, way, note_register)
        for way in ("get", "set"):
            _watch(patch, ena_features.EnaFeatures, way, note_feature)
        _watch(patch, ena_statistics.EnaStatistics, "get", note_statistics)
        for options in (EnaOptions(), old):
            with enas(1, queues=2, llq=128, options=options) as (card, (nic,)):
                _exercise(nic, card)
                function = card.vfs[0]
                assert isinstance(function, VirtualFunctionEna)
                opcodes = {opcode for opcode, _, _ in function.admin.answered}
                found["Admin commands"] |= {admin.OPCODE_NAMES[opcode] for opcode in opcodes}
    source = "".join(path.read_text() for path in (ROOT / "src/vfwire/drivers").glob("ena*.py"))
    found["Capabilities"] = set(re.findall(r"capabilities >> admin\.(\w+) & 1", source))
    return found


@pytest.mark.parametrize("heading", [heading for heading in TABLES if heading != "Events"])
def test_the_page_says_what_the_driver_uses(heading: str, seen: dict[str, set[str]]) -> None:
    told = {name: driver for name, _, _, driver, _ in rows(heading)}
    assert told == {name: _yes(name in seen[heading]) for name in told}


def test_the_page_says_what_the_driver_makes_of_events() -> None:
    """Counted: it has asked for the group, and what comes of it changes nothing but the count."""
    found = {}
    with enas(1) as (_, (nic,)):
        events = nic.events
        for group, name in admin.EVENT_NAMES.items():
            events.link_up, events.reset_reason, events._alive, events.drops = False, None, 0.0, {}
            before = {**vars(events), "counts": None}
            events._hear(group, admin.UPDATE_HINTS, b"\x01" * 48)
            changed = {**vars(events), "counts": None} != before
            found[name] = ("yes" if changed else "counted") if group in WANTED else "no"
            assert changed <= (group in WANTED), f"{name} is acted upon and never asked for"
    assert {name: driver for name, _, _, driver, _ in rows("Events")} == found


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
