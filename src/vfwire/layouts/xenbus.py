"""The states that the two ends of a Xen device go through (Xen public headers, io/xenbus.h)."""

from enum import IntEnum


class XenbusState(IntEnum):
    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2  # ready, waits for what the other side has to say
    INITIALISED = 3  # has said all, waits for a connection
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8
