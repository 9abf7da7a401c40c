"""Each example as a person would run it: a process of its own, on a real card."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.devices.hosting import HostedCard
from vfwire.devices.models import MODELS
from vfwire.devices.settings import format_mac
from vfwire.drivers.function_driver import FunctionDriver
from vfwire.drivers.table import DRIVERS, open_driver
from vfwire.drivers.verbs import Pool, burst

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 90
VFS = 3


@pytest.fixture(params=MODELS)
def card(request: pytest.FixtureRequest) -> Iterator[HostedCard]:
    Engine.warm_up()
    for driver in DRIVERS:
        driver.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(VFS)])
        stack.callback(engine.close)
        made = Card(engine, 0, "card0", VFS, line_rate_bps=None, model=request.param)
        stack.callback(made.close)
        engine.start()
        hosted = HostedCard(made, directory)
        stack.callback(hosted.close)
        made.set_link(True)
        yield hosted


def mac(card: HostedCard, vf: int) -> str:
    return format_mac(card.card.functions[vf].port.mac)


@contextmanager
def example(name: str, *arguments: object) -> Iterator[IO[str]]:
    """A running example: its output. It has to end well by itself."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout
            rest, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, rest + errors
        finally:
            process.kill()


def number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1])


def exchange(nic: FunctionDriver, to: bytes, count: int) -> list[bytes]:
    """Send `count` numbered frames, a burst at a time, and return what comes, until as many have come."""
    frames, arrived = burst(16), burst(16)
    sent, received = 0, []
    deadline = time.monotonic() + 20
    while len(received) < count and time.monotonic() < deadline:
        if sent < count and sent - len(received) < 64:
            got = nic.pool.take(frames[: min(16, count - sent)], 60)
            for at, view in enumerate(nic.pool.views(frames[:got])):
                view[:] = bytearray(
                    (to + nic.mac + b"\x88\xb5" + (sent + at).to_bytes(8, "big")).ljust(60, b"\0")
                )
            taken = nic.transmit(frames, got)
            nic.pool.give(frames[taken:got])
            sent += taken
        came = nic.receive(arrived)
        received += [view.tobytes() for view in nic.pool.views(arrived[:came])]
        nic.pool.give(arrived[:came])
    return received


def test_a_generator_feeds_a_sink(card: HostedCard) -> None:
    with example("sink", card.socket(1), "--seconds", 60, "--count", 2000) as sink:
        assert sink.readline() == f"listening as {mac(card, 1)}\n"
        to = ("--to", mac(card, 1), "--seconds", 1.5)
        with example("generator", card.socket(0), *to) as generator:
            sent = number(generator.readline(), r"^(\d+) frames sent")
        first = sink.readline()
        received = number(sink.readline(), r"^(\d+) frames")
    wanted = (mac(card, 1) + " " + mac(card, 0)).replace(":", " ") + " 88 b5"
    assert first.startswith(f"first frame: {wanted}")
    assert 2000 <= received <= sent


def test_an_echo_answers_every_frame(card: HostedCard) -> None:
    with (
        example("echo", card.socket(1), "--seconds", 60, "--count", 500) as echo,
        Pool(1024) as pool,
        open_driver(VfioUserFunction(card.socket(0)), pool) as nic,
    ):
        assert echo.readline() == f"answering as {mac(card, 1)}\n"
        there = bytes.fromhex(mac(card, 1).replace(":", ""))
        answers = exchange(nic, there, 500)
        assert [answer[:14] for answer in answers] == [nic.mac + there + b"\x88\xb5"] * 500
        assert [int.from_bytes(answer[14:22], "big") for answer in answers] == list(range(500))
        assert echo.readline() == "500 frames answered, 0 dropped\n"


def test_a_forwarder_passes_frames_between_two_vfs(card: HostedCard) -> None:
    """What is sent to VF 1 leaves from VF 2, addressed to us."""
    to = ("--to-a", mac(card, 0), "--to-b", mac(card, 0), "--seconds", 60, "--count", 600)
    with (
        example("forwarder", card.socket(1), card.socket(2), *to) as forwarder,
        Pool(1024) as pool,
        open_driver(VfioUserFunction(card.socket(0)), pool) as nic,
    ):
        assert forwarder.readline() == f"forwarding between {mac(card, 1)} and {mac(card, 2)}\n"
        one, two = (bytes.fromhex(mac(card, vf).replace(":", "")) for vf in (1, 2))
        over = exchange(nic, one, 300)
        assert {frame[:14] for frame in over} == {nic.mac + two + b"\x88\xb5"}
        assert [int.from_bytes(frame[14:22], "big") for frame in over] == list(range(300))
        back = exchange(nic, two, 300)
        assert {frame[:14] for frame in back} == {nic.mac + one + b"\x88\xb5"}
        assert number(forwarder.readline(), r"^(\d+) frames") == 600


def test_ena_by_hand() -> None:
    """Two VFs of a card of ENAs: the frame is whole, and both devices are as they were for whoever comes next."""
    Engine.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="vfw"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        engine = Engine([functions_of(2)])
        stack.callback(engine.close)
        made = Card(engine, 0, "card0", 2, line_rate_bps=None, model="ena")
        stack.callback(made.close)
        engine.start()
        hosted = HostedCard(made, directory)
        stack.callback(hosted.close)
        for _ in range(2):
            with example("ena_by_hand", hosted.socket(0), hosted.socket(1)) as output:
                assert "received: hello....." in output.readline()
