import pytest

from vfwire.memory.compiled import compiled, inlined, jit_disabled


@inlined
def twice(number):  # type: ignore[no-untyped-def]
    return 2 * number


@compiled
def four_times(number):  # type: ignore[no-untyped-def]
    return twice(twice(number))


def test_a_fragment_is_compiled_into_its_caller() -> None:
    assert four_times(5) == 20


def test_a_fragment_called_from_python_is_an_error_and_no_crash() -> None:
    four_times(1)  # by now a version of it for these types exists, which a call would find
    if jit_disabled():
        assert twice(1) == 2
    else:
        with pytest.raises(TypeError, match="not callable"):
            twice(1)
