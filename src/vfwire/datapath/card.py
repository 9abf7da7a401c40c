"""The card's loop: every function's transmit queues in turn, what comes in over links, and interrupts. Then again.

With nothing to do it polls on, lets others have the core, and after `spin_ns` naps (nap.py).
"""

from vfwire.datapath.allowance import count_queued, held_by, top_up_allowances
from vfwire.datapath.control_record import OFFSETS
from vfwire.datapath.ena_burst import ena_burst
from vfwire.datapath.ena_frame import ena_frame
from vfwire.datapath.ena_interrupts import raise_posted
from vfwire.datapath.ena_queues import submitted
from vfwire.datapath.interrupts import note_cause, raise_due
from vfwire.datapath.ixgbevf_burst import plain_burst
from vfwire.datapath.ixgbevf_frame import take_descriptors
from vfwire.datapath.ixgbevf_queues import HEAD, scan, tx_tail
from vfwire.datapath.nap import nap, note_traffic
from vfwire.datapath.rate import PLENTY, keep, settle, top_up
from vfwire.datapath.route import receive_from_link
from vfwire.datapath.state import MODEL_82599, MODEL_ENA, QUEUES, CardState, new_state
from vfwire.datapath.statistics import publish_statistics
from vfwire.memory.compiled import compiled, inlined
from vfwire.memory.words import clock_ns, load64, store32, store64, yield_core

REQUEST, ACKNOWLEDGED, STOP, STARTED = (
    OFFSETS[name] for name in ("request", "acknowledged", "stop", "started")
)
BUDGET = 256  # descriptors of one queue before the next queue has its turn
TURN = 1 << 19  # bytes copied, and FRAME for each frame: one descriptor can ask for 32,768 segments
ROUND = 1 << 20  # the same of all queues, before interrupts, requests and clocks have theirs
FRAME = 64
SCAN_ROUNDS = 64  # busy rounds between two looks for newly enabled rings
PATIENCE = (
    6  # while a sender waits for credit the core is kept 64 times as long: given away, line rate is lost
)


@inlined
def _pending(state, function, number):  # type: ignore[no-untyped-def]
    """Descriptors that a transmit queue's driver has announced and the loop not taken; none of a queue that went."""
    queue = state.tx[function * QUEUES + number]
    if state.functions[function].model == MODEL_ENA:
        return max(submitted(state, function, queue), 0)
    tail = tx_tail(state, function, number)
    if tail < 0:
        return 0
    pending = tail - queue.head
    return pending if pending >= 0 else pending + queue.size


@inlined
def _burst(state, function, number, most, limit, metered):  # type: ignore[no-untyped-def]
    """The model's fast path: (descriptors taken, credit left, 1 if a completion is to be told of)."""
    if state.functions[function].model == MODEL_ENA:
        taken, left = ena_burst(state, function, number, most, limit, metered)
        return taken, left, 0
    return plain_burst(state, function, number, most, limit, metered)


@inlined
def _frame(state, function, number, pending, link_credit):  # type: ignore[no-untyped-def]
    """The model's general path: (descriptors taken, cost, cost on the link, 1 if a completion is to be told of)."""
    if state.functions[function].model == MODEL_ENA:
        return ena_frame(state, function, number, pending, link_credit)
    return take_descriptors(state, function, number, pending, link_credit)


@inlined
def _moved(record):  # type: ignore[no-untyped-def]
    return record.tx_bytes + record.tx_frames * FRAME


@inlined
def _serve(state, function, number, now, looked):  # type: ignore[no-untyped-def]
    """One turn of one transmit queue. looked: when it had one before, 0 for never. Returns how many descriptors were
    taken.
    """
    pending = _pending(state, function, number)
    if pending == 0:
        return 0
    queue = state.tx[function * QUEUES + number]
    record = state.functions[function]
    card = state.cards[record.card]
    budget = min(pending, BUDGET)
    away = now - max(looked, state.control[0].rested_ns) if looked else 0
    credit, link_credit = top_up(record, now, away), top_up(card, now, away)
    asked, done, work, crossed = 0, 0, 0, 0
    while done < budget and credit > 0 and work < TURN and queue.on:
        taken, cost, link_cost, completion, copies = 0, 0, 0, 0, 1
        before = _moved(record)
        if record.metered:
            holder = held_by(state, function)
            if holder:
                queue.held, queue.held_by = pending - done, holder
                state.control[0].waiting = 1
                break
        if queue.to >= 0:
            crosses = state.functions[queue.to].card != record.card
            limit = min(credit, link_credit) if crosses else credit
            metered = 0 if limit == PLENTY else 1
            taken, left, completion = _burst(state, function, number, budget - done, limit, metered)
            cost = limit - left
            link_cost = cost if crosses else 0
        if taken == 0:
            taken, cost, link_cost, completion = _frame(state, function, number, pending - done, link_credit)
            if taken == 0:
                break
            copies = max(state.in_hand[0].targets, 1)
        if record.metered:
            count_queued(state, function, queue, taken, cost > 0)
        done += taken
        work += max((_moved(record) - before) * copies, taken * FRAME)  # what is dropped takes its time, too
        crossed += link_cost
        asked |= completion
        if record.rate_bps:
            credit -= cost
        if card.rate_bps:
            link_credit -= link_cost
    waiting = done < pending
    cut = waiting and (done >= budget or work >= TURN)
    state.control[0].work += work
    keep(record, credit, cut or (waiting and credit <= 0))
    keep(card, link_credit, (cut and crossed > 0) or (waiting and link_credit <= 0))
    if waiting and credit <= 0:
        record.throttled += 1
    if waiting and (credit <= 0 or link_credit <= 0):
        state.control[0].waiting = 1
    if done and queue.on and record.model == MODEL_82599:
        store32(queue.registers + HEAD, queue.head)
    if asked:
        note_cause(state, function, record.tx_vector[number])
    return done


@inlined
def _look_at(state, function, now):  # type: ignore[no-untyped-def]
    """A turn of each of a function's transmit queues, as long as the round lasts. Returns how much was moved."""
    control, record = state.control[0], state.functions[function]
    looked, record.looked_ns = record.looked_ns, now
    turns = record.turns
    resumed = turns > 0
    if not resumed:
        turns, record.short = record.tx_queues, 0
    moved = 0
    while turns > 0 and control.work < ROUND:
        turns -= 1
        if state.tx[function * QUEUES + turns].on:
            moved += _serve(state, function, turns, now, looked)
    if turns != record.turns:
        record.turns = turns
    if turns == 0 and (resumed or record.credit_ns == now):
        settle(record)
    return moved


@inlined
def _look_at_all(state, now, look):  # type: ignore[no-untyped-def]
    """A turn of every queue, or of as many as a round lasts for: the next one goes on where this one ends."""
    control = state.control[0]
    control.work = 0
    for card in range(control.cards):
        state.cards[card].short = 0
    moved, function = 0, control.next
    for _ in range(control.functions):
        if function >= control.functions:
            function = 0
        record = state.functions[function]
        if record.dma == 0:
            record.looked_ns = record.turns = 0
            function += 1
            continue
        if record.metered:
            top_up_allowances(state, function, now)
        if look and record.model == MODEL_82599:
            scan(state, function)
        moved += _look_at(state, function, now)
        if control.work >= ROUND:
            control.next = function if record.turns else function + 1
            return moved
        function += 1
    for card in range(control.cards):
        settle(state.cards[card])
    return moved


@inlined
def _round(state, now, look):  # type: ignore[no-untyped-def]
    """Everything once. look: also search for rings that were enabled or disabled. Returns how much was moved."""
    state.control[0].waiting = 0
    moved = _look_at_all(state, now, look)
    for card in range(state.control[0].cards):
        if state.cards[card].ring_in:
            moved += receive_from_link(state, card)
    state.control[0].due = 0
    for function in range(state.control[0].functions):
        record = state.functions[function]
        if record.posted:
            raise_posted(state, function, now)
        if record.causes & record.mask:
            raise_due(state, function, now)
        if look and record.model == MODEL_82599:
            publish_statistics(state, function)
    return moved


@compiled
def run_card(state):  # type: ignore[no-untyped-def]
    """Run until `stop`. Each round looks at `request`: while it is odd the loop stands still, off all guest memory."""
    control = state.control[0]
    words = control.address
    store64(words + STARTED, 1)
    quiet = 0
    idle_since = clock_ns()
    while load64(words + STOP) == 0:
        request = load64(words + REQUEST)
        if request != load64(words + ACKNOWLEDGED):
            store64(words + ACKNOWLEDGED, request)
        if request & 1:
            yield_core()
            continue
        now = clock_ns()
        control.rounds += 1
        moved = _round(state, now, quiet > 0 or control.rounds % SCAN_ROUNDS == 0)
        if moved:
            control.busy_rounds += 1
            quiet = 0
            idle_since = now
            if not control.polled:
                note_traffic(control, now, moved)
            if control.crowded:
                control.crowded = 0
                yield_core()
            continue
        quiet += 1
        spin = control.spin_ns if control.polled else 0
        if now - idle_since > spin and control.waiting == 0:
            nap(control, now - idle_since)
            control.rested_ns = clock_ns()
        elif quiet > control.quiet_rounds << (PATIENCE if control.waiting else 0):
            yield_core()


@compiled
def run_round(state, now, look):  # type: ignore[no-untyped-def]
    """One round, at a time `now` in ns that the caller names; see `_round`. What a simulation or a test drives."""
    return _round(state, now, look)


def warm_up() -> None:
    """Compile the loop, or load it from the cache: never while a client waits. Takes seconds on a fresh machine."""
    state: CardState = new_state([1])
    state.control[0].stop = 1
    run_card(state)
