"""Compile everything that a run of paths needs, or load it from the cache, before any process is forked."""

from collections.abc import Callable

import numpy as np

from vfwire.datapath.ixgbevf_driver import ixgbevf_start, ixgbevf_take_back
from vfwire.datapath.port import POOL, QUEUE
from vfwire.devices.engine import Engine
from vfwire.paths.applications import warm_up_applications
from vfwire.paths.layer import VirtualizationLayer


def prepare(progress: Callable[[str], None] | None = None) -> None:
    """All of it: the card, both drivers, the applications, the virtualization layer. `progress` is told each
    part.
    """
    Engine.warm_up(progress)
    queues, pools = np.zeros(0, QUEUE).view(np.recarray), np.zeros(1, POOL).view(np.recarray)
    stack = np.zeros(1, np.int64)
    ixgbevf_start(queues, queues, pools, stack)
    ixgbevf_take_back(queues, pools, stack)
    warm_up_applications(progress)
    VirtualizationLayer.warm_up(progress)
