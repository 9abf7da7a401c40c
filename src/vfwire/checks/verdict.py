"""What every check answers: one verdict, the reason, the next step. The exit code follows from the verdict."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    ENHANCED = "enhanced"
    NOT = "not"
    UNKNOWN = "unknown"


EXIT_CODES = {State.ENHANCED: 0, State.NOT: 1, State.UNKNOWN: 3}  # 2 is a command that was wrong (errors.py)
_WORST_FIRST = (State.NOT, State.UNKNOWN, State.ENHANCED)


@dataclass(frozen=True)
class Verdict:
    """reason and next_step are sentences without a full stop; next_step is "" where there is nothing to do."""

    state: State
    reason: str
    next_step: str = ""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]

    def as_json(self) -> dict[str, str]:
        return {"verdict": str(self.state), "reason": self.reason, "next_step": self.next_step}


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The first of those that are worst: what is known to be off counts before what is not known. None of none."""
    return min(verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.state), default=None)
