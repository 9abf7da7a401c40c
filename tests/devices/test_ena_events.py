"""An ENA's statistics, events and interrupts of its control side."""

import os
import struct

import numpy as np
import pytest
from device_kit import card_of
from ena_guest_kit import (
    BUFFER,
    EVENT_DEPTH,
    EnaGuest,
    ena_card,
    ena_guest,
)

from vfwire.datapath.instance import CONNTRACK_MOST
from vfwire.datapath.state import VECTORS, Drop
from vfwire.devices.ena_options import EnaOptions
from vfwire.errors import ResourceBusy, UsageError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers as regs
from vfwire.pci.endpoint import IrqIndex


def stats(guest: EnaGuest, kind: int, wanted: int = 0, length: int = 0, device: int = 0) -> tuple[int, bytes]:
    body = struct.pack(
        "<IIHHBBHHHQ", length, BUFFER & 0xFFFFFFFF, BUFFER >> 32, 0, kind, 0, 0, 0, device, wanted
    )
    return guest.command(admin.GET_STATS, body)


def test_basic_statistics_are_the_functions_own() -> None:
    with ena_guest() as guest:
        guest.record.tx_bytes, guest.record.tx_frames = 5 << 32, 7
        guest.record.rx_bytes, guest.record.rx_frames = 11, 13
        guest.state.drops[guest.number, Drop.NO_RX_DESCRIPTOR] = 3
        guest.state.drops[guest.number, Drop.RX_DISABLED] = 1
        guest.state.drops[guest.number, Drop.SPOOF] = 2
        status, answer = stats(guest, 0)
        assert (status, *struct.unpack_from("<7Q", answer)) == (0, 5 << 32, 7, 11, 13, 4, 2, 3)


def test_other_statistics() -> None:
    with ena_guest() as guest:
        assert stats(guest, 2) == (0, bytes(56))
        assert stats(guest, 3) == (0, bytes(56))
        guest.poke(BUFFER, b"\xff" * 64)
        status, answer = stats(guest, 4, wanted=0x3F, length=48)
        assert (status, answer[:8]) == (0, b"\x3f" + bytes(7))
        assert guest.peek(BUFFER, 56) == bytes(40) + CONNTRACK_MOST.to_bytes(8, "little") + b"\xff" * 8
        assert stats(guest, 4, wanted=0x3F, length=47)[0] == 4
        status, answer = stats(guest, 4, wanted=0xFFFF)
        assert (status, answer[:8]) == (0, b"\x3f" + bytes(7))
        assert stats(guest, 1)[0] == 3
        assert stats(guest, 99)[0] == 3
        assert stats(guest, 0, device=5)[0] == 5


def test_statistics_that_were_left_out() -> None:
    with ena_guest(
        ena=EnaOptions(without=frozenset({"ENI_STATS", "ENA_SRD_INFO", "CUSTOMER_METRICS"}))
    ) as guest:
        assert [stats(guest, kind)[0] for kind in (0, 2, 3, 4)] == [0, 3, 3, 3]


# --- Events ---------------------------------------------------------------------------------------------------


def test_the_link_is_told_once_there_is_room() -> None:
    with ena_guest() as guest:
        assert guest.event() == (0, 0, b"\x01" + bytes(47))
        assert guest.event() is None
        guest.function.port.engine.state.cards[0].link_up = 0
        guest.function.port.enter_link()
        guest.function.tell()
        found = guest.event()
        assert found is not None and found[2][0] == 0


def test_keep_alive_every_second_with_drops() -> None:
    with ena_guest() as guest:
        assert guest.event() is not None
        guest.state.drops[guest.number, Drop.NO_RX_DESCRIPTOR] = 9
        guest.function._next_keep_alive = 0.0
        guest.function.tick()
        found = guest.event()
        assert found is not None
        assert (found[0], *struct.unpack_from("<QQQ", found[2])) == (4, 9, 0, 9)
        guest.function.tick()
        assert guest.event() is None


def test_a_driver_that_never_acknowledges_loses_events_and_nothing_else() -> None:
    with ena_guest() as guest:
        for _ in range(3 * EVENT_DEPTH):
            guest.function._next_keep_alive = 0.0
            guest.function.tick()
        assert guest.read(regs.AENQ_TAIL) == EVENT_DEPTH
        assert guest.function.counters()["events_lost"] == 2 * EVENT_DEPTH + 1
        guest.function.port.engine.state.cards[0].link_up = 0
        guest.function.port.enter_link()
        guest.function.tell()
        groups = []
        while (event := guest.event()) is not None:
            groups.append(event[0])
        assert groups == [0] + [4] * (EVENT_DEPTH - 1) + [0]
        assert guest.get_feature(admin.LINK_CONFIG)[0] == 0


def test_a_fault_is_told_once_and_shown_until_the_reset() -> None:
    with ena_guest() as guest:
        assert guest.event() is not None
        guest.function._next_keep_alive = float("inf")
        guest.record.fault = int(Drop.BAD_DESCRIPTOR)
        guest.function.tick()
        guest.function.tick()
        assert guest.event() == (1, 0, bytes(48))
        assert guest.event() is None
        assert guest.read(regs.DEV_STS) & regs.DEV_STS_FATAL_ERROR_MASK
        guest.reset()
        assert not guest.read(regs.DEV_STS) & regs.DEV_STS_FATAL_ERROR_MASK
        assert guest.record.fault == -1


def test_groups_that_were_not_enabled_stay_silent() -> None:
    with ena_card() as card:
        guest = EnaGuest(card.vfs[0])
        guest.bring_up(groups=0)
        guest.function.tick()
        guest.function.tell()
        assert guest.event() is None
        guest.close()


def test_interrupts_of_admin_queue_and_events_wait_while_masked() -> None:
    with ena_guest() as guest:
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        guest.function.set_irqs(IrqIndex.MSIX, 0, [os.dup(fd)])
        guest.write(regs.INTR_MASK, 1)
        guest.get_feature(admin.LINK_CONFIG)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(fd)
        guest.write(regs.INTR_MASK, 0)
        assert os.eventfd_read(fd) == 1
        guest.get_feature(admin.LINK_CONFIG)
        assert os.eventfd_read(fd) == 1
        os.close(fd)


def test_each_vector_has_a_register_of_its_own_for_the_loop() -> None:
    with ena_guest() as guest:
        unmask = guest.state.vectors.unmask[:33]
        assert (unmask == guest.function._bar0.address + 0x2000 + 64 * np.arange(33)).all()
        guest.function.detach()
        assert (
            guest.state.vectors.unmask[:33] == guest.function._bar0.address + 0x2000 + 64 * np.arange(33)
        ).all()
        guest.function.attach()
    assert VECTORS >= 33


# --- By hand: events that an operator sends, parts that he lets fail --------------------------------------------


def test_an_operator_sends_events() -> None:
    with ena_guest() as guest:
        assert guest.event() is not None
        guest.function.send_event("NOTIFICATION", {"netdev_wd_timeout": 4000, "max_tx_sgl_size": 9})
        guest.function.send_event("CONF_NOTIFICATIONS", {"bits": 0x8000_0000_0000_0001})
        for name in ("DEVICE_REQUEST_RESET", "REFRESH_CAPABILITIES", "FATAL_ERROR"):
            guest.function.send_event(name, {})
        events = [guest.event() for _ in range(5)]
        assert [event and event[:2] for event in events] == [(3, 2), (6, 0), (7, 0), (5, 0), (1, 0)]
        assert events[0] is not None and struct.unpack_from("<8H", events[0][2]) == (
            0,
            0,
            0,
            0,
            0,
            4000,
            9,
            0,
        )
        assert events[1] is not None and struct.unpack_from("<Q", events[1][2])[0] == 0x8000_0000_0000_0001


def test_events_that_cannot_be_sent() -> None:
    with ena_card() as card:
        guest = EnaGuest(card.vfs[0])
        guest.bring_up(groups=1 << 3)
        for name, values in (
            ("DEVICE_REQUEST_RESET", {}),
            ("SUNRISE", {}),
            ("NOTIFICATION", {"speed": 1}),
            ("NOTIFICATION", {"netdev_wd_timeout": 70000}),
        ):
            with pytest.raises(UsageError):
                guest.function.send_event(name, values)
        guest.write(regs.AENQ_HEAD_DB, 0)
        with pytest.raises(ResourceBusy):
            guest.function.send_event("NOTIFICATION", {})
        guest.close()


def test_an_82599_has_neither() -> None:
    with card_of(1) as card:
        with pytest.raises(UsageError):
            card.vfs[0].send_event("NOTIFICATION", {})
        with pytest.raises(UsageError):
            card.vfs[0].fail("admin")


def test_a_part_fails_until_the_reset() -> None:
    with ena_guest() as guest:
        assert guest.event() is not None
        for part in ("keep-alive", "traffic", "admin"):
            guest.function.fail(part)
        assert guest.record.dma == 0
        guest.function.tick()
        assert guest.event() is None
        guest.submit(admin.GET_FEATURE)
        guest.write(regs.AQ_DB, guest.submitted)
        assert guest.completion() is None
        guest.bring_up()
        assert guest.record.dma == 1
        guest.function.tick()
        assert [event and event[0] for event in (guest.event(), guest.event())] == [0, 4]
        with pytest.raises(UsageError):
            guest.function.fail("everything")


def test_a_trace_has_commands_completions_and_events_by_name() -> None:
    with ena_guest() as guest:
        seen: list[tuple[str, str, str]] = []
        guest.function.watch_messages(lambda channel, way, name, words: seen.append((channel, way, name)))
        guest.get_feature(admin.LINK_CONFIG)
        guest.get_feature(99)
        guest.command(200)
        guest.function._next_keep_alive = 0.0
        guest.function.tick()
        assert seen == [
            ("admin", "command", "GET_FEATURE LINK_CONFIG"),
            ("admin", "completion", "GET_FEATURE LINK_CONFIG SUCCESS"),
            ("admin", "command", "GET_FEATURE unknown"),
            ("admin", "completion", "GET_FEATURE unknown UNSUPPORTED_OPCODE"),
            ("admin", "command", "unknown"),
            ("admin", "completion", "unknown BAD_OPCODE"),
            ("admin", "event", "KEEP_ALIVE"),
        ]
        guest.function.watch_messages(None)
        guest.get_feature(admin.LINK_CONFIG)
        assert len(seen) == 7
