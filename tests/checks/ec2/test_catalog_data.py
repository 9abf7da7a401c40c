"""The data file: what ships is moto's recording, what is taken live is laid over it, damage is said in one line."""

import gzip
import json
import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.checks.ec2 import catalog
from vfwire.checks.ec2.catalog import from_description, from_text, to_text
from vfwire.errors import BadInput


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """moto's recording, read apart from the tool that made the data."""
    found: dict[str, Any] = json.loads(
        gzip.decompress((files("moto") / "ec2/resources/instance_types.json.gz").read_bytes())
    )
    return found


def test_every_recorded_type_ships_and_says_the_same(recorded: dict[str, Any]) -> None:
    held = catalog.shipped()
    assert set(held.types) == set(recorded)
    for name, info in recorded.items():
        one, network = held.types[name], info["NetworkInfo"]
        assert one.ena == network["EnaSupport"]
        assert one.hypervisor == info.get("Hypervisor", "none")
        assert one.performance == network["NetworkPerformance"]
        assert one.ena_express is network["EnaSrdSupported"] and one.efa is network["EfaSupported"]
        assert sum(cards.count for cards in one.cards) == len(network["NetworkCards"])
        first = network["NetworkCards"][0]
        assert one.cards[0].baseline_gbps == first.get("BaselineBandwidthInGbps")
        assert one.cards[0].peak_gbps == first.get("PeakBandwidthInGbps")
        assert one.cards[0].queues == first.get("MaximumEnaQueueCount")


def test_the_source_and_its_date_are_told() -> None:
    (source,) = catalog.shipped().sources
    assert f"moto {version('moto')}" in source["source"]
    assert re.fullmatch(r"20\d\d-\d\d", source["date"])
    assert source["types"] > 1000


def test_alike_cards_are_told_once() -> None:
    card = {
        "NetworkPerformance": "100 Gigabit",
        "BaselineBandwidthInGbps": 100.0,
        "MaximumNetworkInterfaces": 8,
    }
    other = {**card, "MaximumNetworkInterfaces": 4}
    info = {
        "InstanceType": "x9.large",
        "NetworkInfo": {"EnaSupport": "required", "NetworkCards": [card, card, other]},
    }
    one = from_description(info)
    assert [(cards.count, cards.interfaces) for cards in one.cards] == [(2, 8), (1, 4)]
    assert one.cards[0].queues is None and one.hypervisor == "none"


def test_the_file_comes_back_as_it_went(recorded: dict[str, Any]) -> None:
    types = [from_description(info) for info in list(recorded.values())[:50]]
    text = to_text(types, "a source", "2026-11-25")
    again = from_text(text, "x")
    assert again.types == {one.name: one for one in types}
    assert again.sources == ({"source": "a source", "date": "2026-11-25", "types": 50},)
    assert len(text.splitlines()) == 52  # one a line


def test_what_was_taken_live_lies_over_what_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shipped = catalog.load()
    live = from_description(
        {"InstanceType": "c4.large", "Hypervisor": "nitro", "NetworkInfo": {"EnaSupport": "required"}}
    )
    catalog.refreshed_path().parent.mkdir()
    catalog.refreshed_path().write_text(to_text([live], "live", "2026-11-25"))
    held = catalog.load()
    assert held.types["c4.large"] == live and held.types["c5.large"] == shipped.types["c5.large"]
    assert [source["source"] for source in held.sources][1] == "live"


def test_a_damaged_file_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    catalog.refreshed_path().parent.mkdir()
    catalog.refreshed_path().write_bytes(b"\xff\x00{")
    with pytest.raises(BadInput, match="--refresh"):
        catalog.load()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(_JSON | st.fixed_dictionaries({"schema": st.just(1), "source": _JSON, "date": _JSON, "types": _JSON}))
def test_any_json_is_a_catalog_or_bad_input(value: Any) -> None:
    try:
        assert from_text(json.dumps(value), "x").types == {}
    except BadInput:
        pass


_ONE_TYPE = to_text([catalog.shipped().types["c5.large"]], "s", "d")


@given(st.data())
def test_a_row_with_one_field_changed_is_taken_or_refused(data: st.DataObject) -> None:
    document = json.loads(_ONE_TYPE)
    field = data.draw(st.sampled_from(sorted(document["types"][0])))
    document["types"][0][field] = data.draw(_JSON)
    try:
        found = from_text(json.dumps(document), "x")
    except BadInput:
        return
    assert len(found.types) == 1
