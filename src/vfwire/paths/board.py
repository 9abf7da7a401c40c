"""The board of one system: a page and room for samples, made before the fork, shared by both sides."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath import application as words
from vfwire.memory.shared import SharedMemory

SAMPLES = 1 << 20  # round trips that fit: 8 MiB, of which only what is used is ever touched


class Board:
    """Words by byte offset as datapath/application.py names them. `samples`: int64[SAMPLES], round trips in
    ns.
    """

    def __init__(self, name: str = "vfwire-board") -> None:
        self._memory = SharedMemory.create(name, words.BOARD_BYTES + SAMPLES * 8)
        self.address = self._memory.address
        everything: NDArray[Any] = self._memory.array.view(np.int64)
        self._words = everything[: words.BOARD_BYTES // 8]
        self.samples = everything[words.BOARD_BYTES // 8 :]

    def read(self, offset: int) -> int:
        return int(self._words[offset >> 3])

    def write(self, offset: int, value: int) -> None:
        self._words[offset >> 3] = value

    def clear(self) -> None:
        self._words[:] = 0

    def close(self) -> None:
        del self._words, self.samples
        self._memory.close()
