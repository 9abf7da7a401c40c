"""Who runs where: the policy, for few cores and for many."""

import pytest

from vfwire.paths.pinning import place, shares_core

NAMES = ["card", "system 1", "system 2", "layer 1", "layer 2"]


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("cores", [[0], [3, 5], [0, 1, 2], [0, 1, 2, 3], list(range(8))])
def test_everybody_has_a_core_that_can_be_had(layers: int, cores: list[int]) -> None:
    placed = place(layers, cores)
    assert list(placed) == NAMES[: 3 + layers] and set(placed.values()) <= set(cores)
    if len(cores) >= len(placed):
        assert len(set(placed.values())) == len(placed)
    if len(cores) > 1:
        assert all(placed[name] != placed["card"] for name in ("system 1", "system 2"))


def test_two_cores() -> None:
    assert place(0, [0, 1]) == {"card": 1, "system 1": 0, "system 2": 0}
    assert place(2, [0, 1]) == {"card": 1, "system 1": 0, "system 2": 0, "layer 1": 1, "layer 2": 1}


def test_sharing_a_core() -> None:
    assert shares_core(place(2, [0, 1]), "card") and not shares_core(place(0, [0, 1]), "card")


def test_no_core_at_all() -> None:
    with pytest.raises(ValueError):
        place(0, [])
