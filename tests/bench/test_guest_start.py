"""The bench of a guest's start: that it runs, and that what it times is a driver's answer."""

import json
import subprocess
import sys

import pytest

from vfwire.guests.accelerator import KVM, TCG


@pytest.mark.guests
@pytest.mark.timeout(600)
def test_a_start_is_timed() -> None:
    command = [sys.executable, "-m", "bench.guest_start", "--runs", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert 0 < run["ready_s"] < run["seconds"]
    assert run["accelerator"] in (KVM, TCG)
