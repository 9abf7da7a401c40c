"""Two cores hand one cache line to and fro: the floor under every two-core figure on this machine."""

from vfwire.memory.compiled import compiled
from vfwire.memory.words import clock_ns, load64, store64

STOP = -1
SPINS_BETWEEN_CLOCKS = 256


@compiled
def ping(word, samples, count, rounds, deadline):  # type: ignore[no-untyped-def]
    """Fill int64 samples[:count] with the nanoseconds that `rounds` round trips took; returns how many it filled.

    `word` is the address of an int64 on a cache line of its own, 0 at the start. Even: ours to move, odd: theirs.
    At `deadline` (CLOCK_MONOTONIC, ns) the word becomes STOP and both sides return.
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
                if spins % SPINS_BETWEEN_CLOCKS == 0 and clock_ns() > deadline:
                    store64(word, STOP)
                    return sample
        samples[sample] = clock_ns() - begin
    store64(word, STOP)
    return count


@compiled
def pong(word, deadline):  # type: ignore[no-untyped-def]
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
