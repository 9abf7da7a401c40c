"""Mechanisms of instance types: golden tables typed from the published lists, independently of the code."""

from dataclasses import replace

import pytest

from vfwire.checks.ec2 import catalog
from vfwire.checks.ec2.catalog import Catalog
from vfwire.checks.ec2.mechanism import (
    Mechanism,
    differences,
    label,
    mechanism_of,
    seed_mechanism,
)

# The first published lists, as they were written.
PUBLISHED_ENA = "A1, C5, C5a, C5d, C5n, C6g, F1, G3, G4, H1, I3, I3en, P2, P3, R4, X1, X1e, m4.16xlarge"
PUBLISHED_82599 = "C3, C4, D2, I2, M4, R3"

# Of the present's user guide: Xen types that use the ENA, and the 82599's families.
XEN_WITH_ENA = {"h1", "i3", "m4.16xlarge", "r4", "x1", "x1e"}


def names(text: str) -> set[str]:
    return {name.strip().lower() for name in text.split(",")}


@pytest.fixture(scope="module")
def held() -> Catalog:
    return catalog.shipped()


def test_the_seed_is_as_published() -> None:
    for name in names(PUBLISHED_ENA):
        assert seed_mechanism(name) == Mechanism.ENA, name
    for name in names(PUBLISHED_82599):
        assert seed_mechanism(name) == Mechanism.VF82599, name
    for name in ("m5", "t2", "t3", "c6i", "m3", "r3x", ""):
        assert seed_mechanism(name) == Mechanism.NONE, name


@pytest.mark.parametrize(
    ("type_name", "ena", "mechanism"),
    [
        ("c5.large", "required", Mechanism.ENA),
        ("r4.large", "supported", Mechanism.ENA),
        ("m4.16xlarge", "supported", Mechanism.ENA),
        ("m4.10xlarge", "unsupported", Mechanism.VF82599),
        ("c3.large", "unsupported", Mechanism.VF82599),
        ("r3.8xlarge", "unsupported", Mechanism.VF82599),
        ("t2.micro", "unsupported", Mechanism.NONE),
        ("m3.large", "unsupported", Mechanism.NONE),
        ("c4x.large", "unsupported", Mechanism.NONE),
    ],
)
def test_what_a_type_has(type_name: str, ena: str, mechanism: Mechanism) -> None:
    assert mechanism_of(type_name, ena) == mechanism


def test_the_82599_of_the_shipped_data_is_the_published_list(held: Catalog) -> None:
    found = {one.family for one in held.types.values() if one.mechanism == Mechanism.VF82599}
    assert found == names(PUBLISHED_82599)
    assert held.types["m4.16xlarge"].mechanism == Mechanism.ENA


def test_only_xen_types_fall_back(held: Catalog) -> None:
    found = {label(one.name) for one in held.types.values() if one.mechanism == "ena" and one.falls_back}
    assert found == XEN_WITH_ENA
    for one in held.types.values():
        if one.mechanism == Mechanism.ENA and not one.falls_back:
            assert one.ena == "required", one.name


def test_nothing_that_is_still_sold_has_changed_its_mechanism(held: Catalog) -> None:
    since = differences((one.name, one.mechanism) for one in held.types.values())
    assert since.changed == ()
    assert set(since.gone) == {"f1", "g3", "p2", "p3"}
    assert {"m5", "t3", "c6i", "p3dn"} <= set(since.new)
    assert "t2" not in since.new and "g4dn" not in since.new and "c5" not in since.new


def test_a_change_would_be_seen(held: Catalog) -> None:
    c3 = replace(held.types["c3.large"], ena="supported")
    since = differences([(c3.name, c3.mechanism), ("c5.large", Mechanism.NONE)])
    assert since.changed == (
        ("c3", Mechanism.VF82599, Mechanism.ENA),
        ("c5", Mechanism.ENA, Mechanism.NONE),
    )
