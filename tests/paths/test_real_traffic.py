"""The kernel's own traffic over both paths: two network namespaces, a tap on a function in each."""

import hashlib
import json
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import real_kit as kit
from pcapng import FileWriter, blocks
from pyroute2 import netns

from vfwire.devices.models import MODELS
from vfwire.measure.capture import read_capture

MEGABYTES = 100
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS, _ETH_P_ALL = (
    33,
    263,
    6,
    3,
)  # socket.h, if_packet.h, if_ether.h
_ETHERTYPES = {"ARP": 0x0806, "IPv4": 0x0800, "IPv6": 0x86DD}


@contextmanager
def socket_in(
    namespace: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM
) -> Iterator[socket.socket]:
    """A socket that belongs to a namespace; this thread is back in its own at once."""
    netns.pushns(namespace)
    try:
        made = socket.socket(family, kind)
    finally:
        netns.popns()
    made.settimeout(kit.SECONDS)
    with made:
        yield made


@contextmanager
def capturing(namespace: str, path: Path) -> Iterator[None]:
    """Everything that passes the tap in a namespace meanwhile, both ways, as pcapng."""
    with socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW) as tap, path.open("wb") as file:
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        section = blocks.SectionHeader(options={"shb_userappl": "vfwire's tests"})
        interface = section.new_member(blocks.InterfaceDescription, link_type=1, snaplen=1 << 16)
        writer = FileWriter(file, section)
        tap.settimeout(0.1)
        tap.bind((kit.TAP, _ETH_P_ALL))
        ended = threading.Event()

        def capture() -> None:
            while True:
                try:
                    data = tap.recv(1 << 16)
                except TimeoutError:
                    if ended.is_set():
                        return
                    continue
                writer.write_block(section.new_member(blocks.EnhancedPacket, packet_data=data))

        assert interface.link_type == 1
        thread = threading.Thread(target=capture)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(kit.SECONDS)
        received, dropped = struct.unpack("II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        assert received > 0 and dropped == 0


def pings(namespace: str, to: str) -> None:
    """20 of 20 answers."""
    text = kit.inside(namespace, "ping", "-c", "20", "-i", "0.1", "-W", "10", to)
    assert "20 packets transmitted, 20 received, 0% packet loss" in text, text


def iperf(client: str, server: str, *options: str) -> float:
    """Bits a second that the receiver got."""
    listen = ["ip", "netns", "exec", server, "iperf3", "-s", "-1", "--forceflush"]
    with subprocess.Popen(listen, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            kit.wait_line(process.stdout, "listening")
            command = ("iperf3", "-c", kit.IPV4[1], "--json", *options)
            found = json.loads(kit.inside(client, *command))
            process.wait(kit.SECONDS)
        finally:
            process.kill()
    return float(found["end"]["sum_received"]["bits_per_second"])


def transfer(sender: str, receiver: str, path: Path) -> str:
    """Send a file over TCP; returns the SHA-256 of what arrived."""
    digest = hashlib.sha256()
    with socket_in(receiver) as listener, socket_in(sender) as near:
        listener.bind((kit.IPV4[1], 5000))
        listener.listen(1)

        def receive() -> None:
            far, _ = listener.accept()
            with far:
                far.settimeout(kit.SECONDS)
                while data := far.recv(1 << 16):
                    digest.update(data)

        thread = threading.Thread(target=receive)
        thread.start()
        near.connect((kit.IPV4[1], 5000))
        with path.open("rb") as file:
            near.sendfile(file)
        near.close()
        thread.join(kit.SECONDS)
        assert not thread.is_alive()
    return digest.hexdigest()


@pytest.fixture(scope="module")
def megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 MB that no compression and no repetition can hide a fault in."""
    path = tmp_path_factory.mktemp("real") / "data"
    with path.open("wb") as file:
        for number in range(MEGABYTES):
            seed = hashlib.shake_256(number.to_bytes(4, "big"))
            file.write(seed.digest(1_000_000))
    return path


@pytest.mark.parametrize("path", kit.PATHS)
def test_ping_iperf_and_a_transfer(
    path: str, netns_pair: tuple[str, str], megabytes: Path, soaking: bool
) -> None:
    one, two = netns_pair
    seconds = "10" if soaking else "2"
    with kit.PATHS[path](netns_pair) as cards:
        pings(one, kit.IPV4[1])
        pings(two, kit.IPV6[0])
        assert iperf(one, two, "--time", seconds) > 1e6
        assert iperf(one, two, "--time", seconds, "--reverse") > 1e6
        assert transfer(one, two, megabytes) == hashlib.sha256(megabytes.read_bytes()).hexdigest()
        crossed = sum(card.counters()["link_bytes"] for card in cards)
        assert crossed > MEGABYTES * 1_000_000


@pytest.mark.parametrize("path", ["enhanced", "enhanced, ena", "default"])
def test_without_offloads(path: str, netns_pair: tuple[str, str], megabytes: Path) -> None:
    """The kernel sums and segments by itself: every frame is whole when it reaches the tap."""
    one, two = netns_pair
    with kit.PATHS[path](netns_pair, "--no-offloads"):
        pings(one, kit.IPV4[1])
        assert transfer(one, two, megabytes) == hashlib.sha256(megabytes.read_bytes()).hexdigest()


@pytest.mark.parametrize("model", MODELS)
def test_segments_of_64_kib_are_cut_by_the_card(
    model: str, netns_pair: tuple[str, str], megabytes: Path
) -> None:
    """With offloads far fewer frames leave the kernel than cross the link, and none is longer than the MTU."""
    one, two = netns_pair
    with kit.enhanced(netns_pair, model=model) as cards:
        transfer(one, two, megabytes)
        sent = json.loads(kit.run("ip", "-n", one, "-s", "-j", "link", "show", kit.TAP))[0]["stats64"]["tx"][
            "packets"
        ]
        crossed = cards[0].counters()["link_frames"]
        assert crossed >= MEGABYTES * 1_000_000 // 1448 > 4 * sent


def test_a_capture_of_it_replays_unchanged(netns_pair: tuple[str, str], tmp_path: Path) -> None:
    """ARP, IPv6 and TCP as the kernel made them, taken at a tap, sent again over both paths by `vfwire compare`."""
    capture = tmp_path / "real.pcapng"
    one, two = netns_pair
    with kit.enhanced(netns_pair, "--no-offloads"), capturing(two, capture):
        pings(one, kit.IPV6[1])
        pings(one, kit.IPV4[1])
        iperf(one, two, "--bytes", "5M")
    frames = read_capture(capture, 1514)
    found = {int.from_bytes(frame[12:14], "big") for frame in frames}
    assert found >= set(_ETHERTYPES.values())
    done = subprocess.run(
        [*kit.VFWIRE, "compare", "--json", "--seconds", "0.2", "--replay", str(capture)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records: list[dict[str, Any]] = json.loads(done.stdout)["paths"]
    assert [record["driver"] for record in records] == ["netfront", "ixgbevf", "ena"]
    for record in records:
        assert record["sent"] == record["received"] == len(frames)
        assert record["lost"] == record["corrupted"] == record["reordered"] == 0
