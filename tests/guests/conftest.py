"""The two guests of a test module's `pair`, by name, and what is asked of their drivers."""

from collections.abc import Iterator

import pytest

from tests.guests.stock_kit import Hosts, content
from vfwire.guests.guest import Guest


@pytest.fixture
def one(pair: Hosts) -> Guest:
    return pair.guests[0]


@pytest.fixture
def two(pair: Hosts) -> Guest:
    return pair.guests[1]


@pytest.fixture
def drivers_are_content(one: Guest, two: Guest) -> Iterator[None]:
    """Neither guest's kernel logs a driver's complaint while a test runs."""
    with content(one, two):
        yield
