"""Commands that answer a question exit with 0, 1, 2 or 3, whatever goes wrong."""

import pytest

from vfwire import errors
from vfwire.cli.answers import answers

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type)]  # as it is drawn in errors.py


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_a_wrong_command_or_no_answer(kind: type[errors.VfwireError]) -> None:
    @answers
    def asked(name: str) -> int:
        raise kind(name, "do this")

    with pytest.raises(errors.VfwireError) as caught:
        asked("cause")
    assert caught.value.exit_code == (2 if issubclass(kind, errors.UsageError) else 3)
    assert str(caught.value) == "cause; do this"


def test_an_answer_is_handed_on() -> None:
    assert answers(lambda: 1)() == 1
