"""When the card's loop sleeps, and for how long.

It naps for an eighth of the time that it has had nothing to do, at most `nap_ns`. So it is late by an eighth of a pause
in the traffic; a long one costs little. Rings that a guest maps cannot wake it, only control code can (through `kick`).

Drivers that wait for interrupts do not count in microseconds, and the core that polling takes is one that their guests
could use: for them (`polled` 0) it naps at once, for SHORTEST_NAP_NS at least, and a thousandth of a pause. A nap is
not free: tried by hand on a virtual machine, some 15 us of a core for a timer and two switches, and longer than asked
for where the core fell asleep. Shorter naps brought a ping a little and cost packets. Where a core has nothing else to
do, watchers (idle_watch.py) look instead, and naps are long; but only while there is little traffic: with much of it a
nap gathers what then goes in one burst, with one interrupt.
"""

from vfwire.datapath.control_record import OFFSETS, WATCHERS
from vfwire.memory.compiled import inlined
from vfwire.memory.words import drain_eventfd, load64, signal_eventfd, store64, wait_fds

NAPPING, MOVED_NS, MANY_NS, LOOKS = (OFFSETS[name] for name in ("napping", "moved_ns", "many_ns", "looks"))
NAP_SHIFT = 3
SHORTEST_NAP_NS, SHORT_NAP_SHIFT = 100_000, 10  # for drivers that wait for interrupts
WATCHED_NAP_NS = 1_000_000  # while somebody looks
ENOUGH_LOOKS = 20  # since the last nap: fewer, and the watchers hardly get a core
LATELY_NS = 10_000_000  # for so long after a frame watchers look; and after many they do not
WINDOW_NS, MANY = 1_000_000, 8  # more descriptors in such a time are many


@inlined
def note_traffic(control, now, moved):  # type: ignore[no-untyped-def]
    """Something was moved: whether that is much, and that watchers are wanted again after a pause."""
    if now - control.window_ns > WINDOW_NS:
        control.window_ns, control.window_moved = now, 0
    control.window_moved += moved
    if control.window_moved > MANY:
        store64(control.address + MANY_NS, now)
    pause = now - control.moved_ns
    store64(control.address + MOVED_NS, now)
    if pause > LATELY_NS:
        for number in range(control.watchers):
            signal_eventfd(control.watcher_wake[number])


@inlined
def _watched(control):  # type: ignore[no-untyped-def]
    """Whether watchers got a core since the last nap, and moderation holds no interrupt back."""
    looks = 0
    for number in range(WATCHERS):
        looks += load64(control.address + LOOKS + 8 * number)
    since = looks - control.looked
    control.looked = looks
    return since >= ENOUGH_LOOKS and control.due == 0


@inlined
def nap(control, pause):  # type: ignore[no-untyped-def]
    """Sleep after `pause` ns without work: until the time is up, or until it is kicked."""
    control.sleeps += 1
    time = pause >> NAP_SHIFT
    if not control.polled:
        time = max(pause >> SHORT_NAP_SHIFT, WATCHED_NAP_NS if _watched(control) else SHORTEST_NAP_NS)
    words = control.address
    store64(words + NAPPING, 1)
    if wait_fds(control.pollfd, 1, min(time, control.nap_ns)) > 0:
        drain_eventfd(control.kick)
    store64(words + NAPPING, 0)
