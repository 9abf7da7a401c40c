"""An ENA's admin queue: phases, wrapping, unknown commands, queues that make no sense, and every feature."""

import struct

import numpy as np
import pytest
from ena_guest_kit import ACQ, AQ, BUFFER, DEPTH, GROUPS, MEMORY, EnaGuest, ena_card, ena_guest

from vfwire.devices.ena_options import FEATURES, REMOVABLE, EnaOptions
from vfwire.devices.settings import parse_mac
from vfwire.errors import UsageError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers as regs


def attributes(guest: EnaGuest) -> tuple[int, ...]:
    status, answer = guest.get_feature(admin.DEVICE_ATTRIBUTES)
    assert status == 0
    return struct.unpack_from("<6I6sHI", answer)


def test_phases_flip_at_every_wrap_of_both_rings() -> None:
    with ena_guest() as guest:
        for _ in range(5 * DEPTH):
            assert guest.get_feature(admin.LINK_CONFIG)[0] == 0
        assert guest.read(regs.ACQ_TAIL) == guest.completed


def test_doorbells_wrap_at_16_bits() -> None:
    with ena_guest() as guest:
        queue = guest.function.admin
        queue.head = queue._doorbell = guest.submitted = guest.completed = queue.completed = 0xFFF0
        for _ in range(40):
            assert guest.get_feature(admin.LINK_CONFIG)[0] == 0


def test_several_commands_with_one_doorbell_are_answered_in_order() -> None:
    with ena_guest() as guest:
        body = bytes(12) + bytes([0, admin.LINK_CONFIG, 0, 0])
        numbers = [guest.submit(admin.GET_FEATURE, body) for _ in range(DEPTH - 1)]
        guest.write(regs.AQ_DB, guest.submitted)
        answers = [guest.completion() for _ in numbers]
        assert [answer[0] if answer else None for answer in answers] == numbers


@pytest.mark.parametrize("opcode", [0, 5, 7, 10, 12, 255])
def test_an_unknown_opcode_is_a_bad_one(opcode: int) -> None:
    with ena_guest() as guest:
        assert guest.command(opcode)[0] == 2


@pytest.mark.parametrize("feature", [0, 5, 6, 8, 9, 13, 30, 31, 200])
def test_a_feature_that_it_has_not_is_unsupported(feature: int) -> None:
    with ena_guest() as guest:
        assert guest.get_feature(feature)[0] == 3
        assert guest.set_feature(feature, b"")[0] == 3


def test_an_entry_of_another_lap_is_malformed() -> None:
    with ena_guest() as guest:
        guest.submit(admin.GET_FEATURE, phase=0)
        guest.write(regs.AQ_DB, guest.submitted)
        answer = guest.completion()
        assert answer is not None and answer[1] == 4


def test_a_doorbell_too_far_ahead_is_ignored() -> None:
    with ena_guest() as guest:
        guest.submit(admin.GET_FEATURE)
        guest.write(regs.AQ_DB, guest.submitted + DEPTH)
        assert guest.completion() is None
        assert guest.function.counters()["admin_ignored"] == 1


@pytest.mark.parametrize("caps", [0, DEPTH, 64 << 16, 32 << 16 | DEPTH, 64 << 16 | 0xFFFF])
def test_queues_that_cannot_be_are_not_served(caps: int) -> None:
    with ena_guest() as guest:
        guest.write(regs.AQ_CAPS, caps)
        guest.write(regs.AQ_DB, 1)
        assert guest.completion() is None
        guest.reset()
        guest.set_up_queues()
        assert guest.get_feature(admin.LINK_CONFIG)[0] == 0


@pytest.mark.parametrize("base", [AQ, ACQ])
def test_queues_in_no_memory_stop_without_harm(base: int) -> None:
    registers = {AQ: regs.AQ_BASE_HI, ACQ: regs.ACQ_BASE_HI}
    with ena_guest() as guest:
        guest.write(registers[base], 0x7FFF)
        guest.submit(admin.GET_FEATURE)
        guest.write(regs.AQ_DB, guest.submitted)
        assert guest.completion() is None
        assert guest.function.counters()["bad_addresses"] == 1


def test_the_completion_says_what_the_queue_has_taken() -> None:
    with ena_guest() as guest:
        guest.get_feature(admin.LINK_CONFIG)
        place = (guest.completed - 1) % DEPTH
        assert struct.unpack_from("<H", guest.peek(ACQ + 64 * place, 64), 6)[0] == guest.submitted


def test_attributes() -> None:
    with ena_guest(mtu=5000) as guest:
        found = attributes(guest)
        assert found[0] == 1
        assert found[1] == 0x000A
        assert found[2] == sum(1 << feature for feature in FEATURES)
        assert found[3] == 0b11111
        assert found[4:6] == (48, 48)
        assert found[6] == guest.function.port.mac
        assert found[8] == 5000


@pytest.mark.parametrize("name", REMOVABLE)
def test_what_is_left_out_is_not_there(name: str) -> None:
    features = {text: number for number, text in admin.FEATURE_NAMES.items()}
    options, everything = EnaOptions(without=frozenset({name})), EnaOptions()
    kept = (*options.features(), *options.groups(), *options.capabilities())
    assert len(kept) == len((*everything.features(), *everything.groups(), *everything.capabilities())) - 1
    with ena_card(ena=options) as card:
        guest = EnaGuest(card.vfs[0])
        guest.bring_up(groups=0)
        if name in features:
            assert guest.get_feature(features[name])[0] == 3
        if name != "DEVICE_ATTRIBUTES":
            found = attributes(guest)
            assert found[2] == sum(1 << feature for feature in options.features())
            assert found[3] == sum(1 << capability for capability in options.capabilities())
        if name != "AENQ_CONFIG":
            groups = struct.unpack_from("<I", guest.get_feature(admin.AENQ_CONFIG)[1])[0]
            assert groups == sum(1 << group for group in options.groups())
        guest.close()


def test_an_option_that_there_is_not() -> None:
    for options in (EnaOptions(without=frozenset({"SPEED"})), EnaOptions(queues=33), EnaOptions(burst=5)):
        with pytest.raises(UsageError), ena_card(ena=options):
            pass


def test_queues_and_depths() -> None:
    with ena_guest(ena=EnaOptions(queues=8)) as guest:
        status, answer = guest.get_feature(admin.MAX_QUEUES_EXT, version=1)
        assert status == 0
        found = struct.unpack_from("<B3x9IHH", answer)
        assert found == (1, 8, 8, 8, 8, 8192, 8192, 8192, 8192, 96, 18, 16)
        status, answer = guest.get_feature(admin.MAX_QUEUES_NUM)
        assert struct.unpack_from("<7IHH", answer) == (8, 8192, 8, 8192, 0, 0, 96, 18, 16)


@pytest.mark.parametrize(
    ("rate", "speed", "supported"),
    [(None, 400_000, 0x200), (10**11, 100_000, 0x80), (25 * 10**9, 25_000, 0x10), (10**9, 1000, 0x1)],
)
def test_the_link_as_the_card_has_it(rate: int | None, speed: int, supported: int) -> None:
    with ena_guest(line_rate_bps=rate) as guest:
        status, answer = guest.get_feature(admin.LINK_CONFIG)
        assert (status, *struct.unpack_from("<III", answer)) == (0, speed, supported, 3)


def test_a_card_is_not_faster_than_its_link_can_say() -> None:
    with pytest.raises(UsageError, match="at most 400G"), ena_card(line_rate_bps=500 * 10**9):
        pass


def test_mtu() -> None:
    with ena_guest(mtu=9000) as guest:
        assert guest.record.max_frame == 9014
        assert guest.set_feature(admin.MTU, struct.pack("<I", 1500))[0] == 0
        assert guest.record.max_frame == 1514
        for mtu in (67, 9001, 0xFFFFFFFF):
            assert guest.set_feature(admin.MTU, struct.pack("<I", mtu))[0] == 5
        assert guest.record.max_frame == 1514


def test_offloads() -> None:
    with ena_guest() as guest:
        status, answer = guest.get_feature(admin.STATELESS_OFFLOAD_CONFIG)
        assert (status, *struct.unpack_from("<III", answer)) == (0, 0x7F, 0xF, 0xF)


def test_hints_and_moderation() -> None:
    with ena_guest() as guest:
        guest.function.features.hints = {"netdev_wd_timeout": 4000}
        status, answer = guest.get_feature(admin.HW_HINTS)
        assert status == 0
        assert struct.unpack_from("<8H", answer) == (0, 0, 0, 0, 0, 4000, 0, 0)
        assert guest.get_feature(admin.INTERRUPT_MODERATION)[1][:2] == b"\x01\x00"


def test_event_groups_are_those_on_offer() -> None:
    with ena_guest() as guest:
        status, answer = guest.get_feature(admin.AENQ_CONFIG)
        assert (status, *struct.unpack_from("<II", answer)) == (0, 0b11111011, GROUPS)
        assert guest.set_feature(admin.AENQ_CONFIG, struct.pack("<II", 0, 0x100))[0] == 5
        assert guest.function.events.groups == GROUPS


def host_page() -> bytes:
    page = struct.pack("<I128sI32sI", 1, b"6.12.117-cloud-amd64", 0, b"#1 SMP", 0)
    page += struct.pack("<IIIHHHHI", 2 | 13 << 8 | 1 << 16 | 0x4B << 24, 0, 0, 0x200, 0x28, 4, 0, 0x56)
    return page.ljust(4096, b"\0")


def test_the_host_says_what_it_is() -> None:
    with ena_guest() as guest:
        assert guest.function.describe()["host"] is None
        guest.poke(BUFFER, host_page())
        data = struct.pack("<IHHIHHI", BUFFER & 0xFFFFFFFF, BUFFER >> 32, 0, 0, 0, 0, 4096)
        assert guest.set_feature(admin.HOST_ATTR_CONFIG, data)[0] == 0
        assert guest.function.describe()["host"] == {
            "os": "Linux",
            "release": "6.12.117-cloud-amd64",
            "build": "#1 SMP",
            "driver_version": "2.13.1",
            "module_type": 0x4B,
            "spec_version": "2.0",
            "cpus": 4,
            "supports": [
                "rx_offset",
                "interrupt_moderation",
                "rss_configurable_function_key",
                "rx_page_reuse",
            ],
            "debug_area_bytes": 4096,
        }
        guest.reset()
        assert guest.function.describe()["host"] is None


def test_a_host_that_sends_noise_is_shown_in_printable_letters() -> None:
    with ena_guest() as guest:
        noise = np.random.default_rng(5).integers(0, 256, 4096, dtype=np.uint8).tobytes()
        guest.poke(BUFFER, noise)
        data = struct.pack("<IHHIHHI", BUFFER & 0xFFFFFFFF, BUFFER >> 32, 0, 0, 0, 0, 4096)
        assert guest.set_feature(admin.HOST_ATTR_CONFIG, data)[0] == 0
        host = guest.function.describe()["host"]
        assert all(32 <= ord(letter) < 127 for letter in host["release"] + host["build"])
        bad = struct.pack("<IHHIHHI", 0x10, 0, 0, 0, 0, 0, 0)
        assert guest.set_feature(admin.HOST_ATTR_CONFIG, bad)[0] == 5


def test_low_latency_queues_on_offer() -> None:
    with ena_guest(ena=EnaOptions(queues=4, burst=2048)) as guest:
        status, answer = guest.get_feature(admin.LLQ, version=1)
        assert status == 0
        assert struct.unpack_from("<II8HBBHHH", answer) == (
            *(4, 1024, 1, 0, 5, 0, 15, 0, 3, 0, 1, 1, 512, 2, 2048),
        )


LLQ_SHAPES = [(1, 1, 2, 2, (128, 2, 8)), (1, 4, 8, 2, (256, 8, 16)), (1, 1, 1, 1, (128, 1, 1))]
BAD_LLQ_SHAPES = [
    (2, 1, 2, 2),
    (0, 1, 2, 2),
    (1, 2, 2, 2),
    (1, 5, 2, 2),
    (1, 1, 3, 2),
    (1, 1, 8, 2),
    (1, 1, 2, 3),
]


def llq_choice(location: int, size: int, before: int, stride: int) -> bytes:
    return struct.pack("<II8HBBHHHI", 0, 0, 0, location, 0, size, 0, before, 0, stride, 0, 0, 0, 3, 0, 0)


@pytest.mark.parametrize(("location", "size", "before", "stride", "chosen"), LLQ_SHAPES)
def test_low_latency_queues_as_chosen(
    location: int, size: int, before: int, stride: int, chosen: tuple[int, int, int]
) -> None:
    with ena_guest() as guest:
        assert guest.set_feature(admin.LLQ, llq_choice(location, size, before, stride))[0] == 0
        llq = guest.function.rings.llq
        assert llq is not None
        assert (llq.entry_bytes, llq.before_header, llq.per_entry) == chosen


@pytest.mark.parametrize("shape", BAD_LLQ_SHAPES)
def test_low_latency_queues_that_are_not_on_offer(shape: tuple[int, int, int, int]) -> None:
    with ena_guest() as guest:
        assert guest.set_feature(admin.LLQ, llq_choice(*shape))[0] == 5
        assert guest.function.rings.llq is None


def test_settings_that_an_ena_has_not() -> None:
    with ena_guest() as guest, pytest.raises(UsageError, match="no setting 'query_rss'"):
        guest.function.check_changes({"query_rss": True})


def test_a_mac_changes_only_while_nobody_has_the_function() -> None:
    with ena_card() as card:
        assert card.change(0, {"mac": "02:00:00:00:00:07"}).mac == parse_mac("02:00:00:00:00:07")
        guest = EnaGuest(card.vfs[0])
        with pytest.raises(UsageError, match="is in use"):
            card.change(0, {"mac": "02:00:00:00:00:08"})
        guest.bring_up()
        assert attributes(guest)[6] == bytes.fromhex("020000000007")
        guest.close()


def test_control_buffers_outside_of_memory_or_too_long_are_refused() -> None:
    with ena_guest() as guest:
        assert guest.get_feature(admin.RSS_HASH_FUNCTION, buffer=48, address=MEMORY - 0x1000)[0] == 5
        assert guest.get_feature(admin.RSS_HASH_FUNCTION, buffer=47)[0] == 4
        body = struct.pack("<IIHHBBBB", 0xFFFFFFFF, BUFFER & 0xFFFFFFFF, BUFFER >> 32, 0, 0, 10, 0, 0)
        assert guest.command(admin.SET_FEATURE, body + struct.pack("<III", 0, 2, 0), 4)[0] == 4
