"""Into one receiver's ring: the queue by RSS, the tag as the receiver wants it, as many buffers as it takes.

(82599 datasheet 7.1.2 RSS, 7.1.6 descriptors, 7.4.4 VLAN strip.) A full or disabled ring is a counted drop, never a
wait.
"""

from vfwire.datapath.in_hand import checksums, tag_put_back
from vfwire.datapath.interrupts import note_cause
from vfwire.datapath.ixgbevf_queues import rx_publish, rx_room
from vfwire.datapath.ixgbevf_receive import checksum_bits, fill_buffers, split
from vfwire.datapath.packet import packet_type, parse_prefix
from vfwire.datapath.rss import rss_hash
from vfwire.datapath.state import QUEUES, RETA_ENTRIES, Drop
from vfwire.layouts.ethernet import VLAN_BYTES
from vfwire.layouts.ixgbe_descriptors import RXD_STAT_VP
from vfwire.memory.compiled import inlined
from vfwire.memory.unaligned import read64

NO_ROOM = int(Drop.NO_RX_DESCRIPTOR)
DISABLED = int(Drop.RX_DISABLED)
LINK_IS_DOWN = int(Drop.LINK_DOWN)
TOO_LONG = int(Drop.TOO_LONG)


@inlined
def _queue_and_hash(state, function, header, kind, l2, l3):  # type: ignore[no-untyped-def]
    """(receive queue, hash, RSS type) as the function's RSS has it."""
    record = state.functions[function]
    if not record.rss:
        return 0, 0, 0
    value, rss_type = rss_hash(state.toeplitz[function], header, kind, l2, l3, record.rss)
    if rss_type == 0:
        return 0, 0, 0
    entry = state.reta[function, value & (RETA_ENTRIES - 1)]
    return entry & (record.rx_queues - 1), value, rss_type


@inlined
def _refusal(inbox, room, total, front, longest):  # type: ignore[no-untyped-def]
    """-1, or why a frame of `total` bytes cannot go into a queue that has `room` descriptors (-1: not enabled).

    front: bytes of it that go into a header buffer.
    """
    if room < 0:
        return DISABLED
    if total > longest:
        return TOO_LONG
    if max((total - front + inbox.buffer_bytes - 1) // inbox.buffer_bytes, 1) > room:
        return NO_ROOM
    return -1


@inlined
def deliver(state, function):  # type: ignore[no-untyped-def]
    """Copy the frame in hand (state.IN_HAND) to `function`, or count why not."""
    hand, record = state.in_hand[0], state.functions[function]
    if not record.link_up or record.dma == 0:
        state.drops[function, DISABLED if record.link_up else LINK_IS_DOWN] += 1
        return
    header, header_length, longest = hand.header, hand.header_length, record.max_frame
    tag = 0 if record.port_vlan else hand.tag
    kind, l2, l3, l4, protocol, l4_bytes = parse_prefix(header, header_length, header_length + hand.count)
    number, value, rss_type = _queue_and_hash(state, function, header, kind, l2, l3)
    inbox = state.rx[function * QUEUES + number]
    room = rx_room(state, function, number)
    group = read64(header) & 1
    in_line = VLAN_BYTES if tag and not inbox.strip_vlan else 0
    total = header_length + hand.count + in_line
    front, split_bits, split_error = split(inbox, kind, l2 + in_line, l3, l4, record.psrtype, total)
    cause = _refusal(inbox, room, total, front, longest + in_line)
    if cause >= 0:
        state.drops[function, cause] += 1
        return
    status = checksum_bits(checksums(state, kind, l2, l3, protocol, l4_bytes)) | split_error
    if tag:
        status |= RXD_STAT_VP
    if in_line:
        header = tag_put_back(header, header_length, tag)
        header_length += VLAN_BYTES
    word0 = rss_type | packet_type(kind) | split_bits | (value << 32)
    vlan = 0 if in_line else tag
    if not fill_buffers(state, function, inbox, header, header_length, total, front, word0, status, vlan):
        return
    rx_publish(inbox)
    inbox.frames += 1
    inbox.bytes += total
    record.rx_frames += 1
    record.rx_bytes += total
    record.copied += total
    record.rx_multicast += group
    note_cause(state, function, record.rx_vector[number])
