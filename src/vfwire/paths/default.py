"""The default path: System 1 – netfront – layer 1 – card 1 – link – card 2 – layer 2 – netfront – System 2.

The same two cards in one process as on the enhanced path, joined by the same link; each has no more than the
host's own function, which belongs to that host's virtualization layer. On one host both netfronts are on the
bridge of one layer.
"""

from vfwire.paths.path import Path, PathOptions
from vfwire.paths.pinning import CARD, LAYERS, shares_core
from vfwire.paths.process import Child, Family
from vfwire.paths.replay import addresses_of
from vfwire.paths.roles import HOST, NETFRONT, CardRole, LayerRole


class DefaultPath(Path):
    name = "default"

    def __init__(self, family: Family, options: PathOptions) -> None:
        self.layer_count = 1 if options.same_host else 2
        super().__init__(family, options)

    def _fork_card(self) -> Child:
        directory, core = self.family.directory.path, self.cores[CARD]
        shared = shares_core(self.cores, CARD)
        cards = 1 if self.options.same_host else 2
        return self.family.fork(
            "default card", lambda: CardRole(directory, core, cards, 1, host=True, shared=shared)
        )

    def _fork_layers(self) -> list[Child]:
        return [self._fork_layer(LAYERS[number]) for number in range(self.layer_count)]

    def _fork_layer(self, name: str) -> Child:
        core, listen = self.cores[name], self.family.directory.path / name.replace(" ", "")
        return self.family.fork(f"default {name}", lambda: LayerRole(core, listen))

    def _open(self) -> None:
        sockets = self.family.call(
            self.card, "open", line_rate_bps=self.options.line_rate_bps, name="default"
        )
        replay = self.options.replay
        vlans = [] if replay is None else list(addresses_of(replay).vlans)
        for layer, card in zip(self.layers, sockets, strict=True):
            self.family.send(
                layer,
                "open",
                uplink=None if self.options.same_host else card[HOST],
                cap_bps=self.options.default_cap_bps,
                ring_size=self.options.ring_size,
                learning=replay is None,
                vlans=vlans,
            )
        listening = [self.family.wait_answer(layer) for layer in self.layers]
        self._open_systems(NETFRONT, (listening[0], listening[-1]))
