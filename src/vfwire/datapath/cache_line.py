"""Two threads hand one cache line to and fro. On two cores that is the floor under every two-core figure; on one core,
giving way to each other, it is what two switches cost, which every round trip between systems that share a core holds.
"""

from vfwire.memory.compiled import compiled
from vfwire.memory.words import clock_ns, load64, store64, yield_core

STOP = -1
SPINS_BETWEEN_CLOCKS = 256


@compiled
def ping(word, samples, count, rounds, deadline, give_way):  # type: ignore[no-untyped-def]
    """Fill int64 samples[:count] with the nanoseconds that `rounds` round trips took; returns how many it filled.

    `word` is the address of an int64 on a cache line of its own, 0 at the start. Even: ours to move, odd: theirs.
    At `deadline` (CLOCK_MONOTONIC, ns) the word becomes STOP and both sides return. give_way: the core is offered to
    others at every look in vain.
    """
    value = 0
    for sample in range(count):
        begin = clock_ns()
        for _ in range(rounds):
            store64(word, value + 1)
            value += 2
            spins = 0
            while load64(word) != value:
                spins += 1
                if give_way:
                    yield_core()
                if spins % SPINS_BETWEEN_CLOCKS == 0 and clock_ns() > deadline:
                    store64(word, STOP)
                    return sample
        samples[sample] = clock_ns() - begin
    store64(word, STOP)
    return count


@compiled
def pong(word, deadline, give_way):  # type: ignore[no-untyped-def]
    """Answer `ping` until it writes STOP or `deadline` has passed; returns the round trips answered."""
    value = 1
    spins = 0
    while True:
        seen = load64(word)
        if seen == value:
            store64(word, value + 1)
            value += 2
            spins = 0
            continue
        spins += 1
        if seen == STOP or (spins % SPINS_BETWEEN_CLOCKS == 0 and clock_ns() > deadline):
            return value // 2
        if give_way:
            yield_core()
