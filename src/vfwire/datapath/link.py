"""The link between the cards of two processes: a ring of bytes in shared memory, one writer and one reader each way.

    offset 0    u64  read position (free-running, the reader's)
    offset 64   u64  write position (free-running, the writer's)
    offset 128  data, LINK_BYTES of it

A record is a u32 length, a u32 tag (802.1Q tag control information, 0 for none) and the frame, padded to 16 bytes; a
length of SKIP means "go on at the start". A frame is copied into the ring and out of it: the second copy that two
processes cost. The reader believes nothing: a record that does not fit takes the link down. The writer never waits for
room; it tells its loop that the reader has much to do, who may be waiting for the very core that the loop is on.
"""

from vfwire.datapath.segment import gather_copy
from vfwire.memory.compiled import inlined
from vfwire.memory.words import copy, load32, load64, store32, store64

LINK_BYTES = 1 << 20
LINK_MEMORY = 128 + LINK_BYTES
READ, WRITE, DATA = 0, 64, 128
RECORD = 8
SKIP = 0xFFFFFFFF
LONGEST = 16384
LAST = 1 << 62  # position: so far no link gets in a lifetime


@inlined
def link_push(state, ring):  # type: ignore[no-untyped-def]
    """Write the frame in hand. False when there is no room."""
    hand = state.in_hand[0]
    length = hand.header_length + hand.count
    need = (RECORD + length + 15) & ~15
    write = load64(ring + WRITE)
    used = write - load64(ring + READ)
    place = write & (LINK_BYTES - 1)
    rest = LINK_BYTES - place
    extra = rest if rest < need else 0
    if used > LINK_BYTES // 2:
        state.control[0].crowded = 1
    if used < 0 or used > LINK_BYTES - need - extra or length > LONGEST or not 0 <= write <= LAST:
        return False
    if extra:
        store32(ring + DATA + place, SKIP)
        write += extra
        place = 0
    record = ring + DATA + place
    store32(record, length)
    store32(record + 4, hand.tag)
    copy(record + RECORD, hand.header, hand.header_length)
    if hand.count:
        to = record + RECORD + hand.header_length
        gather_copy(to, state.gather[0], state.gather[1], hand.entries, hand.offset, hand.count)
    store64(ring + WRITE, write + need)
    return True


@inlined
def link_peek(ring):  # type: ignore[no-untyped-def]
    """(address, length, tag, next read position) of the next frame; length 0: none; -1: the writer broke the rules."""
    read = load64(ring + READ)
    used = load64(ring + WRITE) - read
    if used == 0:
        return 0, 0, 0, read
    place = read & (LINK_BYTES - 1)
    if used < 0 or used > LINK_BYTES or read & 15 or not 0 <= read <= LAST:
        return 0, -1, 0, read
    length = load32(ring + DATA + place)
    if length == SKIP:
        read += LINK_BYTES - place
        used -= LINK_BYTES - place
        place = 0
        length = load32(ring + DATA)
    need = (RECORD + length + 15) & ~15
    if length < 14 or length > LONGEST or need > used or place + need > LINK_BYTES:
        return 0, -1, 0, read
    return ring + DATA + place + RECORD, length, load32(ring + DATA + place + 4) & 0xFFFF, read + need


@inlined
def link_release(ring, read):  # type: ignore[no-untyped-def]
    """Give the room up to `read` back to the writer."""
    store64(ring + READ, read)
