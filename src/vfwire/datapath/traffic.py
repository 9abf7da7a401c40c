"""The stream: a compiled application that generates probes, checks them, or both at once, on any driver.

It never sleeps: when there is nothing to do it lets another process have its core. STOP 1 on its board ends
sending, STOP 2 ends the loop. The entry points here and in round_trip.py are all there are: each costs
compile time.
"""

import numpy as np

from vfwire.datapath.application import (
    BURST,
    CORRUPTED,
    DUPLICATED,
    ENDED,
    FOREIGN,
    FULL,
    MISSING,
    OFFERED,
    PHASE,
    RECEIVED,
    RECEIVED_BYTES,
    REORDERED,
    RUNNING,
    SENT,
    STOP,
    STOPPED_SENDING,
    give_all,
)
from vfwire.datapath.probe import (
    SEQUENCE_OFFSET,
    TEMPLATE_BYTES,
    check_slowly,
    fill_probe,
    headers_differ,
    stream_probe,
)
from vfwire.datapath.verbs import receive, transmit
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.streaming import LINE, stream_fence
from vfwire.memory.unaligned import read64
from vfwire.memory.words import clock_ns, copy, load64, store64, yield_core

SENDER = np.dtype(
    [
        ("sequence", "i8"),
        ("start", "i8"),  # frames[start:end] are built and not yet taken by the driver
        ("end", "i8"),
        ("base_ns", "i8"),  # pacing: since when ...
        ("paced", "i8"),  # ... and how many had been offered then
        ("offered", "i8"),
        ("sent", "i8"),
        ("full", "i8"),
        ("progress", "i8"),  # replay: what the receiver had got ...
        ("progress_ns", "i8"),  # ... at that time
    ],
    align=True,
)

_SECOND = 1_000_000_000
STREAM_FROM = 32  # frames built at once, from which on they are written past the caches


@inlined
def _due(app, sender):  # type: ignore[no-untyped-def]
    """How many frames the clock (or the receiver, in a replay) asks for now; at most a burst."""
    due = BURST
    if app.count and app.count - sender.offered < due:
        due = app.count - sender.offered
    if app.window:
        arrived = load64(app.peer + RECEIVED)
        now = clock_ns()
        if arrived != sender.progress or sender.progress_ns == 0:
            sender.progress, sender.progress_ns = arrived, now
        elif now - sender.progress_ns > app.timeout_ns:
            return due  # frames were lost: the receiver will not catch up
        due = min(due, max(0, app.window - (sender.offered - arrived)))
    if app.rate_pps:
        now = clock_ns()
        if sender.base_ns == 0:
            sender.base_ns = now
        owed = sender.paced + (now - sender.base_ns) * app.rate_pps // _SECOND - sender.offered
        if now - sender.base_ns > _SECOND:
            sender.paced += app.rate_pps
            sender.base_ns += _SECOND
        if owed > app.backlog:
            sender.paced -= owed - app.backlog
            owed = app.backlog
        due = min(due, owed)
    return due


@inlined
def _build(pool, stack, frames, app, sender, due):  # type: ignore[no-untyped-def]
    """Fill frames[0:n] with the next n frames; n is `due`, or fewer when the pool runs low."""
    free = pool.free
    count = min(due, free)
    if app.packed:
        for at in range(count):
            entry = app.packed_index + (sender.offered + at) * 16
            frames[at].address = stack[free - 1 - at]
            frames[at].length = load64(entry + 8)
            copy(stack[free - 1 - at], app.packed + load64(entry), load64(entry + 8))
    else:
        sequence, mask, length, full, templates = (
            int(sender.sequence),
            app.flows - 1,
            app.length,
            app.full,
            app.templates,
        )
        streaming = full == 0 and count >= STREAM_FROM and (pool.first | pool.stride) & (LINE - 1) == 0
        for at in range(count):
            address = stack[free - 1 - at]
            frames[at].address = address
            frames[at].length = length
            template = templates + (sequence & mask) * TEMPLATE_BYTES
            if streaming:
                stream_probe(address, template, sequence)
            else:
                fill_probe(address, template, sequence, length, full)
            sequence += 1
        sender.sequence = sequence
        if streaming:
            stream_fence()
    pool.free = free - count
    sender.offered += count
    sender.start = 0
    sender.end = count


@inlined
def _send(tx, pool, stack, frames, app, sender):  # type: ignore[no-untyped-def]
    """One turn of the generator; returns how many frames the driver took."""
    queue = tx[0]
    if sender.start == sender.end:
        if pool.free < BURST:
            transmit(queue, pool, stack, frames, 0, 0)
        _build(pool, stack, frames, app, sender, _due(app, sender))
    waiting = sender.end - sender.start
    if waiting <= 0:
        return 0
    taken = transmit(queue, pool, stack, frames, sender.start, waiting)
    sender.start += taken
    sender.sent += taken
    if taken < waiting:
        sender.full += 1
    store64(app.board + OFFERED, sender.offered)
    store64(app.board + SENT, sender.sent)
    store64(app.board + FULL, sender.full)
    return taken


@inlined
def _check(rx, pool, stack, frames, app, sink):  # type: ignore[no-untyped-def]
    """One turn of the sink over all its queues; returns how many frames came."""
    total = 0
    for which in range(len(rx)):
        count = receive(rx[which], pool, stack, frames, BURST)
        if count == 0:
            continue
        good, good_bytes = 0, 0
        plain = app.packed == 0 and app.full == 0
        due, mask, want, expected = app.nexts, app.flows - 1, app.length, app.expected
        for at in range(count):
            address, length = frames[at].address, frames[at].length
            if plain:
                sequence = read64(address + SEQUENCE_OFFSET)
                flow = sequence & mask
                differs = headers_differ(address, expected + flow * TEMPLATE_BYTES) | (length ^ want)
                differs |= sequence ^ load64(due + flow * 8)
                if differs == 0:
                    store64(due + flow * 8, sequence + mask + 1)
                    good += 1
                    good_bytes += length
                    continue
            found = check_slowly(address, length, app, sink)
            good += found != 0
            good_bytes += found
        give_all(pool, stack, frames, 0, count)
        sink.received += good
        sink.bytes += good_bytes
        total += count
    if total:
        _publish(app.board, sink)
    return total


@inlined
def _publish(board, sink):  # type: ignore[no-untyped-def]
    store64(board + RECEIVED, sink.received)
    store64(board + RECEIVED_BYTES, sink.bytes)
    store64(board + MISSING, sink.missing)
    store64(board + REORDERED, sink.reordered)
    store64(board + DUPLICATED, sink.duplicated)
    store64(board + CORRUPTED, sink.corrupted)
    store64(board + FOREIGN, sink.foreign)


@inlined
def _end_sending(pool, stack, frames, app, sender):  # type: ignore[no-untyped-def]
    """Take back what the driver has not taken, and say that nothing more will come."""
    give_all(pool, stack, frames, sender.start, sender.end)
    sender.offered -= sender.end - sender.start
    sender.start = sender.end
    store64(app.board + OFFERED, sender.offered)
    store64(app.board + PHASE, STOPPED_SENDING)


@compiled
def run_stream(rx, tx, pools, stack, rx_frames, tx_frames, apps, senders, sinks):  # type: ignore[no-untyped-def]
    """Generate (app.send), check (app.check), or both at once, until the board's STOP, `count` or the
    deadline.

    rx, tx: QUEUE[n]; pools: POOL[1]; stack: the pool's; *_frames: FRAME[BURST]; apps: APP[1]; senders:
    SENDER[1]; sinks: SINK[1].
    """
    app, sender, sink, pool = apps[0], senders[0], sinks[0], pools[0]
    sending = app.send != 0
    idle, rounds, since_yield, last_ns = 0, 0, 0, clock_ns()
    store64(app.board + PHASE, RUNNING)
    while True:
        stop = load64(app.board + STOP)
        worked = 0
        if sending:
            worked = _send(tx, pool, stack, tx_frames, app, sender)
            counted_out = app.count and sender.offered >= app.count and sender.start == sender.end
            if stop or counted_out:
                _end_sending(pool, stack, tx_frames, app, sender)
                sending = False
        elif app.check == 0:
            break
        if app.check:
            worked += _check(rx, pool, stack, rx_frames, app, sink)
        if worked:
            idle = 0
            rounds += 1
            since_yield += worked
            if app.turn and since_yield >= app.turn:
                since_yield = 0
                yield_core()
            if (rounds & 63) and not (stop and app.quiet_ns):
                continue
        else:
            idle += 1
            if idle > app.spin:
                since_yield = 0
                yield_core()
        if stop > 1:
            break
        if app.deadline_ns or app.quiet_ns:
            now = clock_ns()
            if worked:
                last_ns = now
            if app.deadline_ns and now >= app.deadline_ns:
                break
            if app.quiet_ns and stop and not sending and now - last_ns >= app.quiet_ns:
                break
    if sending:
        _end_sending(pool, stack, tx_frames, app, sender)
    store64(app.board + PHASE, ENDED)
