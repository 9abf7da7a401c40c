"""`vfwire compare`, the real thing, short: its contract, its table, its picture, its errors."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECORD_KEYS = [
    *("path", "driver", "frame_bytes", "direction", "line_rate_bps", "offered_pps", "packets_per_second"),
    *("bits_per_second", "sent", "received", "lost", "lost_to", "corrupted", "reordered", "rtt_us"),
    *("cpu_ns_per_packet", "hops", "cores", "ring_size"),
]
COMMAND = [sys.executable, "-c", "from vfwire.cli import main; main()", "compare"]


def vfwire(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=170, check=False)


def compared(*arguments: str) -> dict[str, Any]:
    done = vfwire("--json", "--seconds", "0.2", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_contract(found: dict[str, Any]) -> None:
    assert found["schema"] == 1
    assert found["machine"]["cores"] >= 1 and "cache_line_round_trip_ns" in found["machine"]
    for record in found["paths"]:
        assert list(record) == RECORD_KEYS
        assert record["lost"] == sum(record["lost_to"].values())
        assert record["sent"] == record["received"] + record["lost"] + record["corrupted"]
        assert "unaccounted" not in record["lost_to"]
        assert record["corrupted"] == 0
        assert record["bits_per_second"] == pytest.approx(
            record["packets_per_second"] * record["frame_bytes"] * 8
        )
        assert list(record["rtt_us"]) == ["p50", "p90", "p99", "p99.9", "max", "samples"]
        assert list(record["cpu_ns_per_packet"]) == ["systems", "layers", "card"]
        assert list(record["hops"]) == ["layers", "copies", "wakeups_per_packet", "traps_per_packet"]
        assert all(0 <= core < (os.cpu_count() or 1) for core in record["cores"].values())


def test_the_contract() -> None:
    found = compared()
    check_contract(found)
    assert [(record["path"], record["frame_bytes"]) for record in found["paths"]] == [
        *(("default", 64), ("enhanced", 64), ("enhanced", 64)),
        *(("default", 1518), ("enhanced", 1518), ("enhanced", 1518)),
    ]
    assert [record["driver"] for record in found["paths"]] == ["netfront", "ixgbevf", "ena"] * 2
    for record in found["paths"]:
        assert record["received"] > 0 and record["rtt_us"]["p50"] > 0
        assert record["rtt_us"]["p50"] <= record["rtt_us"]["p99.9"] <= record["rtt_us"]["max"]
        assert (record["line_rate_bps"], record["offered_pps"], record["direction"]) == (
            10**11 if record["driver"] == "ena" else 10**10,
            None,
            "one-way",
        )
        enhanced = record["path"] == "enhanced"
        assert record["hops"]["layers"] == (0 if enhanced else pytest.approx(2, rel=0.5))
        assert record["hops"]["copies"] >= 1
        assert list(record["cores"])[:3] == ["card", "system 1", "system 2"]
    default, *enhanced = found["paths"][:3]
    for record in enhanced:
        assert default["hops"]["copies"] > record["hops"]["copies"] >= 1
        assert record["hops"]["wakeups_per_packet"] == record["hops"]["traps_per_packet"] == 0


def test_options_reach_the_paths() -> None:
    found = compared("--size", "128", "--same-host", "--line-rate", "off", "--both-ways", "--rate", "20000")
    check_contract(found)
    assert [record["frame_bytes"] for record in found["paths"]] == [128, 128, 128]
    for record in found["paths"]:
        assert (record["line_rate_bps"], record["offered_pps"]) == (None, 20_000)
        assert record["direction"] == "both-ways"
    assert found["run"]["same_host"] is True


def test_every_byte_over_several_queues() -> None:
    arguments = ("--size", "1518", "--full-check", "--queues", "2", "--rate", "20000")
    found = compared(*arguments, "--driver", "ena", "--llq", "128")
    check_contract(found)
    assert [record["driver"] for record in found["paths"]] == ["netfront", "ena"]
    found = compared(*arguments, "--driver", "ixgbevf")
    check_contract(found)
    assert found["run"]["check"] == "every byte"


def test_a_replay_of_a_conversation(tmp_path: Path) -> None:
    capture = tmp_path / "capture.pcap"
    frames = conversation()
    capture.write_bytes(as_pcap(frames))
    found = compared("--replay", str(capture))
    check_contract(found)
    for record in found["paths"]:
        assert record["sent"] == record["received"] == len(frames)
        assert record["lost"] == record["corrupted"] == record["reordered"] == 0


def test_the_table_and_the_picture(tmp_path: Path) -> None:
    picture = tmp_path / "compare.png"
    done = vfwire("--seconds", "0.1", "--size", "64", "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    for text in (
        "default path",
        "enhanced path",
        "round trip p99.9",
        "copies",
        "enhanced over default",
    ):
        assert text in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "vfwire: loading" in done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        (["--size", "63"], 2, "64 to 1518"),
        (["--size", "9000"], 2, "64 to 1518"),
        (["--seconds", "0"], 2, "seconds"),
        (["--rate", "0"], 2, "rate"),
        (["--line-rate", "fast"], 2, "line rate"),
        (["--queues", "3"], 2, "queues"),
        (["--ring-size", "1000"], 2, "ring size"),
        (["--plot", "picture.doc"], 2, "picture"),
        (["--replay", "/nowhere.pcap"], 6, "/nowhere.pcap"),
        (["--replay", "/proc/self/cmdline"], 6, "neither pcap nor pcapng"),
        (["--nonsense"], 2, "nonsense"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments: list[str], code: int, cause: str) -> None:
    done = vfwire(*arguments)
    lines = [
        line for line in done.stderr.splitlines() if not line.startswith(("vfwire: loading", "vfwire: comp"))
    ]
    assert done.returncode == code and done.stdout == ""
    assert lines[-1].startswith("vfwire: ") and cause in lines[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(number: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "--seconds", "30"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "packets a second" in line:
                break
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert children
        os.kill(running.pid, number)
        rest = running.stderr.read()
        code = running.wait(20)
    assert code == (130 if number == signal.SIGINT else 143) and "Traceback" not in rest
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"vfwire-run-{running.pid}-*"))


def conversation() -> list[bytes]:
    """ARP, IPv6, a broadcast, a tagged frame and TCP both ways between two stations that are neither system."""
    one, two = bytes.fromhex("020000aa0001"), bytes.fromhex("020000aa0002")
    arp = b"\xff" * 6 + one + b"\x08\x06" + bytes(range(28))
    solicitation = bytes.fromhex("3333ff000002") + one + b"\x86\xdd" + bytes(72)
    tagged = two + one + struct.pack(">HHH", 0x8100, 5, 0x0800) + bytes(60)
    frames = [arp, two + one + b"\x08\x06" + bytes(28), solicitation, tagged]
    for number in range(200):
        ends = two + one if number % 3 else one + two
        frames.append(ends + b"\x08\x00" + number.to_bytes(2, "big") * (23 + number * 3))
    return frames


def as_pcap(frames: list[bytes]) -> bytes:
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for frame in frames:
        data += struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
    return data
