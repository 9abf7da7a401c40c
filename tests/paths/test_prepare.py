"""Compiling before forking: told once, and afterwards nothing is left to compile."""

from vfwire.datapath.round_trip import run_forward, run_ping
from vfwire.datapath.traffic import run_stream
from vfwire.memory.compiled import is_cached, jit_disabled
from vfwire.paths.prepare import prepare


def test_a_second_time_there_is_nothing_to_compile() -> None:
    prepare()
    told: list[str] = []
    prepare(told.append)
    assert all(is_cached(loop) for loop in (run_stream, run_forward, run_ping)) or jit_disabled()
    assert told == [] or jit_disabled()


def test_each_loop_has_one_signature() -> None:
    """Whatever runs them in a child hands over what `prepare` did: a child never compiles."""
    prepare()
    assert all(len(getattr(loop, "signatures", [0])) == 1 for loop in (run_stream, run_forward, run_ping))
