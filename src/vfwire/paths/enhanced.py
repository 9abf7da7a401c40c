"""The enhanced path: System 1 – VF – card 1 – link – card 2 – VF – System 2, or both VFs on one card.

Both cards are in one process, so that a frame crosses them in one copy.
"""

from vfwire.paths.path import Path
from vfwire.paths.pinning import CARD, shares_core
from vfwire.paths.process import Child
from vfwire.paths.replay import PF_SETTINGS
from vfwire.paths.roles import CardRole


class EnhancedPath(Path):
    name = "enhanced"
    layer_count = 0

    def _fork_card(self) -> Child:
        directory, core = self.family.directory.path, self.cores[CARD]
        shared = shares_core(self.cores, CARD)
        cards, vfs = (1, 2) if self.options.same_host else (2, 1)
        return self.family.fork(
            "enhanced card", lambda: CardRole(directory, core, cards, vfs, host=False, shared=shared)
        )

    def open(self) -> None:
        sockets = self.family.call(
            self.card, "open", line_rate_bps=self.options.line_rate_bps, name="enhanced"
        )
        ends = [card[function] for card in sockets for function in sorted(card)]
        if self.options.replay is not None:
            for card, functions in enumerate(sockets):
                for function in functions:
                    self.family.call(
                        self.card, "change", card=card, function=int(function), changes=PF_SETTINGS
                    )
        self._open_systems("ixgbevf", (ends[0], ends[1]))
