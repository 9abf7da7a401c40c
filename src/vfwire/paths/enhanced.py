"""The enhanced path: System 1 – VF – card 1 – link – card 2 – VF – System 2, or both VFs on one card.

Both cards are in one process, so that a frame crosses them in one copy. They are of one model, which
decides the driver.
"""

from vfwire.paths.path import Path, PathOptions
from vfwire.paths.pinning import CARD, shares_core
from vfwire.paths.process import Child, Family
from vfwire.paths.replay import PF_SETTINGS
from vfwire.paths.roles import CardRole

MODELS = {"ixgbevf": "82599", "ena": "ena"}  # by driver
DRIVERS = tuple(MODELS)
_ASKED = {"ixgbevf": ("ring_size", "queues"), "ena": ("ring_size", "queues", "llq")}  # of PathOptions


class EnhancedPath(Path):
    name = "enhanced"
    layer_count = 0

    def __init__(
        self, family: Family, options: PathOptions, driver: str = "ixgbevf", *, idle_vfs: int = 0
    ) -> None:
        """driver: one of DRIVERS. idle_vfs: more VFs on each card, whose sockets are `idle` once the path is open."""
        self._driver = driver
        self._idle = idle_vfs
        self.idle: list[str] = []
        self.title = driver
        super().__init__(family, options)

    def _fork_card(self) -> Child:
        directory, core = self.family.directory.path, self.cores[CARD]
        shared = shares_core(self.cores, CARD)
        cards = 1 if self.options.same_host else 2
        vfs = 2 // cards + self._idle
        model = MODELS[self._driver]
        return self.family.fork(
            f"{self.title} card",
            lambda: CardRole(directory, core, cards, vfs, host=False, shared=shared, model=model),
        )

    def _open(self) -> None:
        sockets = self.family.call(
            self.card, "open", line_rate_bps=self.options.line_rate_bps, name=self.title
        )
        in_order = [[card[function] for function in sorted(card, key=int)] for card in sockets]
        used = 2 // len(sockets)
        self.idle = [socket for card in in_order for socket in card[used:]]
        if self.options.replay is not None:
            for card, functions in enumerate(sockets):
                for function in functions:
                    self.family.call(
                        self.card, "change", card=card, function=int(function), changes=PF_SETTINGS
                    )
        asked = {name: getattr(self.options, name) for name in _ASKED[self._driver]}
        first, second = (socket for card in in_order for socket in card[:used])
        self._open_systems(self._driver, (first, second), **asked)
