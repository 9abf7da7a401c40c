"""Where a low-latency queue takes only so much between two doorbells: what the driver announces, step by step.

Compiled, its doorbells are stores that nobody sees but the last. So its loop runs as plain Python, in a process of its
own, with the store of the doorbell looked at.
"""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import numpy as np
from vfwire.datapath import ena_driver, port
from vfwire.datapath.ena_driver_frame import LLQ_SLOTS

entry_bytes, most = int(sys.argv[1]), int(sys.argv[2])
SIZE = 64
doorbell, completions, slots = np.zeros(1, np.int32), np.zeros(SIZE, np.int64), np.zeros(SIZE * LLQ_SLOTS, np.int64)
ring, buffers = np.zeros(SIZE * entry_bytes, np.uint8), np.zeros(64 * 2048, np.uint8)
queue = np.zeros(1, port.QUEUE).view(np.recarray)[0]
queue["size"] = queue["completion_size"] = SIZE
queue.ring, queue.slots, queue.completions = ring.ctypes.data, slots.ctypes.data, completions.ctypes.data
queue.doorbell = doorbell.ctypes.data
queue.llq_bytes, queue.llq_header, queue.llq_burst = entry_bytes, 32, most
tails, store32 = [], ena_driver.store32


def noted(address, value):
    if address == doorbell.ctypes.data:
        tails.append(value)
    store32(address, value)


ena_driver.store32 = noted
frames = np.zeros(40, port.FRAME).view(np.recarray)
frames.address, frames.length = buffers.ctypes.data + np.arange(40) * 2048, 100
flags = frames["flags"]
flags[10:13] = port.TX_MORE  # one frame of four buffers, amid plain ones ...
flags[20] = port.TX_IP_CHECKSUM  # ... one with an offload, two of five ...
flags[25:29] = flags[30:34] = port.TX_MORE
flags[39] = port.TX_UDP_CHECKSUM  # ... and a last one with an offload
frames.header = 14 | 20 << 8
pool = np.zeros(1, port.POOL).view(np.recarray)[0]
taken = ena_driver.ena_transmit(queue, pool, np.zeros(64, np.int64), frames, 0, 40)
print(json.dumps([taken, int(queue.tail), tails], default=int))
"""


@pytest.mark.parametrize(("entry_bytes", "most"), [(128, 0), (128, 2), (128, 8), (256, 4)])
def test_no_doorbell_announces_more_than_the_device_takes(entry_bytes: int, most: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(entry_bytes), str(most)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    taken, tail, tails = json.loads(done.stdout)
    assert taken == 40 and tail == tails[-1] == 32  # 29 frames, of which three take two entries
    steps = [after - before for before, after in zip([0, *tails], tails, strict=False)]
    if most:
        assert max(steps) == most and min(steps) > 0
    else:
        assert steps == [32]
