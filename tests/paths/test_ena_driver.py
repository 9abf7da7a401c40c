"""The ENA driver on a card's ENA, over vfio-user: set-up, frames, queues, events, resets, statistics."""

import select
import struct
import time
from typing import Any

import numpy as np
import pytest
from card_kit import enas

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.datapath import port
from vfwire.datapath.instance import CONNTRACK_MOST
from vfwire.devices.allowances import Allowance, allow
from vfwire.devices.ena_options import EnaOptions
from vfwire.drivers.ena import Ena
from vfwire.drivers.verbs import Pool, burst
from vfwire.errors import UsageError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg
from vfwire.layouts import ena_registers as reg

SECONDS = 20.0


def send(nic: Ena, payloads: list[bytes], *, queue: int = 0, change: Any = None) -> None:
    frames = burst(len(payloads))
    assert nic.pool.take(frames, 60) == len(payloads)
    for frame, payload in zip(frames, payloads, strict=True):
        frame.length = len(payload)
        nic.pool.view(int(frame.address), len(payload))[:] = np.frombuffer(payload, np.uint8)
    if change is not None:
        change(frames)
    assert nic.transmit(frames, len(payloads), queue) == len(payloads)


def receive(nic: Ena, count: int, *, queue: int = 0) -> list[bytes]:
    """Wait for `count` frames (entries are joined where one goes on in the next)."""
    found: list[bytes] = []
    part = b""
    deadline = time.monotonic() + SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} frames"
        frames = burst(64)
        taken = frames[: nic.receive(frames, queue=queue)]
        for frame, view in zip(taken, nic.pool.views(taken), strict=True):
            part += view.tobytes()
            if not frame["flags"] & port.RX_MORE:
                found.append(part)
                part = b""
        nic.pool.give(taken)
    return found


def plain(to: Ena, source: Ena, number: int, size: int = 60) -> bytes:
    return (to.mac + source.mac + b"\x88\xb5" + f"{number:6d} ".encode() * 300)[:size]


@pytest.mark.parametrize("llq", [0, 128, 256])
def test_frames_of_all_sizes_both_ways_through_many_laps(llq: int) -> None:
    with enas(2, llq=llq, ring_size=64) as (_, (one, two)):
        assert one.traps > 0 and one.mac != two.mac
        before = one.traps + two.traps
        for number in range(60):
            sizes = [60 + (number * 37 + step * 101) % 1455 for step in range(20)]
            for source, to in ((one, two), (two, one)):
                sent = [plain(to, source, number, size) for size in sizes]
                send(source, sent)
                assert receive(to, 20) == sent
        assert one.traps + two.traps == before  # the data path has none
        one.wait_sent()
        two.wait_sent()
        assert not one.must_restart() and not two.must_restart()
        assert one.stats()["tx_packets"] == two.stats()["rx_packets"] == 1200


def test_every_buffer_comes_back() -> None:
    with enas(2) as (_, (one, two)):
        send(one, [plain(two, one, number) for number in range(200)])
        receive(two, 200)
        one.wait_sent()
        one.stop()
        two.stop()
        for nic in (one, two):
            assert nic.pool.words[0].free == nic.pool.words[0].buffers
            assert len(set(nic.pool.stack.tolist())) == nic.pool.words[0].buffers


@pytest.mark.parametrize("headroom", [0, 64])
@pytest.mark.parametrize("llq", [0, 128])
def test_a_tag_is_put_in_line_by_the_driver(llq: int, headroom: int) -> None:
    with enas(2, llq=llq) as (_, (one, two)):
        data = plain(two, one, 3, 200)

        def tag(frames: Any) -> None:
            frames["flags"], frames.vlan = port.TX_VLAN, 7
            if headroom:
                view = one.pool.view(int(frames[0].address), headroom + 200)
                view[headroom:] = view[:200].copy()
                frames.address += headroom

        send(one, [data], change=tag)
        assert receive(two, 1) == [data[:12] + b"\x81\x00\x00\x07" + data[12:]]


@pytest.mark.parametrize(("llq", "most"), [(128, 4), (256, 2)])
def test_a_burst_limit_is_kept_by_more_doorbells(llq: int, most: int) -> None:
    """512 bytes between two doorbells. tests/datapath/test_ena_driver_burst.py looks at each of them."""
    with enas(2, llq=llq, ring_size=64, options=EnaOptions(burst=512)) as (_, (one, two)):
        for lap in range(20):
            sent = [plain(two, one, lap * 30 + number, 60 + number * 40) for number in range(30)]
            before = one.stats()["queue_0_tx_doorbells"]
            send(one, sent)
            assert receive(two, 30) == sent
            assert one.stats()["queue_0_tx_doorbells"] - before == -(-30 // most)
            one.wait_sent()
        whole = (two.mac + one.mac + b"\x88\xb5" + bytes(range(256)) * 6)[:1500]

        def as_one(frames: Any) -> None:
            frames["flags"][:-1] = port.TX_MORE

        send(one, [whole[at : at + 250] for at in range(0, 1500, 250)], change=as_one)  # two entries
        assert receive(two, 1) == [whole]
        one.wait_sent()
        assert one.stats()["tx_errors"] == 0


def test_a_frame_longer_than_a_burst_is_given_back_and_counted() -> None:
    """256 bytes between two doorbells are one entry of 256, and a frame of three buffers takes two."""
    with enas(2, llq=256, options=EnaOptions(burst=256)) as (_, (one, two)):
        whole = plain(two, one, 1, 600)
        free = int(one.pool.words[0].free)

        def as_one(frames: Any) -> None:
            frames["flags"][:-1] = port.TX_MORE

        send(one, [whole[at : at + 200] for at in range(0, 600, 200)], change=as_one)
        assert one.stats()["tx_errors"] == 1 and int(one.pool.words[0].free) == free
        send(one, [whole[:300], whole[300:]], change=as_one)
        assert receive(two, 1) == [whole]


def test_several_queues_share_the_flows() -> None:
    with enas(2, queues=4) as (_, (one, two)):
        for flow in range(64):
            # Numbers that differ in many bits: with few, one random key in thirty leaves a queue out.
            mixed = (flow * 0x9E3779B1 & 0xFFFF_FFFF).to_bytes(4, "big")
            ip = bytes.fromhex("4500002e00004000401100000a0000010a00") + mixed[:2]
            udp = mixed[2:] + bytes.fromhex("0050001a0000")
            frame = two.mac + one.mac + b"\x08\x00" + ip + udp
            send(one, [frame.ljust(60, b"\0")], queue=flow % 4)
        deadline = time.monotonic() + SECONDS
        counts = [0] * 4
        while sum(counts) < 64:
            assert time.monotonic() < deadline, counts
            for queue in range(4):
                frames = burst(64)
                taken = two.receive(frames, queue=queue)
                two.pool.give(frames[:taken])
                counts[queue] += taken
        assert all(counts), counts
        stats = two.stats()
        assert [stats[f"queue_{queue}_rx_cnt"] for queue in range(4)] == counts
        assert stats["hw_rx_pkts"] == 64


def toeplitz(key: bytes, data: bytes) -> int:
    """Bit by bit: for every 1 in the input, the 32 bits of the key that begin at its place."""
    window, width, value = int.from_bytes(key, "big"), 8 * len(key), 0
    for place in range(8 * len(data)):
        if data[place // 8] >> (7 - place % 8) & 1:
            value ^= window >> (width - 32 - place) & 0xFFFFFFFF
    return value


def hash_by(nic: Ena, protocol: int, fields: int) -> None:
    """`ethtool -N eth0 rx-flow-hash`: as Linux's driver does it, it reads the choice and writes it back changed."""
    nic.admin.get_feature(admin.RSS_HASH_INPUT, msg.HASH_INPUT, buffer=msg.HASH_CONTROL.itemsize)
    buffer = nic.admin.view("buffer")[: msg.HASH_CONTROL.itemsize]
    buffer.view(msg.HASH_CONTROL)["selected_fields"]["fields"][0, protocol] = fields
    order = np.zeros((), msg.HASH_INPUT)
    nic.admin.set_feature(admin.RSS_HASH_INPUT, order, buffer=buffer.nbytes)


def test_fields_are_hashed_one_by_one_and_the_others_are_zeros() -> None:
    """UDP over IPv4, which the fast path would take, and would hash whole."""
    with enas(2, queues=2) as (_, (one, two)):
        sent = []
        for number in range(20):
            addresses = bytes([10, 0, number, 1, 10, 0, 3 * number, 2])
            ports = (1000 + 7 * number).to_bytes(2, "big") + (80 + number).to_bytes(2, "big")
            ip = bytes.fromhex("4500002e0000400040110000") + addresses
            frame = two.mac + one.mac + b"\x08\x00" + ip + ports + bytes.fromhex("001a0000")
            sent.append((frame.ljust(60, b"\0"), addresses + ports))
        for fields, kept in (
            (admin.RSS_L3_SA | admin.RSS_L3_DA | admin.RSS_L4_SP | admin.RSS_L4_DP, range(12)),
            (admin.RSS_L3_SA, range(4)),
            (admin.RSS_L3_DA, range(4, 8)),
            (admin.RSS_L4_SP, range(8, 10)),
            (admin.RSS_L3_DA | admin.RSS_L4_DP, (*range(4, 8), 10, 11)),
            (admin.RSS_L3_SA | admin.RSS_L3_DA, range(8)),
        ):
            hash_by(two, admin.RSS_UDP4, fields)
            send(one, [frame for frame, _ in sent])
            got = {}
            deadline = time.monotonic() + SECONDS
            while len(got) < len(sent):
                assert time.monotonic() < deadline, f"{len(got)} frames"
                for queue in range(2):
                    frames = burst(64)
                    taken = frames[: two.receive(frames, queue=queue)]
                    for entry, view in zip(taken, two.pool.views(taken), strict=True):
                        got[view.tobytes()] = int(entry.hash) & 0xFFFFFFFF, queue
                    two.pool.give(taken)
            for frame, data in sent:
                zeroed = bytes(byte if place in kept else 0 for place, byte in enumerate(data))
                value = toeplitz(two._key, zeroed)
                assert got[frame] == (value, value % 128 % 2), (fields, data)
            one.wait_sent()


def test_no_wake_up_is_lost() -> None:
    with enas(2) as (_, (one, two)):
        poller = select.poll()
        for fd in two.event_fds:
            poller.register(fd, select.POLLIN)
        for number in [*range(1, 30), *[1] * 60]:
            send(one, [plain(two, one, step) for step in range(number)])
            got = 0
            while got < number:
                frames = burst(64)
                came = two.receive(frames)
                two.pool.give(frames[:came])
                got += came
                if came == 0:
                    two.arm()
                    came = two.receive(frames)
                    two.pool.give(frames[:came])
                    got += came
                    if came == 0:
                        assert poller.poll(SECONDS * 1000), f"no event, {got} of {number} frames"


def test_link_changes_are_heard() -> None:
    with enas(1) as (card, (nic,)):
        assert nic.link_up() and nic.link_speed() > 0
        card.change(0, {"state": "disable"})
        wait(lambda: not nic.link_up())
        card.change(0, {"state": "auto"})
        wait(nic.link_up)
        assert nic.events.counts[admin.LINK_CHANGE] >= 3


def wait(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.001)


def test_a_device_that_says_nothing_is_reset_and_moves_frames_again() -> None:
    with enas(2) as (card, (one, two)):
        two.events.watchdog_seconds = 0.0
        assert two.must_restart() and two.events.reset_reason == reg.RESET_KEEP_ALIVE_TO
        two.events.watchdog_seconds = 6.0
        two.restart()
        two.wait_link_up()
        assert not two.must_restart() and two.stats()["resets"] == 1
        assert card.vfs[1].counters()["resets"] == {"keep-alive lost": 1, "normal": 1}
        send(one, [plain(two, one, 1)])
        assert receive(two, 1) == [plain(two, one, 1)]


def test_keep_alive_comes_by_itself() -> None:
    with enas(1) as (_, (nic,)):
        wait(lambda: nic.events.poll() >= 0 and nic.events.counts.get(admin.KEEP_ALIVE, 0) > 0)
        assert set(nic.events.drops) == {"rx_drops", "tx_drops", "rx_overruns"}
        assert not nic.must_restart()


def test_a_device_without_optional_features() -> None:
    bare = frozenset(
        {"HW_HINTS", "LLQ", "MAX_QUEUES_EXT", "RSS_HASH_FUNCTION", "RSS_INDIRECTION_TABLE_CONFIG"}
    )
    bare |= {"MTU", "RSS_HASH_INPUT", "INTERRUPT_MODERATION", "LINK_CONFIG", "HOST_ATTR_CONFIG", "PHC_CONFIG"}
    options = EnaOptions(readless=False, without=bare | {"CUSTOMER_METRICS", "ENI_STATS"})
    with enas(2, options=options) as (_, (one, two)):
        send(one, [plain(two, one, 1)])
        assert receive(two, 1) == [plain(two, one, 1)]
        assert "bw_in_allowance_exceeded" not in one.stats() and one.alive()


def test_an_alert_can_be_tried() -> None:
    """A limit on received packets: what is missing is in the counter that an operator watches."""
    with enas(2) as (card, (one, two)):
        allow(card, Allowance((1,), {"pps": 1000}))
        sent = 0
        while sent < 400:
            send(one, [plain(two, one, step) for step in range(20)])
            one.wait_sent()
            sent += 20
        frames, got = burst(64), 0
        while came := two.receive(frames):
            two.pool.give(frames[:came])
            got += came
        stats = two.stats()
        assert got < 400 and stats["pps_allowance_exceeded"] == 400 - got
        assert stats["bw_in_allowance_exceeded"] == one.stats()["pps_allowance_exceeded"] == 0


def test_the_allowance_counters_have_their_documented_names() -> None:
    with enas(1) as (_, (nic,)):
        assert set(admin.METRIC_NAMES.values()) <= nic.stats().keys()
    with enas(1, options=EnaOptions(without=frozenset({"CUSTOMER_METRICS"}))) as (_, (nic,)):
        assert "pps_allowance_exceeded" in nic.stats() and "conntrack_allowance_available" not in nic.stats()


def test_connections_are_left_until_the_limit_is_reached() -> None:
    """Without a limit, too: an operator's check takes 0 for an alarm."""

    def left(nic: Ena) -> int:
        return nic.stats()["conntrack_allowance_available"]

    with enas(2) as (card, (one, two)):
        assert left(one) == left(two) == CONNTRACK_MOST
        allow(card, Allowance((0,), {"conntrack_most": 2}))
        assert left(one) == 2
        ethernet = two.mac + one.mac + b"\x08\x00"
        for number, available in ((7, 1), (8, 0), (8, 0), (9, 0)):
            data = struct.pack(">HHHH", number, 9, 26, 0) + bytes(18)
            header = struct.pack(">BBHHHBBHII", 0x45, 0, 46, 0, 0, 64, 17, 0, 0x0A000001, 0x0A000002)
            send(one, [ethernet + header + data])
            one.wait_sent()
            assert left(one) == available
        assert one.stats()["conntrack_allowance_exceeded"] == 1
        assert left(two) == CONNTRACK_MOST


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"queues": 33}, "this ENA has 32"),
        ({"ring_size": 48}, "power of two"),
        ({"llq": 64}, "128 or 256"),
        ({"llq": 256, "ring_size": 1024}, "no low-latency queues of 1024"),
        ({"mtu": 9001}, "takes up to"),
    ],
)
def test_what_the_device_does_not_have_is_refused_in_words(asked: dict[str, int], says: str) -> None:
    with enas(1) as (card, (nic,)):
        path = nic.info.bus_info
        nic.close()
        with Pool(2048, rings=1 << 22) as pool:
            for _ in range(2):
                with pytest.raises(UsageError, match=says):
                    Ena.open(VfioUserFunction(path), pool, **asked)
        assert card.engine.running


def test_jumbo_frames_take_several_buffers() -> None:
    with enas(2, mtu=9001) as (_, (one, two)):
        data = (two.mac + one.mac + b"\x88\xb5" + bytes(range(256)) * 40)[:9015]
        pieces = [data[at : at + 2000] for at in range(0, len(data), 2000)]

        def as_one(frames: Any) -> None:
            frames["flags"][:-1] = port.TX_MORE

        send(one, pieces, change=as_one)
        assert receive(two, 1) == [data]
