"""A hostile client of a card beside two neighbours: of either model, unless a test module has a scene of its own."""

from collections.abc import Iterator

import pytest
from ena_hostile_kit import HostileEna
from hostile_kit import Client, Hostile, Scene, scene


@pytest.fixture(params=[Hostile, HostileEna], ids=lambda kind: kind.model)
def set_up(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene(request.param) as made:
        yield made


@pytest.fixture
def hostile(set_up: Scene) -> Iterator[Client]:
    with set_up.hostile() as client:
        yield client
