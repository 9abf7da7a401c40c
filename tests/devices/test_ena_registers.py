"""An ENA's registers: what reads and writes of them do, by trap and by DMA; resets and their reasons; versions."""

import struct

import pytest
from ena_guest_kit import AENQ, EVENT_DEPTH, RESPONSE, EnaGuest, ena_card, ena_guest

from vfwire.devices import ena_pages as pages
from vfwire.devices.ena_options import EnaOptions
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers as regs
from vfwire.layouts import pci
from vfwire.pci.endpoint import RegionIndex


def test_registers_read_the_same_by_trap_and_by_dma() -> None:
    with ena_guest() as guest:
        for row in regs.REGISTERS:
            assert guest.read_by_dma(row.offset) == guest.read(row.offset), row.name


def test_what_a_driver_looks_at_first() -> None:
    """Versions and capabilities as the header's bits have them."""
    with ena_guest() as guest:
        assert guest.read_by_dma(0x0) == 0x000A
        assert guest.read_by_dma(0x4) == 0x01000001
        caps = guest.read_by_dma(0x8)
        assert caps & 1
        assert (caps >> 1) & 0x1F == 30
        assert (caps >> 8) & 0xFF == 48
        assert guest.read_by_dma(0x58) & 0x1


def test_versions_are_what_was_asked_for() -> None:
    with ena_guest(ena=EnaOptions(version=(2, 3), controller=(1, 4, 9))) as guest:
        assert guest.read(regs.VERSION) == 0x0203
        assert guest.read(regs.CONTROLLER_VERSION) & 0xFFFFFF == 0x010409


def test_an_unknown_register_reads_all_ones_and_is_counted() -> None:
    with ena_guest() as guest:
        bad = guest.function.bad_accesses
        assert guest.read(0x50) == 0xFFFFFFFF
        guest.write(0x200, 1)
        assert guest.function.bad_accesses == bad + 2
        assert guest.read_by_dma(0x50) == 0xFFFFFFFF


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_parts_of_registers_have_no_value(count: int) -> None:
    with ena_guest() as guest:
        assert guest.function.region_read(RegionIndex.BAR0, regs.CAPS, count) == b"\xff" * count
        guest.function.region_write(RegionIndex.BAR0, regs.DEV_CTL, b"\x01" * count)
        assert not guest.read(regs.DEV_STS) & regs.DEV_STS_RESET_IN_PROGRESS_MASK


def test_a_readless_read_without_an_address_writes_nothing() -> None:
    with ena_card() as card:
        guest = EnaGuest(card.vfs[0])
        guest.write(regs.MMIO_REG_READ, 7)
        assert not guest.memory.array.any()
        guest.close()


@pytest.mark.parametrize("where", [0x10, 0x7FFF_FFFF_FFFF_FFF8, 0x1_0000_0002])  # the last: not aligned
def test_a_readless_read_to_a_bad_address_is_counted(where: int) -> None:
    with ena_guest() as guest:
        guest.write(regs.MMIO_RESP_LO, where & 0xFFFFFFFF)
        guest.write(regs.MMIO_RESP_HI, where >> 32)
        before = guest.memory.array.copy()
        for count in (1, 2):
            guest.write(regs.MMIO_REG_READ, 7 | regs.CAPS << 16)
            assert guest.function.counters()["bad_addresses"] == count
        assert guest.function.counters()["readless_reads"] == 0
        assert (guest.memory.array == before).all()


def test_a_device_without_readless_reads_says_so_and_answers_none() -> None:
    with ena_guest(ena=EnaOptions(readless=False)) as guest:
        assert guest.function.region_read(RegionIndex.CONFIG, pci.REVISION_ID, 1) == b"\x01"
        assert guest.read_by_dma(regs.CAPS) == -1
        assert guest.read(regs.CAPS) & 1


def test_identity_and_bars() -> None:
    with ena_card(ena=EnaOptions(device=0xEC21, queues=3)) as card:
        function = card.vfs[0]
        assert function.region_read(RegionIndex.CONFIG, 0, 4) == bytes.fromhex("0f1d21ec")
        sizes = [region.size for region in function.regions[:6]]
        assert sizes == [0x4000, 0x4000, 4 * 0x20000, 0, 0, 0]
        areas = function.regions[0].areas
        assert [(area.offset, area.size, area.file_offset) for area in areas] == [(0x1000, 0x3000, 0x1000)]


def test_with_exact_nothing_is_mapped_and_memory_still_reads_back() -> None:
    with ena_guest(exact=True) as guest:
        assert all(not region.areas for region in guest.function.regions)
        guest.write(pages.tx_doorbell(3), 0xABCD)
        assert guest.read(pages.tx_doorbell(3)) == 0xABCD
        guest.function.region_write(RegionIndex.BAR2, 5, b"descriptor")
        assert guest.function.region_read(RegionIndex.BAR2, 5, 10) == b"descriptor"


def test_a_reset_is_seen_until_it_is_taken_back() -> None:
    with ena_guest() as guest:
        guest.write(regs.DEV_CTL, 1 | 3 << 28)
        assert guest.read(regs.DEV_STS) & (0x8 | 0x1) == 0x9
        assert guest.read(regs.DEV_STS) & 0x10 == 0
        guest.write(regs.DEV_CTL, 0)
        assert guest.read(regs.DEV_STS) == 0x11
        assert guest.function.counters()["resets"] == {"normal": 1, "transmit completion missing": 1}


@pytest.mark.parametrize("reason", regs.RESET_REASONS)
def test_every_reason_is_counted_by_its_name(reason: int) -> None:
    with ena_guest() as guest:
        guest.reset(reason)
        assert guest.function.counters()["resets"][regs.RESET_REASONS[reason]] >= 1


def test_a_driver_that_died_in_a_reset_does_not_keep_out_the_next() -> None:
    with ena_guest() as guest:
        guest.write(regs.DEV_CTL, 1)
        assert guest.read(regs.DEV_STS) & regs.DEV_STS_READY_MASK
        guest.function.detach()
        guest.function.attach()
        assert guest.read(regs.DEV_STS) == regs.DEV_STS_READY_MASK


def test_a_reset_forgets_queues_events_and_response_address() -> None:
    with ena_guest() as guest:
        guest.queue(1)
        guest.write(regs.DEV_CTL, 1)
        guest.write(regs.DEV_CTL, 0)
        assert not list(guest.function.rings)
        assert guest.function.events.groups == 0
        assert not guest.state.tx.on.any()
        guest.poke(RESPONSE, bytes(8))
        guest.write(regs.MMIO_REG_READ, 9)
        assert guest.peek(RESPONSE, 8) == bytes(8)
        guest.submit(admin.GET_FEATURE)
        guest.write(regs.AQ_DB, guest.submitted)
        assert guest.function.admin.ignored == 1


def test_the_clock_answers_with_the_request_and_a_time_that_grows() -> None:
    with ena_guest() as guest:
        status, answer = guest.get_feature(admin.PHC_CONFIG)
        assert status == 0
        doorbell = struct.unpack_from("<I", answer, 4)[0]
        address = AENQ + 64 * EVENT_DEPTH
        data = struct.pack("<B3xIIIIHHI", 0, 0, 0, 0, address & 0xFFFFFFFF, address >> 32, 0, 64)
        assert guest.set_feature(admin.PHC_CONFIG, data)[0] == 0
        times = []
        for request in (0x77, 0x78):
            guest.write(doorbell, request)
            number, stamp, bound, flags = struct.unpack_from("<H6xQ8xII", guest.peek(address, 64))
            assert (number, flags) == (request, 0)
            assert bound > 0
            times.append(stamp)
        assert 1_600_000_000 * 10**9 < times[0] <= times[1]


def test_the_clock_is_silent_until_it_is_configured() -> None:
    with ena_guest() as guest:
        guest.write(regs.PHC_DB, 1)
        assert guest.function.clock.requests == 0
