"""Where things lie in an ENA's BARs: the device is free to choose, and tells its driver in its answers.

    BAR0  page 0  device registers, clock doorbell               traps: a write wakes the control side
          page 1  doorbells of submission queues                 memory that guest and loop share: no trap
          page 2  interrupt registers, one for each vector       likewise
          page 3  completion heads, NUMA nodes: nobody reads      likewise
    BAR1          MSI-X table and pending bits                    traps
    BAR2          low-latency queues: descriptors and headers     memory that guest and loop share

Two words that are written often never share a cache line. A vector's interrupt register is answered for each of its
completion queues: drivers arm a vector by whichever they like.
"""

BAR0_SIZE = 0x4000
BAR1_SIZE = 0x4000
PAGES = 0x1000  # from here on BAR0 is memory
LINE = 64  # bytes

DOORBELLS = 0x1000
INTERRUPTS = 0x2000
COMPLETION_HEADS = 0x3000
NUMA_NODES = 0x3004

MSIX_VECTORS = 33  # one for admin completions and events, 32 for queues
MSIX_PBA_OFFSET = 0x2000
ADMIN_VECTOR = 0

LLQ_BYTES = 0x20000  # of BAR2 for each transmit queue: 1,024 entries of 128 bytes
MAX_DEPTH = 8192  # entries of a ring in host memory


def tx_doorbell(slot: int) -> int:
    return DOORBELLS + LINE * 2 * slot


def tx_slot(doorbell: int) -> int:
    """The transmit queue whose doorbell lies there."""
    return (doorbell - DOORBELLS) // (LINE * 2)


def rx_doorbell(slot: int) -> int:
    return DOORBELLS + LINE * (2 * slot + 1)


def interrupt_register(vector: int) -> int:
    return INTERRUPTS + LINE * vector


def completion_head(cq: int) -> int:
    return COMPLETION_HEADS + LINE * cq


def numa_node(cq: int) -> int:
    return NUMA_NODES + LINE * cq


def llq_offset(slot: int) -> int:
    """In BAR2."""
    return LLQ_BYTES * slot


def bar2_size(queues: int) -> int:
    """The next power of two: a BAR's size can be nothing else."""
    return LLQ_BYTES << (queues - 1).bit_length()
