"""Probe frames: what the generator sends and the sink checks, byte by byte.

A probe is Ethernet, IPv4 and UDP (42 bytes), two bytes of padding, a magic word, and an 8-byte little-endian
sequence number; then, in full mode, a pattern computed from that number up to the frame's end. Everything
before the number is one of F templates of 64 bytes, F a power of two: frame n is of flow n mod F. Headers are
compared as 64-bit words.

The sink's state: `nexts` is the address of the sequence numbers due next, one for each flow; `gaps` that of
GAPS pairs: the numbers that were jumped over, so that a late frame is told from a second copy. A gap list
that overflows forgets its oldest entry; a late frame of that entry then counts as duplicated.

What is called for each frame takes ints and records, never arrays: Numba counts references of an array at
every call, by atomic operations that cost more than the check itself.
"""

import numpy as np

from vfwire.memory.compiled import inlined
from vfwire.memory.streaming import stream64
from vfwire.memory.unaligned import read64, write64
from vfwire.memory.words import copy, load8, load64, store8, store64

MAGIC_OFFSET = 44
SEQUENCE_OFFSET = 48
PATTERN_OFFSET = 56
TEMPLATE_BYTES = 64
SMALLEST_PROBE = 60  # bytes without FCS: the smallest Ethernet frame
MAGIC = 0x65726977  # "wire" as it lies in memory
GAPS = 1024
REPLAY_WINDOW = 4096

_MAC_MASK = 0xFFFF_FFFF_FFFF
_MULTIPLIER = 0x2545F491  # odd, so that neighbouring sequence numbers give patterns that differ everywhere
_LOW31 = (1 << 31) - 1
_MASK = (1 << 62) - 1  # no step of the pattern overflows an int64, so it is the same uncompiled
_STEP = 0x1B873593CC9E2D51

SINK = np.dtype(
    [
        ("received", "i8"),  # frames that passed every check, second copies not counted
        ("bytes", "i8"),  # of those frames, without FCS
        ("missing", "i8"),  # sequence numbers jumped over and not seen since
        ("reordered", "i8"),  # seen after a later one
        ("duplicated", "i8"),
        ("corrupted", "i8"),
        ("foreign", "i8"),  # addressed to somebody else
        ("gap", "i8"),  # where the next gap is noted in `gaps`
        ("due", "i8"),  # replay: index of the frame due next
    ],
    align=True,
)


@inlined
def fill_probe(address, template, sequence, length, full):  # type: ignore[no-untyped-def]
    """Write one probe of `length` bytes (at least 60; the buffer holds at least 64)."""
    copy(address, template, 64)
    write64(address + SEQUENCE_OFFSET, sequence)
    if full:
        _write_pattern(address, sequence, length)


@inlined
def stream_probe(address, template, sequence):  # type: ignore[no-untyped-def]
    """The same without a pattern, for a burst: past the caches. The buffer begins on a line; a fence has to follow."""
    for at in range(0, SEQUENCE_OFFSET, 8):
        stream64(address + at, read64(template + at))
    stream64(address + SEQUENCE_OFFSET, sequence)
    stream64(address + PATTERN_OFFSET, read64(template + PATTERN_OFFSET))


@inlined
def _first_word(sequence):  # type: ignore[no-untyped-def]
    return ((sequence & _LOW31) * _MULTIPLIER) ^ (sequence >> 20)


@inlined
def _write_pattern(address, sequence, length):  # type: ignore[no-untyped-def]
    value = _first_word(sequence)
    at = address + PATTERN_OFFSET
    end = address + length
    while at + 8 <= end:
        write64(at, value)
        value = (value + _STEP) & _MASK
        at += 8
    while at < end:
        store8(at, value & 0xFF)
        value >>= 8
        at += 1


@inlined
def _pattern_differs(address, sequence, length):  # type: ignore[no-untyped-def]
    value = _first_word(sequence)
    at = address + PATTERN_OFFSET
    end = address + length
    differs = 0
    while at + 8 <= end:
        differs |= read64(at) ^ value
        value = (value + _STEP) & _MASK
        at += 8
    while at < end:
        differs |= load8(at) ^ (value & 0xFF)
        value >>= 8
        at += 1
    return differs


@inlined
def headers_differ(address, template):  # type: ignore[no-untyped-def]
    """0 when the 48 bytes before the sequence number are the template's."""
    differs = read64(address) ^ read64(template)
    differs |= read64(address + 8) ^ read64(template + 8)
    differs |= read64(address + 16) ^ read64(template + 16)
    differs |= read64(address + 24) ^ read64(template + 24)
    differs |= read64(address + 32) ^ read64(template + 32)
    return differs | (read64(address + 40) ^ read64(template + 40))


@inlined
def _check_probe(address, length, app, sink):  # type: ignore[no-untyped-def]
    """Judge one received frame and count it; returns its bytes when it is a good one, else 0."""
    if length < SMALLEST_PROBE:
        sink.corrupted += 1
        return 0
    sequence = read64(address + SEQUENCE_OFFSET)
    flow = sequence & (app.flows - 1)
    template = app.expected + flow * TEMPLATE_BYTES
    differs = headers_differ(address, template) | (length ^ app.length)
    if app.full:
        differs |= _pattern_differs(address, sequence, min(length, app.length))
    if differs != 0:
        if (read64(address) ^ read64(template)) & _MAC_MASK:
            sink.foreign += 1
        else:
            sink.corrupted += 1
        return 0
    due = app.nexts + flow * 8
    if sequence == load64(due):
        store64(due, sequence + app.flows)
        return length
    return length * _out_of_order(sequence, due, app, sink)


@inlined
def _out_of_order(sequence, due, app, sink):  # type: ignore[no-untyped-def]
    """Returns 1 for a frame that was not seen before, 0 for a second copy."""
    first, flows = load64(due), app.flows
    if sequence > first:
        _note_gap(first, sequence, app, sink)
        sink.missing += (sequence - first) // flows
        store64(due, sequence + flows)
        return 1
    for at in range(GAPS):
        start, end = load64(app.gaps + at * 16), load64(app.gaps + at * 16 + 8)
        if start <= sequence < end and (sequence - start) % flows == 0:
            store64(app.gaps + at * 16 + 8, sequence)
            if sequence + flows < end:
                _note_gap(sequence + flows, end, app, sink)
            sink.missing -= 1
            sink.reordered += 1
            return 1
    sink.duplicated += 1
    return 0


@inlined
def _note_gap(start, end, app, sink):  # type: ignore[no-untyped-def]
    at = app.gaps + (sink.gap & (GAPS - 1)) * 16
    store64(at, start)
    store64(at + 8, end)
    sink.gap += 1


@inlined
def same_bytes(one, other, count):  # type: ignore[no-untyped-def]
    """True when `count` bytes at two addresses are equal."""
    differs = 0
    done = 0
    while done + 8 <= count:
        differs |= read64(one + done) ^ read64(other + done)
        done += 8
    while done < count:
        differs |= load8(one + done) ^ load8(other + done)
        done += 1
    return differs == 0


@inlined
def check_slowly(address, length, app, sink):  # type: ignore[no-untyped-def]
    """Judge one received frame, whatever is expected, and count all but a good one; returns its bytes when it
    is good.
    """
    if app.packed:
        return _check_replayed(address, length, app, sink)
    return _check_probe(address, length, app, sink)


@inlined
def _check_replayed(address, length, app, sink):  # type: ignore[no-untyped-def]
    """Compare one received frame with the one due of the packed frames; returns its bytes when it is one of
    them, else 0.

    Looks up to REPLAY_WINDOW frames on (what lies between is missing), then as far back (late, or a second
    copy).
    """
    due = sink.due
    for at in range(due, min(due + REPLAY_WINDOW, app.packed_count)):
        if _is_packed(address, length, app.packed_index + at * 16, app.packed):
            sink.missing += at - due
            sink.due = at + 1
            return length
    for at in range(max(0, due - REPLAY_WINDOW), due):
        if _is_packed(address, length, app.packed_index + at * 16, app.packed):
            sink.reordered += 1
            sink.missing -= 1
            return length
    sink.corrupted += 1
    return 0


@inlined
def _is_packed(address, length, entry, packed):  # type: ignore[no-untyped-def]
    return load64(entry + 8) == length and same_bytes(address, packed + load64(entry), length)
