"""Commands that answer a question: 0 yes, 1 no, 3 cannot tell, 2 the command itself was wrong, and nothing else."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from vfwire.errors import CannotTell, UnsupportedMachine, UsageError, VfwireError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def answers(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Whatever else ends a command, there is no answer: CannotTell, with the same cause and next step."""

    @functools.wraps(command)
    def asked(*arguments: _P.args, **options: _P.kwargs) -> _R:
        try:
            return command(*arguments, **options)
        except (UsageError, CannotTell, UnsupportedMachine):
            raise
        except VfwireError as error:
            raise CannotTell(error.message, error.hint) from error

    return asked
