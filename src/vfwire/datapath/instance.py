"""The record of an instance: one or several functions that share what EC2 allows them (datapath/allowance.py)."""

import numpy as np

# A limit of 0 is none.
INSTANCE = np.dtype(
    [
        ("bw_in_bps", "i8"),
        ("bw_out_bps", "i8"),
        ("burst_bits", "i8"),  # that pile up while less is used, each way
        ("pps", "i8"),  # both ways together
        ("conntrack_most", "i8"),  # connections tracked at a time
        ("now", "i8"),  # when credits were last topped up
        ("in_credit", "i8"),  # bits x 1e9
        ("out_credit", "i8"),
        ("pps_credit", "i8"),  # packets x 1e9
        ("conntrack_count", "i8"),
        ("swept", "i8"),  # rows of its table looked at for connections that are over (free-running)
        ("bw_in_exceeded", "i8"),  # packets queued or dropped ...
        ("bw_out_exceeded", "i8"),
        ("pps_exceeded", "i8"),
        ("conntrack_exceeded", "i8"),  # ... and dropped
        ("queued", "i8"),  # of all of these
        ("dropped", "i8"),
    ],
    align=True,
)
CONNECTIONS = 16_384  # rows of an instance's table, a power of two
CONNTRACK_MOST = 6_000  # of them used: so few that a row is always found
