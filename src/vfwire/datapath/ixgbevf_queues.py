"""Rings of an 82599 VF: taken over from registers that the guest writes, and let go (82599 datasheet 7.1.9, 7.2.3.5).

The queue registers lie in pages that the guest maps: writing them is not seen as it happens, so the loop compares. A
ring is latched when its ENABLE bit is found set, and again when the registers are not as the loop took them over, or
left them (the head): then the driver has set the ring up anew between two looks.
"""

from vfwire.datapath.dma import find_map, hits, stop_function
from vfwire.datapath.state import QUEUES, Drop
from vfwire.layouts.ixgbe_descriptors import DESCRIPTOR_SIZE
from vfwire.layouts.ixgbevf import (
    QUEUE_STRIDE,
    RXDCTL_ENABLE,
    RXDCTL_VME,
    SRRCTL_BSIZEPKT_MASK,
    SRRCTL_BSIZEPKT_UNIT,
    SRRCTL_DESCTYPE_ADV_ONEBUF,
    SRRCTL_DESCTYPE_MASK,
    TDWBAL_HEAD_WB_ENABLE,
    TXDCTL_ENABLE,
    VFRDBAL,
    VFRDH,
    VFRDLEN,
    VFRDT,
    VFRXDCTL,
    VFSRRCTL,
    VFTDBAL,
    VFTDT,
    VFTDWBAL,
    VFTXDCTL,
)
from vfwire.memory.compiled import inlined
from vfwire.memory.words import load32, load64, store32

# Offsets within a queue's register block; the receive and the transmit block have the same shape.
BASE = 0x00
LENGTH = VFRDLEN - VFRDBAL
HEAD = VFRDH - VFRDBAL
SRRCTL = VFSRRCTL - VFRDBAL
TAIL = VFRDT - VFRDBAL
CONTROL = VFRXDCTL - VFRDBAL
WRITE_BACK = VFTDWBAL - VFTDBAL
assert TAIL == VFTDT - VFTDBAL
assert CONTROL == VFTXDCTL - VFTDBAL
assert RXDCTL_ENABLE == TXDCTL_ENABLE
ENABLE = RXDCTL_ENABLE
LONGEST_RING = 1 << 20  # bytes: VFRDLEN and VFTDLEN have 20 bits
BAD_DMA = int(Drop.BAD_DMA)
BAD_DESCRIPTOR = int(Drop.BAD_DESCRIPTOR)


@inlined
def _changed(queue, registers):  # type: ignore[no-untyped-def]
    """The registers tell of another ring, or of another place in it, than the loop has."""
    return (
        load32(registers + HEAD) != queue.head
        or load64(registers + BASE) & ~0x7F != queue.ring_iova
        or load32(registers + LENGTH) & ~0x7F != queue.size * DESCRIPTOR_SIZE
    )


@inlined
def _buffer_bytes(registers):  # type: ignore[no-untyped-def]
    """The size of receive buffers; 0 stands for the datasheet's value after reset."""
    size = load32(registers + SRRCTL) & SRRCTL_BSIZEPKT_MASK & 0x1F
    return size * SRRCTL_BSIZEPKT_UNIT if size else 2 * SRRCTL_BSIZEPKT_UNIT


@inlined
def _latch_format(queue, registers):  # type: ignore[no-untyped-def]
    """How this queue's buffers and descriptors look: its VFSRRCTL."""
    queue.srrctl = load32(registers + SRRCTL)
    queue.buffer_bytes = _buffer_bytes(registers)
    queue.one_buffer = 1 if queue.srrctl & SRRCTL_DESCTYPE_MASK == SRRCTL_DESCTYPE_ADV_ONEBUF else 0


@inlined
def _latch(state, function, queue, registers):  # type: ignore[no-untyped-def]
    """Take over base, length and head. A ring that is not wholly in writable guest memory stops the function."""
    base = load64(registers + BASE) & ~0x7F
    length = load32(registers + LENGTH) & ~0x7F
    head = load32(registers + HEAD)
    queue.registers = registers
    queue.ring_iova = base
    queue.size = length // DESCRIPTOR_SIZE
    if length == 0 or length > LONGEST_RING or head >= queue.size:
        stop_function(state, function, BAD_DESCRIPTOR)
        return False
    queue.map_end = 0
    if not find_map(state, function, queue, base, length, 1):
        stop_function(state, function, BAD_DMA)
        return False
    queue.ring = base + queue.map_delta
    queue.head = head
    queue.on = 1
    return True


@inlined
def latch_tx(state, function, number):  # type: ignore[no-untyped-def]
    queue = state.tx[function * QUEUES + number]
    queue.to = -1
    queue.key0 = 0
    registers = state.functions[function].pages + VFTDBAL + number * QUEUE_STRIDE
    write_back = load64(registers + WRITE_BACK)
    queue.head_iova = write_back & ~3 if write_back & TDWBAL_HEAD_WB_ENABLE else 0
    return _latch(state, function, queue, registers)


@inlined
def latch_rx(state, function, number):  # type: ignore[no-untyped-def]
    queue = state.rx[function * QUEUES + number]
    registers = state.functions[function].pages + VFRDBAL + number * QUEUE_STRIDE
    _latch_format(queue, registers)
    queue.strip_vlan = 1 if load32(registers + CONTROL) & RXDCTL_VME else 0
    if not _latch(state, function, queue, registers):
        return False
    queue.tail = queue.head
    return True


@inlined
def tx_tail(state, function, number):  # type: ignore[no-untyped-def]
    """The tail of an enabled transmit queue, or -1: disabled, or stopped for a tail beyond its ring."""
    queue = state.tx[function * QUEUES + number]
    registers = queue.registers
    tail = load32(registers + TAIL)
    if tail == queue.head and load32(registers + HEAD) == tail:
        return tail
    if not load32(registers + CONTROL) & ENABLE:
        queue.on = 0
        return -1
    if _changed(queue, registers) and not latch_tx(state, function, number):
        return -1
    tail = load32(registers + TAIL)
    if tail >= queue.size:
        stop_function(state, function, BAD_DESCRIPTOR)
        return -1
    return tail


@inlined
def rx_room(state, function, number):  # type: ignore[no-untyped-def]
    """Look at the tail again: how many receive descriptors there are, or -1 when the queue is not enabled."""
    queue = state.rx[function * QUEUES + number]
    record = state.functions[function]
    if not queue.on:  # enabled since the last scan, perhaps: a frame that comes this early is not lost
        if record.dma == 0 or not load32(record.pages + VFRXDCTL + number * QUEUE_STRIDE) & ENABLE:
            return -1
        if not latch_rx(state, function, number):
            return -1
    registers = queue.registers
    control = load32(registers + CONTROL)
    if not control & ENABLE:
        queue.on = 0
        return -1
    queue.strip_vlan = 1 if control & RXDCTL_VME else 0
    changed = _changed(queue, registers) or load32(registers + SRRCTL) != queue.srrctl
    if changed and not latch_rx(state, function, number):
        return -1
    tail = load32(registers + TAIL)
    if tail >= queue.size:
        stop_function(state, function, BAD_DESCRIPTOR)
        return -1
    queue.tail = tail
    room = tail - queue.head
    return room if room >= 0 else room + queue.size


@inlined
def rx_publish(queue):  # type: ignore[no-untyped-def]
    """Show the head: after each burst into the queue."""
    store32(queue.registers + HEAD, queue.head)


@inlined
def scan(state, function):  # type: ignore[no-untyped-def]
    """Look for rings that were enabled or disabled since the last look."""
    record = state.functions[function]
    for number in range(record.rx_queues):
        queue = state.rx[function * QUEUES + number]
        control = load32(record.pages + VFRXDCTL + number * QUEUE_STRIDE)
        if not control & ENABLE:
            queue.on = 0
        elif not queue.on and not latch_rx(state, function, number):
            return
    for number in range(record.tx_queues):
        queue = state.tx[function * QUEUES + number]
        control = load32(record.pages + VFTXDCTL + number * QUEUE_STRIDE)
        if not control & ENABLE:
            queue.on = 0
        elif not queue.on and not latch_tx(state, function, number):
            return


@inlined
def buffer_address(state, function, queue, start, length, writable):  # type: ignore[no-untyped-def]
    """A guest's buffer as an address here, or 0 where the guest may not DMA (counted)."""
    if not hits(queue, start, length) and not find_map(state, function, queue, start, length, writable):
        return 0
    return start + queue.map_delta
