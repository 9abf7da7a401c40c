import os
import time

import pytest

from vfwire.measure import machine
from vfwire.memory.compiled import jit_disabled


def test_names_what_a_result_needs() -> None:
    facts = machine.describe_machine()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["kernel"] == os.uname().release
    assert facts["cpu"] and facts["python"] and facts["numba"]
    assert len(facts["cache_line_cores"]) == min(2, facts["cores"])


def test_cache_line_time_is_plausible_and_bounded() -> None:
    machine.cache_line_round_trip_ns()  # compiled after this
    begin = time.monotonic()
    value = machine.cache_line_round_trip_ns(limit_ms=200)
    assert time.monotonic() - begin < 5
    if len(machine.usable_cores()) < 2 or jit_disabled():  # the interpreter lock lets nobody answer in time
        assert value is None
    else:
        assert value is not None and 5 < value < 1_000_000


def test_a_core_is_handed_over_and_comes_back() -> None:
    machine.core_handover_ns()  # compiled after this
    value = machine.core_handover_ns(limit_ms=5000)  # a core that others use comes back late
    if jit_disabled():  # the interpreter's lock changes hands every 5 ms
        assert value is None or value > 100
    else:
        assert value is not None and 100 < value < 1_000_000


def test_one_core_has_no_round_trip() -> None:
    core = machine.usable_cores()[0]
    assert machine.cache_line_round_trip_ns([core]) is None
    assert machine.cache_line_round_trip_ns([core, core]) is None


def test_nobody_there_to_answer_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "pong", lambda _word, _deadline, _give_way: 0)
    cores = machine.usable_cores()
    assert machine.cache_line_round_trip_ns(cores, limit_ms=5) is None


def test_affinity_of_the_caller_is_left_alone() -> None:
    before = os.sched_getaffinity(0)
    machine.cache_line_round_trip_ns()
    assert os.sched_getaffinity(0) == before
