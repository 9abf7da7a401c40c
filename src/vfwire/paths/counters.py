"""What a path counts, over all of its processes, so that hops and losses come from counters and from nothing
else.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Counters:
    """Since the start. copied: bytes of frames, by the card and the layers. notified: events sent to wake
    somebody.

    traps: accesses that left the guest. layer_frames: frames that layers passed on. drops: lost frames by
    cause.
    """

    copied: int = 0
    notified: int = 0
    traps: int = 0
    layer_frames: int = 0
    drops: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, parts: list[dict[str, Any]]) -> Self:
        """The sum of what the roles of a path counted."""
        drops: Counter[str] = Counter()
        for part in parts:
            drops.update(part["drops"])
        return cls(
            copied=sum(part["copied"] for part in parts),
            notified=sum(part["notified"] for part in parts),
            traps=sum(part["traps"] for part in parts),
            layer_frames=sum(part.get("frames", 0) for part in parts),
            drops=drops,
        )

    def since(self, earlier: Self) -> "Counters":
        """What was counted between two looks."""
        drops = self.drops.copy()
        drops.subtract(earlier.drops)
        return Counters(
            copied=self.copied - earlier.copied,
            notified=self.notified - earlier.notified,
            traps=self.traps - earlier.traps,
            layer_frames=self.layer_frames - earlier.layer_frames,
            drops=+drops,
        )
