"""Images booted as EC2 would, and watched from outside: real guests, a card, a network."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from image_kit import FAULTS, debian_image

from tests.guests.guest_kit import guest_image
from vfwire.checks.image import steps
from vfwire.guests.image import QUICK_BOOT

pytestmark = pytest.mark.guests
VFWIRE = [sys.executable, "-c", "from vfwire.cli import main; main()"]


def check(*arguments: str | Path, timeout: float = 170) -> tuple[int, dict[str, Any], str]:
    """(exit code, its JSON, what it said meanwhile) of `vfwire image check`."""
    command = [*VFWIRE, "image", "check", "--json", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)
    return done.returncode, json.loads(done.stdout), done.stderr


def happened(boot: dict[str, Any]) -> list[str]:
    return [step["step"] for step in boot["steps"] if step["seconds"] is not None]


def test_a_debian_image_comes_up_on_an_ena() -> None:
    image = debian_image("good")
    before = image.stat().st_mtime_ns
    code, told, progress = check(image, "--seconds", "160")
    (boot,) = told["boots"]
    assert code == 0, boot
    assert (boot["verdict"], boot["model"], boot["firmware"]) == ("enhanced", "ena", "uefi")
    wanted = [steps.RESET, steps.NEGOTIATED, steps.HOST_INFO, steps.QUEUES, steps.LEASE, steps.PING]
    assert [name for name in happened(boot) if name != steps.METADATA] == wanted
    times = [step["seconds"] for step in boot["steps"] if step["step"] in wanted]
    assert times == sorted(times)
    assert all(f"s  {name}" in progress for name in wanted)
    assert "Linux" in boot["steps"][2]["detail"]
    assert image.stat().st_mtime_ns == before  # the image was not written to


def test_a_kernel_and_an_initrd_that_ask_for_nothing() -> None:
    """The test guest has the driver and brings nothing up: the look says what it has, the verdict where it stops."""
    image = guest_image()
    files = ("--kernel", image.kernel, "--initrd", image.initrd, "--append", QUICK_BOOT)
    small = ("--firmware", "bios", "--seconds", "35", "--memory", "256", "--vcpus", "1")
    code, told, _ = check("--model", "82599", *files, *small)
    (boot,), inside = told["boots"], told["inside"]
    assert code == 1 and happened(boot)[:2] == [steps.RESET, steps.NEGOTIATED], boot
    assert "never brought up" in boot["reason"] and "DHCP" in boot["next_step"]
    (kernel,) = inside["kernels"]
    assert kernel["drivers"]["ixgbevf"] == "module" and kernel["drivers"]["nvme"] == "built in"
    assert "ixgbevf" in kernel["in_initramfs"]


@pytest.mark.soak
@pytest.mark.parametrize("variant", FAULTS)
def test_images_that_do_not_come_up_say_where_they_stop_and_why(variant: str) -> None:
    why, stops_at = FAULTS[variant], steps.QUEUES if variant == "wrong-interface" else steps.RESET
    code, told, _ = check(debian_image(variant), "--seconds", "100")
    (boot,) = told["boots"]
    assert code == 1 and boot["verdict"] == told["verdict"] == "not" and boot["console"] and boot["next_step"]
    assert why in told["reason"]
    first = next(step["step"] for step in boot["steps"] if step["seconds"] is None)
    assert first == stops_at


@pytest.mark.soak
def test_cloud_init_finds_the_metadata_that_it_wants() -> None:
    code, told, _ = check(debian_image("cloud-init"), "--seconds", "300", timeout=400)
    (boot,) = told["boots"]
    assert code == 0 and steps.METADATA in happened(boot), boot
