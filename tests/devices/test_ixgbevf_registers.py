"""The registers of an 82599 VF: meanings, reset values, and that no access of a guest's raises or reaches others."""

import os

import pytest
from device_kit import Guest, card_of
from hypothesis import given
from hypothesis import strategies as st

from vfwire.datapath.rss import RSS_DEFAULT
from vfwire.datapath.state import QUEUES, VECTORS
from vfwire.errors import ProtocolError
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts import pci
from vfwire.pci.endpoint import IrqIndex, RegionIndex

ONES = 0xFFFFFFFF


def test_regions_and_interrupts_of_the_function() -> None:
    with card_of() as card, card_of(exact=True) as exact:
        regions = card.vfs[0].regions
        assert [region.size for region in regions] == [0x4000, 0, 0, 0x4000, 0, 0, 0, 4096, 0]
        (area,) = regions[0].areas
        assert (area.offset, area.size, area.file_offset) == (0x1000, 0x2000, 0x1000)
        assert card.vfs[0].irq_counts == (0, 0, 3, 0, 0)
        assert exact.vfs[0].regions[0].areas == () and exact.vfs[0].regions[0].memory is None


def test_the_loop_finds_the_pages_that_the_guest_maps() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        guest.write(regs.VFRDT + regs.QUEUE_STRIDE, 77)
        memory = card.vfs[1].regions[0].memory
        assert memory is not None
        assert int(guest.record.pages) == memory.address
        assert memory.array[regs.VFRDT + regs.QUEUE_STRIDE] == 77


def test_values_after_reset() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        for offset in (
            regs.VFRDBAL,
            regs.VFTDT,
            regs.VFRXDCTL,
            regs.VFSRRCTL,
            regs.VTEIAM,
            regs.VTIVAR,
            regs.VFPSRTYPE,
        ):
            guest.write(offset, ONES)
        guest.write(regs.VFCTRL, regs.CTRL_RST)
        for offset in (
            regs.VFRDBAL,
            regs.VFTDT,
            regs.VFRXDCTL,
            regs.VTEIAM,
            regs.VTIVAR,
            regs.VFPSRTYPE,
            regs.VTEIMS,
        ):
            assert guest.read(offset) == 0
        assert guest.read(regs.VFSRRCTL + 7 * regs.QUEUE_STRIDE) == 0x402
        assert guest.read(regs.VFDCA_RXCTRL) == 0xA200
        assert guest.read(regs.VFDCA_TXCTRL) == 0x2A00


def test_a_reset_clears_ring_state_and_faults() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        guest.bus_master()
        guest.state.tx[QUEUES].on = guest.state.rx[2 * QUEUES - 1].on = 1
        guest.state.tx[QUEUES - 1].on = guest.state.tx[8 - 5].ring = 1  # a neighbour's
        guest.record.fault, guest.record.dma = 8, 0
        guest.write(regs.VFCTRL, regs.CTRL_RST)
        assert (
            guest.state.tx[QUEUES].on,
            guest.state.rx[2 * QUEUES - 1].on,
            guest.state.tx[QUEUES - 1].on,
        ) == (0, 0, 1)
        assert (guest.record.fault, guest.record.dma) == (-1, 1)


def test_bus_mastering_and_resets_switch_dma() -> None:
    with card_of() as card:
        function = card.vfs[0]
        guest = Guest(function)
        assert guest.record.dma == 0
        guest.bus_master()
        assert guest.record.dma == 1
        guest.bus_master(False)
        assert guest.record.dma == 0
        guest.bus_master()
        function.reset()
        assert guest.record.dma == 0
        guest.bus_master()
        devctl = regs.PCI_EXPRESS_CAPABILITY + pci.EXP_DEVCTL
        function.region_write(RegionIndex.CONFIG, devctl, pci.EXP_DEVCTL_BCR_FLR.to_bytes(2, "little"))
        assert guest.record.dma == 0
        guest.bus_master()
        function.detach()
        assert guest.record.dma == 0


def test_interrupt_causes_and_masks() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        guest.write(regs.VTEIMS, 0b101)
        guest.write(regs.VTEIMS, 0b010)
        assert guest.read(regs.VTEIMS) == 0b111 == guest.record.mask
        guest.write(regs.VTEIMC, 0b001)
        assert guest.read(regs.VTEIMS) == 0b110
        guest.write(regs.VTEICS, ONES)
        assert guest.record.causes == 0b111
        guest.write(regs.VTEICR, 0b001)
        assert guest.read(regs.VTEICR) == 0b110
        assert guest.read(regs.VTEICR) == 0
        guest.write(regs.VTEIAC, 0b011)
        guest.write(regs.VTEIAM, ONES)
        assert (guest.record.auto_clear, guest.record.auto_mask) == (0b011, 0b111)
        assert guest.state.functions[0].mask == 0


@pytest.mark.parametrize(
    ("value", "interval_ns"), [(0, 0), (8, 2048), (488, 61 * 2048), (0xFF8 | regs.EITR_CNT_WDIS, 511 * 2048)]
)
def test_moderation_intervals(value: int, interval_ns: int) -> None:
    with card_of() as card:
        guest = Guest(card.vfs[1])
        vector = guest.state.vectors[VECTORS + 2]
        vector.next_ns = 55
        guest.write(regs.VTEITR + 8, value)
        assert vector.interval_ns == interval_ns
        assert vector.next_ns == (55 if value & regs.EITR_CNT_WDIS else 0)
        assert guest.read(regs.VTEITR + 8) == value & 0xFF8


def test_vectors_of_queues() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.write(regs.VTIVAR, 0x80 | 0x81 << 8 | 0x82 << 16 | 0x02 << 24)
        guest.write(regs.VTIVAR + 4, 0x83)
        guest.write(regs.VTIVAR + 12, ONES)
        assert guest.record.rx_vector.tolist() == [0, 2, -1, -1]
        assert guest.record.tx_vector.tolist() == [1, -1, -1, -1]
        assert guest.read(regs.VTIVAR) == 0x02828180


@pytest.mark.parametrize(
    ("vfs", "power", "queues"), [(2, 0, 4), (2, 1, 2), (2, 2, 4), (2, 7, 4), (40, 2, 2), (40, 0, 2)]
)
def test_rss_spreads_over_what_the_driver_asked_for(vfs: int, power: int, queues: int) -> None:
    with card_of(vfs) as card:
        guest = Guest(card.vfs[0])
        guest.write(regs.VFPSRTYPE, power << 29 | regs.PSRTYPE_TCPHDR)
        assert guest.record.rx_queues == queues
        assert guest.record.rss == (RSS_DEFAULT if power else 0)
        assert guest.read(regs.VFPSRTYPE) == power << 29 | regs.PSRTYPE_TCPHDR


def test_link_status_follows_card_and_function() -> None:
    up = regs.LINKS_UP | regs.LINKS_SPEED_10G
    with card_of() as card, card_of(exact=True) as exact:
        for made, disabled in ((card, 0), (exact, up)):
            guest = Guest(made.vfs[0])
            assert guest.read(regs.VFLINKS) == up
            made.change(0, {"state": "disable"})
            assert guest.read(regs.VFLINKS) == disabled
            made.change(0, {"state": "auto"})
            made.set_link(False)
            assert guest.read(regs.VFLINKS) == 0
            made.change(0, {"state": "enable"})
            assert guest.record.link_up == 1


def test_the_timer_runs() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        first = guest.read(regs.VFFRTIMER)
        assert 0 < (guest.read(regs.VFFRTIMER) - first) & ONES < 1_000_000


def test_the_mailbox_bits_are_cleared_by_reading() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.write(regs.VFCTRL, regs.CTRL_RST)
        assert guest.read(regs.VFMAILBOX) == regs.MAILBOX_RSTD
        assert guest.read(regs.VFMAILBOX) == 0
        guest.write(regs.VFMAILBOX, regs.MAILBOX_VFU)
        assert guest.read(regs.VFMAILBOX) == regs.MAILBOX_VFU
        guest.write(regs.VFMAILBOX, 0)
        assert guest.read(regs.VFMAILBOX) == 0


def test_what_has_no_register_reads_all_ones_and_is_counted() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        for offset in (0x0004, 0x0500, 0x3000, 0x3FFC):
            assert guest.read(offset) == ONES
            guest.write(offset, 5)
        assert guest.function.region_read(0, regs.VFLINKS, 2) == b"\xff\xff"
        guest.function.region_write(0, regs.VTEIMS, b"\x07")
        assert guest.read(regs.VTEIMS) == 0
        assert guest.function.bad_accesses == 10
        assert guest.read(regs.VFRXMEMWRAP) == guest.read(regs.VFSTATUS) == 0


def test_queue_pages_are_memory_at_any_size_and_offset() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.function.region_write(0, 0x1FFD, b"abcdef")
        assert guest.function.region_read(0, 0x1FFC, 8) == b"\0abcdef\0"
        assert guest.function.region_read(0, 0, 0x4000)[0x1FFD:0x2003] == b"abcdef"


EXACT = [
    (regs.VFRDBAL, 0xFFFFFF80),
    (regs.VFTDBAL + 3 * regs.QUEUE_STRIDE, 0xFFFFFF80),
    (regs.VFRDLEN, 0x000FFF80),
    (regs.VFTDLEN, 0x000FFF80),
    (regs.VFRDH, 0),
    (regs.VFTDH, 0),
    (regs.VFRDT, 0xFFFF),
    (regs.VFGPRC, 0),
    (regs.VFGOTC_MSB, 0),
    (regs.VFTDWBAH, ONES),
    (0x1FF0, 0),
]


@pytest.mark.parametrize(("offset", "value"), EXACT)
def test_exact_masks_what_the_chip_masks(offset: int, value: int) -> None:
    with card_of(exact=True) as card, card_of() as plain:
        guest = Guest(card.vfs[0])
        guest.write(offset, ONES)
        assert guest.read(offset) == value
        assert guest.function.traps >= 2
        deviating = Guest(plain.vfs[0])
        deviating.write(offset, ONES)
        assert deviating.read(offset) == ONES


@pytest.mark.parametrize(("control", "tail"), [(regs.VFRXDCTL, regs.VFRDT), (regs.VFTXDCTL, regs.VFTDT)])
def test_exact_clears_head_and_tail_of_a_queue_that_is_enabled(control: int, tail: int) -> None:
    with card_of(exact=True) as card:
        guest = Guest(card.vfs[0])
        block = regs.QUEUE_STRIDE
        guest.write(tail + block, 9)
        guest.write(control + block, regs.RXDCTL_ENABLE)
        assert guest.read(tail + block) == 0
        guest.write(tail + block, 9)
        guest.write(control + block, regs.RXDCTL_ENABLE)
        assert guest.read(tail + block) == 9


def test_msix_table_lies_in_bar_3() -> None:
    with card_of() as card:
        guest = Guest(card.vfs[0])
        guest.write(0x10, 0xFEE00000, bar=3)
        assert guest.read(0x10, bar=3) == 0xFEE00000
        assert guest.read(regs.MSIX_PBA_OFFSET, bar=3) == 0
        guest.function.reset()
        assert guest.read(0x10, bar=3) == 0


def test_eventfds_are_owned_and_replaced() -> None:
    with card_of() as card:
        function = card.vfs[1]
        guest = Guest(function)
        first, second = os.eventfd(0), os.eventfd(0)
        function.set_irqs(IrqIndex.MSIX, 1, [first, second])
        assert guest.state.vectors.eventfd[VECTORS : VECTORS + 4].tolist() == [-1, first, second, -1]
        function.trigger_irqs(IrqIndex.MSIX, 1, [False, True])
        assert os.eventfd_read(second) == 1
        third = os.eventfd(0)
        function.set_irqs(IrqIndex.MSIX, 1, [third])
        with pytest.raises(OSError):
            os.fstat(first)
        function.disable_irqs(IrqIndex.MSIX)
        assert guest.state.vectors.eventfd[VECTORS : VECTORS + 4].tolist() == [-1] * 4
        for fd in (second, third):
            with pytest.raises(OSError):
                os.fstat(fd)


@pytest.mark.parametrize(("index", "start", "count"), [(2, 2, 2), (2, -1, 1), (1, 0, 1), (0, 0, 1)])
def test_vectors_that_there_are_not(index: int, start: int, count: int) -> None:
    with card_of() as card:
        fds = [os.eventfd(0) for _ in range(count)]
        with pytest.raises(ProtocolError):
            card.vfs[0].set_irqs(index, start, fds)
        for fd in fds:
            with pytest.raises(OSError):
                os.fstat(fd)
        with pytest.raises(ProtocolError):
            card.vfs[0].trigger_irqs(index, start, [True] * count)


def test_the_next_guest_gets_pages_of_its_own() -> None:
    with card_of() as card:
        function = card.vfs[0]
        guest = Guest(function)
        before = function.regions[0].memory
        assert before is not None
        held = os.dup(before.fd)
        guest.write(regs.VFRDT, 5)
        function.detach()
        after = function.regions[0].memory
        assert after is not None and after is not before
        os.pwrite(held, b"\xff" * 8, regs.VFRDT)
        os.close(held)
        assert Guest(function).read(regs.VFRDT) == 0


ACCESS = st.one_of(
    st.tuples(st.just("r"), st.sampled_from([0, 3, 7]), st.integers(0, 0xFFF8), st.integers(1, 64)),
    st.tuples(
        st.just("w"), st.sampled_from([0, 3, 7]), st.integers(0, 0xFFF8), st.binary(min_size=1, max_size=64)
    ),
    st.tuples(
        st.just("w"),
        st.just(0),
        st.sampled_from(
            [row.offset + index * row.stride for row in regs.REGISTERS for index in range(row.count)]
        ),
        st.integers(0, ONES).map(lambda value: value.to_bytes(4, "little")),
    ),
)


@given(accesses=st.lists(ACCESS, max_size=60), exact=st.booleans())
def test_no_access_raises_or_reaches_a_neighbour(accesses, exact) -> None:  # type: ignore[no-untyped-def]
    with card_of(3, exact=exact) as card:
        guest = Guest(card.vfs[1])
        neighbours = [card.engine.state.functions[index].tobytes() for index in (0, 2)]
        sizes = [region.size for region in guest.function.regions]
        for kind, bar, wanted, what in accesses:
            offset = wanted % sizes[bar]
            if kind == "r":
                count = min(what, sizes[bar] - offset)
                assert len(guest.function.region_read(bar, offset, count)) == count
            else:
                guest.function.region_write(bar, offset, what[: sizes[bar] - offset])
        assert neighbours == [card.engine.state.functions[index].tobytes() for index in (0, 2)]
        assert guest.record.pages == guest.function.regions[0].memory.address if not exact else True
        assert set(guest.record.rx_vector.tolist()) <= {-1, 0, 1, 2}
        assert guest.record.rx_queues in (1, 2, 4)
