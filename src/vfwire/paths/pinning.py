"""Which process runs on which core: one policy, in one place, and what it chose is part of every result.

Two systems and a card are three loops that poll. With three cores or more each has its own. On two cores both
systems share one, and the card has the other: a sender that waits for room and a receiver that waits for
frames give way to each other by sched_yield, while the card, which both of them wait for, never stops.
"""

import os

SYSTEMS = ("system 1", "system 2")
CARD = "card"
LAYERS = ("layer 1", "layer 2")


def usable_cores() -> list[int]:
    """The cores that this process may run on, in order."""
    return sorted(os.sched_getaffinity(0))


def place(layers: int, cores: list[int]) -> dict[str, int]:
    """The core of each process of a path with as many virtualization layers (0, 1 or 2).

    On two cores the layers share the card's: tried against every other split, that moved the most frames
    (their work and the systems' are about as much).
    """
    if not cores:
        raise ValueError("no core to run on")
    names = [CARD, *SYSTEMS, *LAYERS[:layers]]
    if len(cores) >= len(names):
        order = [CARD, SYSTEMS[0], SYSTEMS[1], *LAYERS[:layers]]
        return {name: cores[-1 - at] for at, name in enumerate(order)}
    card = cores[-1]
    rest = cores[:-1] or cores
    placed = {CARD: card}
    for at in range(2):
        placed[SYSTEMS[at]] = rest[at % len(rest)]
    for at in range(layers):
        placed[LAYERS[at]] = card if len(rest) == 1 else rest[(at + 2) % len(rest)]
    return placed


def shares_core(placed: dict[str, int], name: str) -> bool:
    """Whether another process of the path runs on the same core."""
    return list(placed.values()).count(placed[name]) > 1


def pin(core: int) -> None:
    """Bind the calling thread, and what it starts from now on, to `core`."""
    os.sched_setaffinity(0, {core})
