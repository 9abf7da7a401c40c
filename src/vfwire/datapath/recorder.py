"""What the loop notes down for whoever watches a card: frames and interrupts, into a ring that it never waits for.

    offset 0    u64  read position (free-running, the reader's)
    offset 64   u64  write position (free-running, the loop's)
    offset 128  u64  how many events found no room
    offset 192  data, RECORDER_BYTES of it

An event is HEAD bytes (its size in the ring, its kind, the time by CLOCK_MONOTONIC, the function's number, a number
that depends on the kind), then the frame if it is one, padded to 16 bytes; a size of SKIP means "go on at the start".
While a function's `recorded` is 0 nothing of this runs.
"""

from vfwire.datapath.in_hand import copy_range, tag_put_back
from vfwire.layouts.ethernet import VLAN_BYTES
from vfwire.memory.compiled import inlined
from vfwire.memory.words import clock_ns, load64, store32, store64

RECORDER_BYTES = 1 << 24
RECORDER_MEMORY = 192 + RECORDER_BYTES
READ, WRITE, LOST, DATA = 0, 64, 128, 192
HEAD = 32
AT_KIND, AT_TIME, AT_FUNCTION, AT_NUMBER = 4, 8, 16, 20
SKIP = 0xFFFFFFFF
SENT, RECEIVED, INTERRUPT = 1, 2, 3  # kinds; the number is a frame's length, or the vector
RECORD_FRAMES, RECORD_INTERRUPTS = 1, 2  # bits of a function's `recorded`


@inlined
def _reserve(state, kind, function, number, size):  # type: ignore[no-untyped-def]
    """Begin an event with `size` bytes behind its head. Returns (its address, write position after it), or (0, 0)."""
    ring = state.control[0].recorder
    need = (HEAD + size + 15) & ~15
    write = load64(ring + WRITE)
    place = write & (RECORDER_BYTES - 1)
    extra = RECORDER_BYTES - place if RECORDER_BYTES - place < need else 0
    if write - load64(ring + READ) > RECORDER_BYTES - need - extra:
        store64(ring + LOST, load64(ring + LOST) + 1)
        return 0, 0
    if extra:
        store32(ring + DATA + place, SKIP)
        write += extra
        place = 0
    event = ring + DATA + place
    store32(event, need)
    store32(event + AT_KIND, kind)
    store64(event + AT_TIME, clock_ns())
    store32(event + AT_FUNCTION, function)
    store32(event + AT_NUMBER, number)
    return event, write + need


@inlined
def record_frame(state, kind, function):  # type: ignore[no-untyped-def]
    """Note the frame in hand as the function sees it: its own tag in line, that of a port VLAN not at all."""
    hand = state.in_hand[0]
    header, header_length = hand.header, hand.header_length
    if hand.tag and not state.functions[function].port_vlan:
        header = tag_put_back(header, header_length, hand.tag)
        header_length += VLAN_BYTES
    length = header_length + hand.count
    event, after = _reserve(state, kind, function, length, length)
    if event == 0:
        return
    copy_range(state, event + HEAD, header, header_length, 0, length)
    store64(state.control[0].recorder + WRITE, after)


@inlined
def record_interrupt(state, function, vector):  # type: ignore[no-untyped-def]
    """Note that this vector's message was sent."""
    event, after = _reserve(state, INTERRUPT, function, vector, 0)
    if event:
        store64(state.control[0].recorder + WRITE, after)
