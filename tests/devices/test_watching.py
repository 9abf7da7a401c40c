"""A watched card: a trace by name and time, captures that other programs read, and a card that neither can hurt."""

import json
import re
import shutil
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pcapng
import pytest
from device_kit import Guest, card_of, mac_words
from ena_guest_kit import DEVICE, TX, EnaGuest, ena_card
from pcapng import blocks
from test_card_traffic import Bench, frame, send, take
from test_ena_admin import llq_choice

from vfwire.datapath import recorder as ring
from vfwire.devices import ena_pages
from vfwire.devices import recorder as recording
from vfwire.devices.card import Card
from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.pcap import PcapFile
from vfwire.devices.recorder import Event, Recorder
from vfwire.devices.trace import TracedFunction, TraceFile
from vfwire.devices.watching import watching
from vfwire.errors import UsageError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_registers
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts import ixgbevf as regs
from vfwire.pci.endpoint import RegionIndex


@contextmanager
def traced(path: Path, **options: Any) -> Iterator[tuple[Card, Guest]]:
    """A card that is traced to `path`, and a guest on its first VF."""
    with card_of(2, **options) as card, watching(card, path, None) as wrap:
        assert wrap is not None
        guest = Guest(card.vfs[0])
        guest.function = wrap(card.vfs[0])  # type: ignore[assignment]
        yield card, guest


def lines(path: Path) -> list[list[str]]:
    return [line.split(maxsplit=3) for line in path.read_text().splitlines() if not line.startswith("#")]


def read_blocks(path: Path) -> list[Any]:
    with path.open("rb") as file, warnings.catch_warnings():  # the library's own, of if_tsresol
        warnings.simplefilter("ignore", DeprecationWarning)
        return list(pcapng.FileScanner(file))


def test_a_trace_tells_accesses_and_messages_by_name_in_order(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with traced(path) as (card, guest):
        guest.bus_master()
        assert guest.read(regs.VFLINKS) == regs.LINKS_UP | regs.LINKS_SPEED_10G
        guest.send([msg.VF_RESET])
        guest.write(regs.VTEITR + 4, 0x38)
        guest.write(0x10, 0xFFFFFF00, bar=RegionIndex.BAR3)
        guest.read(0x0004)
        low, high = mac_words(card.vfs[0].port.mac)
    assert [line[1:] for line in lines(path)] == [
        ["card0/0", "write", "COMMAND                 0x0006  MEMORY MASTER"],
        ["card0/0", "read", "VFLINKS                 0x70000000  UP SPEED_10G"],
        ["card0/0", "write", "VFMAILBOX               0x00000004  VFU"],
        ["card0/0", "read", "VFMAILBOX               0x00000084  VFU RSTD"],
        ["card0/0", "write", "VFMBMEM[0]              0x00000001"],
        ["card0/0", "write", "VFMAILBOX               0x00000001  REQ"],
        ["card0/0", "mailbox", "VF to PF  VF_RESET  00000001"],
        ["card0/0", "mailbox", f"PF to VF  VF_RESET ACK  80000001 {low:08x} {high:08x}"],
        ["card0/0", "read", "VFMAILBOX               0x00000030  PFSTS PFACK"],
        ["card0/0", "write", "VTEITR[1]               0x00000038"],
        ["card0/0", "write", "MSIX_LOWER_ADDR[1]      0xffffff00"],
        ["card0/0", "read", "BAR0+0x0004             0xffffffff"],
    ]
    times = [float(line[0]) for line in lines(path)]
    assert times == sorted(times) and times[0] >= 0
    assert path.read_text().splitlines()[-1] == "# end; 0 events lost"


def test_exact_shows_every_queue_register(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with traced(path, exact=True) as (_, guest):
        guest.write(regs.VFRDLEN + regs.QUEUE_STRIDE, 0x2000)
        guest.write(regs.VFTDT, 5)
        guest.write(regs.VFRXDCTL, regs.RXDCTL_ENABLE | regs.RXDCTL_VME)
    assert [line[3] for line in lines(path)] == [
        "VFRDLEN[1]              0x00002000",
        "VFTDT[0]                0x00000005",
        "VFRXDCTL[0]             0x42000000  ENABLE VME",
    ]


def test_json_lines_hold_the_same(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with traced(path) as (_, guest):
        guest.read(regs.VFLINKS)
        guest.send([msg.VF_RESET])
        guest.function.region_read(RegionIndex.CONFIG, 0, 64)
        guest.function.dma_map(0x1000, 0x2000, None, readable=True, writable=False)
        guest.function.reset()
    begin, links, *middle, config, dma, reset, end = map(json.loads, path.read_text().splitlines())
    assert (begin["event"], begin["card"], begin["model"]) == ("trace", "card0", "82599")
    del links["time"]
    assert links == {
        "function": "card0/0",
        "event": "read",
        "region": "BAR0",
        "offset": 16,
        "register": "VFLINKS",
        "bytes": 4,
        "value": 0x70000000,
        "bits": ["UP", "SPEED_10G"],
    }
    messages = [event for event in middle if event["event"] == "mailbox"]
    assert [(one["direction"], one["message"]) for one in messages] == [
        ("VF to PF", "VF_RESET"),
        ("PF to VF", "VF_RESET ACK"),
    ]
    assert messages[0]["words"] == [1]
    assert (config["register"], config["bytes"], "value" in config) == ("VENDOR_ID", 64, False)
    assert (dma["event"], dma["iova"], dma["size"]) == ("dma map", 0x1000, 0x2000)
    assert reset["event"] == "reset" and end == {"event": "end", "lost": 0}


def test_interrupts_and_frames_of_a_running_card(tmp_path: Path) -> None:
    """Two of our drivers on a card that is watched: what they send is in the capture, once for each side."""
    trace, capture = tmp_path / "trace", tmp_path / "frames.pcapng"
    with ExitStack() as stack:
        bench = Bench(stack)
        (card,) = bench.cards(2)
        stack.enter_context(watching(card, trace, capture, {1}))
        one, two = (bench.nic(card, vf) for vf in range(2))
        sent = [frame(two.mac, one.mac, number, 60 + number) for number in range(200)]
        for data in sent:
            send(one, [data])
            assert take(two, 1) == [data]
    packets = [block for block in read_blocks(capture) if isinstance(block, blocks.EnhancedPacket)]
    assert [packet.packet_data for packet in packets] == sent
    assert {packet.interface.options["if_name"] for packet in packets} == {card.vfs[1].name}
    assert {packet.options["epb_flags"].inout for packet in packets} == {"inbound"}


def test_the_recorder_is_gone_when_the_card_is_no_longer_watched(tmp_path: Path) -> None:
    with card_of(2) as card:
        with watching(card, tmp_path / "trace", tmp_path / "frames"):
            wants = ring.RECORD_FRAMES | ring.RECORD_INTERRUPTS
            assert card.engine.state.functions.recorded.tolist() == [wants, wants]
            assert card.engine.state.control[0].recorder != 0
        assert card.engine.state.functions.recorded.tolist() == [0, 0]
        assert card.engine.state.control[0].recorder == 0


def test_who_does_not_ask_is_not_watched(tmp_path: Path) -> None:
    with card_of(2) as card, watching(card, None, None) as wrap:
        assert wrap is None and card.engine.state.control[0].recorder == 0
        assert card.vfs[0].mailbox.observer is None
    with card_of(2) as card, watching(card, None, tmp_path / "frames") as wrap:
        assert wrap is None
        assert card.engine.state.functions.recorded.tolist() == [ring.RECORD_FRAMES] * 2


def test_files_that_cannot_be_written_are_named_and_the_other_one_is_closed(tmp_path: Path) -> None:
    with card_of(2) as card:
        missing = tmp_path / "nowhere" / "frames"
        with (
            pytest.raises(UsageError, match=r"the capture cannot be written to .*nowhere"),
            watching(card, tmp_path / "trace", missing),
        ):
            pass
        with pytest.raises(UsageError, match="no VF 2"), watching(card, None, tmp_path / "frames", {2}):
            pass
        with (
            pytest.raises(UsageError, match="give --pcap FILE"),
            watching(card, tmp_path / "trace", None, {0}),
        ):
            pass
        assert card.engine.state.control[0].recorder == 0


def test_a_full_disk_ends_the_trace_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with card_of(2) as card:
        bad, good = TraceFile.__new__(TraceFile), TraceFile(card, tmp_path / "good")
        bad.__init__(card, tmp_path / "bad")  # type: ignore[misc]
        bad._file.close()
        bad._file = Path("/dev/full").open("wb")  # noqa: SIM115
        with Recorder(card, [bad, good]) as recorder:
            guest = Guest(card.vfs[0])
            guest.function = TracedFunction(card.vfs[0], recorder)  # type: ignore[assignment]
            for _ in range(1000):
                guest.read(regs.VFSTATUS)
    assert len(lines(tmp_path / "good")) == 1000
    assert "nothing more is recorded there: No space left on device" in caplog.text


def test_what_finds_no_room_is_lost_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_LONGEST_QUEUE", 10)
    held = threading.Event()

    class Slow:
        wants = ring.RECORD_INTERRUPTS

        def __init__(self) -> None:
            self.seen: list[Event] = []
            self.lost = -1

        def write(self, event: Event) -> None:
            held.wait(10)
            self.seen.append(event)

        def flush(self) -> None:
            return

        def close(self, lost: int) -> None:
            self.lost = lost

    with card_of(2) as card:
        slow = Slow()
        with Recorder(card, [slow]) as recorder:
            for number in range(1000):
                recorder.note(0, "read", 0, number, b"\0\0\0\0")
            held.set()
        assert slow.lost == recorder.lost > 0
        assert len(slow.seen) + slow.lost == 1000


def test_a_capture_is_what_tcpdump_reads(tmp_path: Path) -> None:
    path = tmp_path / "frames.pcapng"
    with card_of(2) as card:
        capture = PcapFile(card, path)
        data = bytes.fromhex("02000000000202000000000188b5") + bytes(range(50))
        for number in range(3):
            capture.write(
                Event(number * 1_000_000_000, number % 2, "frame", (number % 2 == 0, data[: 60 + number]))
            )
        capture.close(7)
    tcpdump = shutil.which("tcpdump")
    assert tcpdump, "this test needs tcpdump"
    done = subprocess.run(
        [tcpdump, "-enr", str(path), "-XX"], capture_output=True, text=True, check=True, timeout=30
    )
    assert len(re.findall(r"02:00:00:00:00:01 > 02:00:00:00:00:02", done.stdout)) == 3
    read = read_blocks(path)
    interfaces = [block for block in read if isinstance(block, blocks.InterfaceDescription)]
    assert [block.options["if_name"] for block in interfaces] == ["card0/0", "card0/1"]
    packets = [block for block in read if isinstance(block, blocks.EnhancedPacket)]
    assert [(block.interface_id, block.options["epb_flags"].inout) for block in packets] == [
        (0, "outbound"),
        (1, "inbound"),
        (0, "outbound"),
    ]
    assert [len(block.packet_data) for block in packets] == [60, 61, 62]
    assert packets[1].timestamp - packets[0].timestamp == pytest.approx(1.0, abs=1e-6)
    lost = [block.options["isb_ifdrop"] for block in read if isinstance(block, blocks.InterfaceStatistics)]
    assert lost == [7, 7]


def test_an_ena_is_traced_by_its_own_names(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with card_of(1, model="ena", exact=True) as card, watching(card, path, None) as wrap:
        assert wrap is not None
        function = wrap(card.vfs[0])
        function.attach()
        function.region_write(RegionIndex.BAR0, ena_registers.DEV_CTL, b"\x01\0\0\0")
        function.region_read(RegionIndex.BAR0, ena_registers.DEV_STS, 4)
        function.region_write(RegionIndex.BAR0, ena_pages.rx_doorbell(3), b"\xff\0\0\0")
    assert [line[2:] for line in lines(path)] == [
        ["attach"],
        ["write", "DEV_CTL                 0x00000001  DEV_RESET"],
        ["read", "DEV_STS                 0x00000009  READY RESET_IN_PROGRESS"],
        ["write", "RX_DB[3]                0x000000ff"],
    ]


def test_an_enas_commands_and_events_are_in_its_trace(tmp_path: Path) -> None:
    """The lines that docs/watching.md shows: names, then the words of the whole entry, or of an event's own part."""
    path = tmp_path / "trace"
    with ena_card() as card, watching(card, path, None) as wrap:
        assert wrap is not None
        wrap(card.vfs[0])
        guest = EnaGuest(card.vfs[0])
        guest.bring_up()
        assert guest.get_feature(admin.LINK_CONFIG)[0] == 0
        assert guest.set_feature(admin.MTU, b"\1\0\0\0")[0] == admin.ILLEGAL_PARAMETER
        card.vfs[0].send_event("NOTIFICATION", {"driver_watchdog_timeout": 2000})
        guest.close()
    told = [line[3].split("  ") for line in lines(path) if line[2] == "admin"]
    assert [line[:2] for line in told] == [
        ["command", "SET_FEATURE AENQ_CONFIG"],
        ["completion", "SET_FEATURE AENQ_CONFIG SUCCESS"],
        ["event", "LINK_CHANGE"],
        ["command", "GET_FEATURE LINK_CONFIG"],
        ["completion", "GET_FEATURE LINK_CONFIG SUCCESS"],
        ["command", "SET_FEATURE MTU"],
        ["completion", "SET_FEATURE MTU ILLEGAL_PARAMETER"],
        ["event", "NOTIFICATION"],
    ]
    assert [len(line[2].split()) for line in told] == [16, 16, 2, 16, 16, 16, 16, 9]
    assert told[-1][2].split()[:2] == ["00000002", "07d00000"]


def test_a_burst_longer_than_an_ena_takes_is_in_its_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with ena_card(ena=EnaOptions(burst=1024), exact=True) as card, watching(card, path, None) as wrap:
        assert wrap is not None
        wrap(card.vfs[0])
        guest = EnaGuest(card.vfs[0])
        guest.bring_up()
        assert guest.set_feature(admin.LLQ, llq_choice(1, 1, 2, 2))[0] == 0
        guest.queue(TX, placement=DEVICE)
        guest.write(ena_pages.tx_doorbell(0), 8)
        guest.write(ena_pages.tx_doorbell(0), 20)
        guest.close()
    told = [line[2:] for line in lines(path) if line[2] == "burst"]
    assert told == [["burst", "TX_DB[0]  TOO_LONG  0000000c 00000008"]]
