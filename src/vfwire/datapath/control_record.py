"""What there is once for a card's loop: how it is told to stand still, to stop, when it sleeps and who wakes it."""

import numpy as np

WATCHERS = 2  # threads that look at doorbells on idle cores, at most

CONTROL = np.dtype(
    [
        ("address", "i8"),  # where this record lies
        ("request", "i8"),  # control side: odd while the loop shall stand still
        ("acknowledged", "i8"),  # loop: the request it has seen
        ("stop", "i8"),
        ("kick", "i8"),  # eventfd that ends the loop's sleep
        ("pollfd", "i8"),  # struct pollfd for it
        ("functions", "i8"),
        ("cards", "i8"),
        ("work", "i8"),  # bytes and frames copied in this round, see card.py
        ("next", "i8"),  # function that has the next turn
        ("rested_ns", "i8"),  # until when it slept of its own will
        ("rounds", "i8"),
        ("busy_rounds", "i8"),
        ("sleeps", "i8"),
        ("quiet_rounds", "i8"),  # empty rounds before it offers its core to others
        ("spin_ns", "i8"),  # how long it polls without work before it sleeps
        ("nap_ns", "i8"),  # its longest sleep
        ("header", "i8"),  # scratch: private bytes for the headers of the frame in hand
        ("fault_function", "i8"),  # last function stopped for a fault; -1 for none (control logs it)
        ("started", "i8"),  # 1 once the loop runs
        (
            "recorder",
            "i8",
        ),  # address of the ring that events are noted in (recorder.py), 0 while nobody watches
        ("polled", "i8"),  # 1 where drivers wait by polling, 0 where all of them wait for interrupts
        ("waiting", "i8"),  # 1 while somebody has frames to send and no credit: the loop does not nap then
        ("napping", "i8"),  # 1 while it sleeps
        ("due", "i8"),  # 1 while moderation holds an interrupt back
        ("moved_ns", "i8"),  # when it last moved something ...
        ("many_ns", "i8"),  # ... and when that was much: see nap.py
        ("window_ns", "i8"),
        ("window_moved", "i8"),
        ("watchers", "i8"),  # threads that look at doorbells while it naps (idle_watch.py); 0 ends them
        ("looks", "i8", (WATCHERS,)),  # how often each of them has looked
        ("looked", "i8"),  # their sum before the last nap
        ("watcher_wake", "i8", (WATCHERS,)),  # eventfds that end their sleep
        ("crowded", "i8"),  # 1 when a link to another process filled up beyond its half in this round
    ],
    align=True,
)

assert CONTROL.fields is not None
OFFSETS = {name: field[1] for name, field in CONTROL.fields.items()}
"""By name: where a field lies in the record, for those that two threads share."""
