"""Compile everything that a run of paths needs, or load it from the cache, before any process is forked."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vfwire.datapath.card import run_card
from vfwire.datapath.netback import run_slice
from vfwire.devices.engine import Engine
from vfwire.drivers.table import DRIVERS
from vfwire.memory.compiled import is_cached
from vfwire.paths.applications import warm_up_applications
from vfwire.paths.layer import VirtualizationLayer
from vfwire.paths.pinning import usable_cores

_COMPILE_CARD = "from vfwire.devices.engine import Engine; Engine.warm_up()"


@contextmanager
def _card_compiled_beside() -> Iterator[None]:
    """On a fresh machine with a second core: another process compiles the card's loop into the cache meanwhile.

    It takes about as long as all the rest. If that process fails, this one compiles the loop itself afterwards.
    """
    if is_cached(run_card) or len(usable_cores()) < 2:
        yield
        return
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, "-c", _COMPILE_CARD], stdin=quiet, stdout=quiet, stderr=quiet
    ) as process:
        try:
            yield
        except BaseException:
            process.kill()
            raise


def prepare(progress: Callable[[str], None] | None = None) -> None:
    """All of it: the card, the drivers, the applications, the virtualization layer. `progress` is told each part
    that is compiled, and none that is only loaded.
    """
    with _card_compiled_beside():
        for driver in DRIVERS:
            driver.warm_up()
        warm_up_applications(progress)
        VirtualizationLayer.warm_up(None if is_cached(run_slice) else progress)
    Engine.warm_up(None if is_cached(run_card) else progress)
