"""Transmit offloads (82599 datasheet 7.2.4, 7.2.5): ranges of a gather list, checksums, TCP segments.

A gather list is `addresses`, `lengths` (int64 arrays, first `entries` of each): pieces of a frame that lie
in a guest's memory. The headers that are worked on lie in private memory, out of that guest's reach. What a
guest writes into its payload while it is summed makes its own checksum wrong, and nothing else.
"""

from vfwire.datapath.checksum import at_odd_offset, checksum_field, fold, pseudo_header, sum_words, swap16
from vfwire.datapath.crc32c import CRC32C_START, crc32c, crc32c_zero
from vfwire.layouts.ethernet import (
    ETHERNET_BYTES,
    IPV4_BYTES,
    IPV4_CHECKSUM,
    IPV4_IDENTIFICATION,
    IPV4_MAXIMUM_BYTES,
    IPV4_TOTAL_LENGTH,
    IPV6_BYTES,
    IPV6_PAYLOAD_LENGTH,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    SCTP_BYTES,
    SCTP_CHECKSUM,
    TCP_BYTES,
    TCP_CHECKSUM,
    TCP_CWR,
    TCP_FIN,
    TCP_FLAGS,
    TCP_MAXIMUM_BYTES,
    TCP_PSH,
    TCP_SEQUENCE,
    UDP_BYTES,
    UDP_CHECKSUM,
)
from vfwire.layouts.ixgbe_descriptors import TXD_PAYLEN_MAX
from vfwire.memory.compiled import always_inlined
from vfwire.memory.unaligned import read16, read16_be, read32_be, write16, write16_be, write32, write32_be
from vfwire.memory.words import copy, load8, store8

MINIMUM_MSS = 8  # the least that a Linux guest asks for (include/net/tcp.h, TCP_MIN_GSO_SIZE)
CANNOT, FILLED, FILLED_FROM_A_WRONG_SEED = 0, 1, 2
LONGEST_L2 = 127  # MACLEN's 7 bits
LONGEST_L3 = 511  # IPLEN's 9 bits
_LOW32 = 0xFFFF_FFFF
_SEQUENCE_SHIFT = 24
_IPV6_BIT = 1 << 56


@always_inlined
def gather_copy(to, addresses, lengths, entries, offset, count):  # type: ignore[no-untyped-def]
    """Copy bytes [offset, offset + count) of the gather list to `to`. Returns how many there were."""
    offset = max(offset, 0)
    done = 0
    for entry in range(entries):
        if done >= count:
            break
        length = lengths[entry]
        if offset >= length:
            offset -= max(length, 0)
            continue
        piece = min(length - offset, count - done)
        copy(to + done, addresses[entry] + offset, piece)
        done += piece
        offset = 0
    return done


@always_inlined
def gather_sum(addresses, lengths, entries, offset, count):  # type: ignore[no-untyped-def]
    """The partial (see checksum.py) of bytes [offset, offset + count) that there are, as if contiguous."""
    offset = max(offset, 0)
    total = 0
    done = 0
    for entry in range(entries):
        if done >= count:
            break
        length = lengths[entry]
        if offset >= length:
            offset -= max(length, 0)
            continue
        piece = min(length - offset, count - done)
        partial = sum_words(addresses[entry] + offset, piece, 0)
        total += at_odd_offset(partial) if done & 1 else partial
        total = (total & _LOW32) + (total >> 32)
        done += piece
        offset = 0
    return total


@always_inlined
def valid_offload(l2, l3, l4, mss, header_len, total):  # type: ignore[no-untyped-def]
    """Whether the lengths that a guest gave make sense; what follows here may only be called if they do.

    l2, l3, l4: header bytes. mss: 0 for checksums alone (l4 is not looked at then). header_len: bytes at the
    front of the frame that are private. total: bytes of the whole frame; with segmentation, of all of its
    payload and headers.
    """
    if l2 < ETHERNET_BYTES or l2 > LONGEST_L2 or l3 < IPV4_BYTES or l3 > LONGEST_L3 or l3 & 3:
        return False
    if header_len > total or l2 + l3 > header_len:
        return False
    if mss == 0:
        return True
    if l4 < TCP_BYTES or l4 > TCP_MAXIMUM_BYTES or l4 & 3 or l2 + l3 + l4 > header_len:
        return False
    return MINIMUM_MSS <= mss <= 0xFFFF - l3 - l4 and total - l2 - l3 - l4 <= TXD_PAYLEN_MAX


@always_inlined
def _valid_l3(l3, is_ipv6):  # type: ignore[no-untyped-def]
    return l3 >= IPV6_BYTES if is_ipv6 else IPV4_BYTES <= l3 <= IPV4_MAXIMUM_BYTES


@always_inlined
def _fill_ip(l3_address, l3):  # type: ignore[no-untyped-def]
    """Fill in the checksum of the IPv4 header of `l3` bytes, which is 0 in it."""
    if l3 == IPV4_BYTES:
        partial = sum_words(l3_address, IPV4_BYTES, 0)
    else:
        partial = sum_words(l3_address, l3, 0)
    write16(l3_address + IPV4_CHECKSUM, checksum_field(partial))


@always_inlined
def _l4_bytes(l3_address, l3, is_ipv6, room, least):  # type: ignore[no-untyped-def]
    """Bytes of L4 as the IP header counts them, so that padding stays out; `room` where it makes no sense."""
    if is_ipv6:
        counted = read16_be(l3_address + IPV6_PAYLOAD_LENGTH) + IPV6_BYTES - l3
    else:
        counted = read16_be(l3_address + IPV4_TOTAL_LENGTH) - l3
    return counted if least <= counted <= room else room


@always_inlined
def sctp_checksum(l4_address, here, l4_bytes, addresses, lengths, entries, offset):  # type: ignore[no-untyped-def]
    """What belongs into SCTP's checksum field, as a little-endian int (RFC 9260 6.8 and appendix A).

    The first `here` (12 or more) bytes of L4 are private at `l4_address`, the rest begins at `offset` of the
    gather list.
    """
    crc = crc32c(CRC32C_START, l4_address, SCTP_CHECKSUM)
    for _ in range(SCTP_BYTES - SCTP_CHECKSUM):
        crc = crc32c_zero(crc)
    crc = crc32c(crc, l4_address + SCTP_BYTES, here - SCTP_BYTES)
    done = here
    for entry in range(entries):
        start = min(max(offset, 0), lengths[entry])
        piece = min(lengths[entry] - start, l4_bytes - done)
        if piece > 0:
            crc = crc32c(crc, addresses[entry] + start, piece)
            done += piece
        offset -= lengths[entry]
    return crc ^ CRC32C_START


@always_inlined
def fill_l4(  # type: ignore[no-untyped-def]
    header, header_len, l2, l3, is_ipv6, protocol, seeded, addresses, lengths, entries, offset, count
):
    """Fill in the TCP, UDP or SCTP checksum in the private header. Arguments and result as of `fill_checksums`."""
    field, least = TCP_CHECKSUM, TCP_BYTES
    if protocol == PROTOCOL_UDP:
        field, least = UDP_CHECKSUM, UDP_BYTES
    elif protocol == PROTOCOL_SCTP:
        field, least = SCTP_CHECKSUM, SCTP_BYTES
    elif protocol != PROTOCOL_TCP:
        return CANNOT
    l3_address, l4_address = header + l2, header + l2 + l3
    here = header_len - l2 - l3
    if here < least or not _valid_l3(l3, is_ipv6):
        return CANNOT
    l4_bytes = _l4_bytes(l3_address, l3, is_ipv6, here + count, least)
    here = min(here, l4_bytes)
    if protocol == PROTOCOL_SCTP:
        crc = sctp_checksum(l4_address, here, l4_bytes, addresses, lengths, entries, offset)
        write32(l4_address + SCTP_CHECKSUM, crc)
        return FILLED
    seed = pseudo_header(l3_address, is_ipv6, protocol, l4_bytes)
    done = FILLED
    if seeded:
        given = read16(l4_address + field)
        if given % 0xFFFF != fold(seed) % 0xFFFF:
            done = FILLED_FROM_A_WRONG_SEED
        seed = given
    write16(l4_address + field, 0)
    partial = sum_words(l4_address, here, seed)
    if l4_bytes > here:
        rest = gather_sum(addresses, lengths, entries, offset, l4_bytes - here)
        partial += at_odd_offset(rest) if here & 1 else rest
    value = checksum_field(partial)
    if value == 0 and protocol == PROTOCOL_UDP:
        value = 0xFFFF
    write16(l4_address + field, value)
    return done


@always_inlined
def fill_checksums(  # type: ignore[no-untyped-def]
    header,
    header_len,
    l2,
    l3,
    is_ipv6,
    protocol,
    want_ip,
    want_l4,
    seeded,
    addresses,
    lengths,
    entries,
    offset,
    count,
):
    """Fill in what a plain frame asked for (IXSM, TXSM). Returns FILLED, CANNOT, or FILLED_FROM_A_WRONG_SEED.

    header: private, `header_len` bytes; the rest of the frame is bytes [offset, offset + count) of the
    gather list. l2, l3: as `valid_offload` let them pass. is_ipv6, protocol: as the descriptor says (6 TCP,
    17 UDP, 132 SCTP, whose checksum is a CRC32c without a pseudo header). want_ip: the IPv4 header checksum
    (nothing to do over IPv6). want_l4: TCP's, UDP's or SCTP's. seeded: the field holds the sum of the pseudo
    header, as an 82599's driver has to leave it (datasheet 7.2.5.2); what it holds is what is added, and a
    wrong one makes a wrong checksum. Otherwise the pseudo header is made from the IP header.
    """
    if want_ip and not is_ipv6:
        if not _valid_l3(l3, is_ipv6):
            return CANNOT
        write16(header + l2 + IPV4_CHECKSUM, 0)
        _fill_ip(header + l2, l3)
    if want_l4:
        return fill_l4(
            header, header_len, l2, l3, is_ipv6, protocol, seeded, addresses, lengths, entries, offset, count
        )
    return FILLED


@always_inlined
def segment_count(payload, mss):  # type: ignore[no-untyped-def]
    """How many segments `payload` (0 or more) bytes make; an empty payload makes one."""
    return max((payload + mss - 1) // mss, 1)


@always_inlined
def segment_fields(header, l2, l3, is_ipv6):  # type: ignore[no-untyped-def]
    """What `segment_header` needs of the header as the guest wrote it: read once, before the first segment.

    An int64: TCP flags 7:0, IPv4 identification 23:8, TCP sequence number 55:24, IPv6 56. -1 where `l3`
    cannot be the length of that version's header.
    """
    if not _valid_l3(l3, is_ipv6):
        return -1
    tcp = header + l2 + l3
    fields = load8(tcp + TCP_FLAGS) | (read32_be(tcp + TCP_SEQUENCE) << _SEQUENCE_SHIFT)
    if is_ipv6:
        return fields | _IPV6_BIT
    return fields | (read16_be(header + l2 + IPV4_IDENTIFICATION) << 8)


@always_inlined
def _segment_flags(flags, first, last):  # type: ignore[no-untyped-def]
    """FIN and PSH on the last alone, CWR on the first alone: as DTXTCPFLGL and DTXTCPFLGH start."""
    if not last:
        flags &= 0xFF ^ (TCP_FIN | TCP_PSH)
    if not first:
        flags &= 0xFF ^ TCP_CWR
    return flags


@always_inlined
def segment_seed(header, l2, l3, fields, seeded):  # type: ignore[no-untyped-def]
    """The partial that every segment's TCP checksum starts from: the pseudo header without its length.

    seeded: it is what the driver left in the field (82599 datasheet 7.2.5.2); read once, before the first
    segment. Returns (partial, 1 if it is that of the IP header, so that the segments' checksums will be right).
    """
    made = pseudo_header(header + l2, (fields & _IPV6_BIT) != 0, PROTOCOL_TCP, 0)
    if not seeded:
        return made, 1
    given = read16(header + l2 + l3 + TCP_CHECKSUM)
    return given, 1 if given % 0xFFFF == fold(made) % 0xFFFF else 0


@always_inlined
def segment_header(  # type: ignore[no-untyped-def]
    header, l2, l3, l4, fields, seed, number, sent, part, payload, addresses, lengths, entries, offset
):
    """Make the private header that of one segment: lengths, identification, sequence, flags, both checksums.

    Segments may be made in any order. l2, l3, l4: as `valid_offload` let them pass. fields: of
    `segment_fields`, not -1. seed: of `segment_seed`. number: of the segment, from 0. sent: payload bytes
    before it. part: its own. payload: all there is. Its bytes are [offset + sent, offset + sent + part) of the
    gather list.
    """
    l3_address, tcp = header + l2, header + l2 + l3
    is_ipv6 = (fields & _IPV6_BIT) != 0
    if is_ipv6:
        write16_be(l3_address + IPV6_PAYLOAD_LENGTH, l3 - IPV6_BYTES + l4 + part)
    else:
        write16_be(l3_address + IPV4_TOTAL_LENGTH, l3 + l4 + part)
        write16_be(l3_address + IPV4_IDENTIFICATION, (fields >> 8) + number)
        write16(l3_address + IPV4_CHECKSUM, 0)
    write32_be(tcp + TCP_SEQUENCE, (fields >> _SEQUENCE_SHIFT) + sent)
    store8(tcp + TCP_FLAGS, _segment_flags(fields & 0xFF, number == 0, sent + part >= payload))
    write16(tcp + TCP_CHECKSUM, 0)
    # The payload first: a load that spans stores still on their way to the cache waits for them.
    partial = gather_sum(addresses, lengths, entries, offset + sent, part)
    partial = sum_words(tcp, l4, partial + seed + swap16(l4 + part))
    if not is_ipv6:
        _fill_ip(l3_address, l3)
    write16(tcp + TCP_CHECKSUM, checksum_field(partial))
