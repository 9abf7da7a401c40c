"""How an ENA spreads what it receives: hash function, key, fields and table, as its driver sets them."""

import struct

import numpy as np
import pytest
from ena_guest_kit import (
    BUFFER,
    ena_guest,
)

from vfwire.datapath.rss import (
    RSS_IPV4,
    RSS_IPV4_TCP,
    RSS_IPV4_UDP,
    RSS_IPV6,
    RSS_IPV6_TCP,
    RSS_IPV6_UDP,
    build_toeplitz_table,
)
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers as regs


def key_buffer(key: bytes, parts: int = 10) -> bytes:
    return struct.pack("<II40s", parts, 0, key)


def test_the_key_is_taken_in_reverse_order_and_read_back_as_given() -> None:
    key = bytes(range(40))
    with ena_guest() as guest:
        data = struct.pack("<III", 0, 2, 0xFFFFFFFF)
        assert guest.set_feature(admin.RSS_HASH_FUNCTION, data, key_buffer(key))[0] == 0
        wanted = build_toeplitz_table(np.frombuffer(key[::-1], np.uint8))
        assert (guest.state.toeplitz[guest.number] == wanted).all()
        assert guest.record.hash_init == 0xFFFFFFFF
        assert guest.record.rss
        status, answer = guest.get_feature(admin.RSS_HASH_FUNCTION, buffer=48)
        assert (status, *struct.unpack_from("<III", answer)) == (0, 2, 2, 0xFFFFFFFF)
        assert guest.peek(BUFFER, 48) == key_buffer(key)


@pytest.mark.parametrize(
    ("function", "buffer", "status"),
    [
        (1, key_buffer(bytes(40)), 5),
        (6, key_buffer(bytes(40)), 5),
        (2, key_buffer(bytes(40), 9), 5),
        (2, key_buffer(bytes(40), 11), 5),
        (2, key_buffer(bytes(40))[:-1], 4),
        (2, b"", 4),
    ],
)
def test_hash_functions_that_it_has_not(function: int, buffer: bytes, status: int) -> None:
    with ena_guest() as guest:
        before = guest.state.toeplitz[guest.number].copy()
        assert (
            guest.set_feature(admin.RSS_HASH_FUNCTION, struct.pack("<III", 0, function, 0), buffer)[0]
            == status
        )
        assert (guest.state.toeplitz[guest.number] == before).all()


def fields_buffer(chosen: dict[int, int]) -> bytes:
    selected = b"".join(struct.pack("<HH", chosen.get(proto, 0), 0) for proto in range(16))
    return bytes(64) + selected + bytes(128)


LINUX_FIELDS = {0: 0x3C, 1: 0x3C, 2: 0x3C, 3: 0x3C, 4: 0x0C, 5: 0x0C, 6: 0x0C, 7: 0x03}
V4, V6 = RSS_IPV4 | RSS_IPV4_TCP | RSS_IPV4_UDP, RSS_IPV6 | RSS_IPV6_TCP | RSS_IPV6_UDP


@pytest.mark.parametrize(
    ("fields", "types"),
    [
        (LINUX_FIELDS, V4 | V6),
        ({**LINUX_FIELDS, 1: 0x0C}, (V4 & ~RSS_IPV4_UDP) | V6),
        ({proto: LINUX_FIELDS[proto] for proto in (0, 1, 4)}, V4),
        ({}, 0),
    ],
)
def test_fields_that_are_hashed(fields: dict[int, int], types: int) -> None:
    with ena_guest() as guest:
        assert guest.set_feature(admin.RSS_HASH_INPUT, bytes(4), fields_buffer(fields))[0] == 0
        assert guest.record.rss == types
        assert guest.get_feature(admin.RSS_HASH_INPUT, buffer=256)[0] == 0
        read = struct.unpack("<128H", guest.peek(BUFFER, 256))
        assert {proto: read[32 + 2 * proto] for proto in range(16) if read[32 + 2 * proto]} == fields
        assert all(fields[proto] & ~read[2 * proto] == 0 for proto in fields)


@pytest.mark.parametrize(
    ("fields", "left_out"),  # four bits for each protocol: destination, source, destination port, source port
    [
        (LINUX_FIELDS, 0),
        ({**LINUX_FIELDS, 0: 0x0C}, 0),  # addresses alone
        ({**LINUX_FIELDS, 0: 0x08}, 0x1),  # the source alone
        ({**LINUX_FIELDS, 1: 0x30}, 0x30),  # ports alone
        ({**LINUX_FIELDS, 2: 0x1C, 3: 0x24}, 0x6800),
        ({**LINUX_FIELDS, 4: 0x04, 5: 0x08, 6: 0x04}, 0x2120000),
        ({**LINUX_FIELDS, 7: 0x01}, 0),  # of what is no IP packet nothing is hashed
        ({0: 0x08}, 0x1),  # protocols that were left out are hashed by whole addresses
    ],
)
def test_fields_that_are_chosen_singly(fields: dict[int, int], left_out: int) -> None:
    with ena_guest() as guest:
        guest.state.tx.to[:] = 0
        assert guest.set_feature(admin.RSS_HASH_INPUT, bytes(4), fields_buffer(fields))[0] == 0
        assert guest.record.hash_left_out == left_out
        # Paths that the fast path follows hash whole fields: none stays.
        assert (guest.state.tx.to == (-1 if left_out else 0)).all()
        guest.get_feature(admin.RSS_HASH_INPUT, buffer=256)
        read = struct.unpack("<128H", guest.peek(BUFFER, 256))
        assert {proto: read[32 + 2 * proto] for proto in range(16) if read[32 + 2 * proto]} == fields
        guest.reset()
        assert guest.record.hash_left_out == 0


def test_sorting_is_not_offered_and_asking_for_it_does_no_harm() -> None:
    """Linux's driver always asks for both kinds (ena_com_set_hash_ctrl)."""
    with ena_guest() as guest:
        both = struct.pack("<HH", 0, 6)
        assert guest.set_feature(admin.RSS_HASH_INPUT, both, fields_buffer(LINUX_FIELDS))[0] == 0
        assert guest.record.rss == V4 | V6
        status, answer = guest.get_feature(admin.RSS_HASH_INPUT, buffer=256)
        assert (status, *struct.unpack_from("<HH", answer)) == (0, 0, 0)


@pytest.mark.parametrize("fields", [{0: 0x40}, {0: 0x01}, {4: 0x3C}, {7: 0x04}, {8: 0x3C}, {15: 1}])
def test_fields_that_cannot_be_hashed(fields: dict[int, int]) -> None:
    with ena_guest() as guest:
        assert guest.set_feature(admin.RSS_HASH_INPUT, bytes(4), fields_buffer(fields))[0] == 5
        assert guest.set_feature(admin.RSS_HASH_INPUT, bytes(4), bytes(255))[0] == 4
        assert guest.record.rss == 0


def table_buffer(queues: list[int]) -> bytes:
    return b"".join(struct.pack("<HH", queue, 0) for queue in queues)


def table_choice(size: int = 7, index: int = 0xFFFFFFFF, queue: int = 0) -> bytes:
    return struct.pack("<HHHBBIHH", 0, 0, size, 0, 0, index, queue, 0)


def test_the_table_as_a_whole_and_by_entry() -> None:
    with ena_guest() as guest:
        queues = [number % 5 for number in range(128)]
        assert (
            guest.set_feature(admin.RSS_INDIRECTION_TABLE_CONFIG, table_choice(), table_buffer(queues))[0]
            == 0
        )
        assert guest.state.reta[guest.number].tolist() == queues
        assert guest.set_feature(admin.RSS_INDIRECTION_TABLE_CONFIG, table_choice(7, 3, 31))[0] == 0
        guest.write(regs.RSS_IND_ENTRY_UPDATE, 4 | 30 << 16)
        queues[3:5] = [31, 30]
        assert guest.state.reta[guest.number].tolist() == queues
        status, answer = guest.get_feature(admin.RSS_INDIRECTION_TABLE_CONFIG, version=1, buffer=512)
        assert (status, *struct.unpack_from("<HHH", answer)) == (0, 7, 7, 7)
        assert guest.peek(BUFFER, 512) == table_buffer(queues)


@pytest.mark.parametrize(
    ("choice", "buffer", "status"),
    [
        (table_choice(), table_buffer([0] * 127), 4),
        (table_choice(6), table_buffer([0] * 64), 5),
        (table_choice(), table_buffer([0] * 127 + [32]), 5),
        (table_choice(7, 128), b"", 5),
        (table_choice(7, 0, 32), b"", 5),
    ],
)
def test_tables_that_cannot_be(choice: bytes, buffer: bytes, status: int) -> None:
    with ena_guest() as guest:
        assert guest.set_feature(admin.RSS_INDIRECTION_TABLE_CONFIG, choice, buffer)[0] == status
        guest.write(regs.RSS_IND_ENTRY_UPDATE, 0xFFFF | 1 << 16)
        assert not guest.state.reta[guest.number].any()
