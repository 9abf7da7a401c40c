"""Gather lists for tests: bytes in pieces, in memory that ends at a guard page."""

from collections.abc import Sequence

import numpy as np
from guarded_memory import Guarded, peek

PAYLOAD = Guarded(40)


def scatter(pieces: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The pieces in memory, first one last and at the guard page, one byte between two of them."""
    PAYLOAD.put(b"\xee" * 20_000)
    end, addresses = 0, []
    for piece in pieces:
        end += len(piece)
        PAYLOAD.put(piece + peek(PAYLOAD.end - end + len(piece), end - len(piece)))
        addresses.append(PAYLOAD.end - end)
        end += 1
    return np.array(addresses, np.int64), np.array([len(piece) for piece in pieces], np.int64)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at `places` (taken modulo its length)."""
    cuts = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
