"""Looking at doorbells on cores that nobody else wants, while the card's loop naps.

A guest that rings a doorbell in a page that it maps wakes nobody. A watcher is a thread of the lowest class (sched(7),
SCHED_IDLE): it runs where a core would be idle, ends the loop's nap as soon as a doorbell has changed, and gives way to
whoever wakes up. So a lone frame does not wait for the end of a nap where a core is free, and where none is, nobody is
in a guest's way. It looks while there is little traffic, and LATELY_NS after the last of it; then it sleeps.

Between two emulated guests on two cores, which share them with the card (`vfwire compare --guests`, with and without
this, in turn): a ping took two thirds of the time over an 82599 and half over an ENA; packets a second and TCP stayed
within what runs differ by. Looking without regard to how much traffic there is halved those.
"""

from vfwire.datapath.control_record import OFFSETS
from vfwire.datapath.ena_interrupts import wishes
from vfwire.datapath.ena_queues import DOORBELL_MASK
from vfwire.datapath.ixgbevf_queues import TAIL
from vfwire.datapath.nap import LATELY_NS, LOOKS, MANY_NS, MOVED_NS, NAPPING
from vfwire.datapath.state import MODEL_ENA, QUEUES
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import (
    clock_ns,
    drain_eventfd,
    load32,
    load64,
    relax_core,
    signal_eventfd,
    store64,
    wait_fds,
    want_idle_cores_only,
)

WATCHERS_WORD = OFFSETS["watchers"]
LONGEST_SLEEP_NS = 900_000_000
RESTS = 4  # a tenth of a microsecond between two looks


@inlined
def _news(state, told):  # type: ignore[no-untyped-def]
    """Whether a doorbell has changed since it was last told of, and the loop has not seen it; or an ENA's driver waits
    for an interrupt. A guest may write there what it wants: it is compared, no more, and each doorbell is told once.
    """
    for function in range(state.control[0].functions):
        record = state.functions[function]
        if record.dma == 0:
            continue
        if record.posted and wishes(state, function):
            return True
        for row in range(function * QUEUES, function * QUEUES + record.tx_queues):
            queue = state.tx[row]
            if not queue.on:
                continue
            if record.model == MODEL_ENA:
                doorbell, head = queue.doorbell, queue.head & DOORBELL_MASK
            else:
                doorbell, head = queue.registers + TAIL, queue.head
            if doorbell <= TAIL:  # the loop is writing this row, and its words arrive in any order
                continue
            tail = load32(doorbell)
            if tail not in (head, told[row]):
                told[row] = tail
                return True
    return False


@compiled
def look(state, told):  # type: ignore[no-untyped-def]
    """Look once. told: int64 for each row of `state.tx`. What a test drives."""
    return _news(state, told)


@compiled
def run_watch(state, me, pollfd, told):  # type: ignore[no-untyped-def]
    """Watch until `watchers` is 0. me: which watcher; pollfd: struct pollfd of its eventfd; told: see `look`.

    The thread takes the lowest class in here, where it holds no lock of the interpreter: one that did could stand still
    for seconds, and all others with it. Returns -1 when it was not granted: it must not watch then.
    """
    words = state.control[0].address
    looks = 0
    if load64(words + WATCHERS_WORD) and want_idle_cores_only():
        return -1
    while load64(words + WATCHERS_WORD):
        now = clock_ns()
        many = now - load64(words + MANY_NS) < LATELY_NS
        if many or now - load64(words + MOVED_NS) > LATELY_NS:
            if wait_fds(pollfd, 1, LATELY_NS if many else LONGEST_SLEEP_NS) > 0:
                drain_eventfd(state.control[0].watcher_wake[me])
            continue
        looks += 1
        store64(words + LOOKS + 8 * me, looks)
        for _ in range(RESTS):
            relax_core()
        if load64(words + NAPPING) and _news(state, told):
            signal_eventfd(state.control[0].kick)
    return 0
