"""Steps of a boot from what a card and a network tell, without a guest."""

from typing import Any

import numpy as np
import pytest

from vfwire.checks.image import steps as subject
from vfwire.checks.image.steps import Seen, Step, Steps
from vfwire.devices.card import Card
from vfwire.devices.ena_host import host_info
from vfwire.devices.engine import Engine
from vfwire.layouts.ena_messages import HOST_INFO


def _host() -> dict[str, Any]:
    page = np.zeros(1, HOST_INFO)
    page["os_type"], page["driver_version"] = 1, 2 | 13 << 8
    page["os_dist_str"], page["kernel_ver_str"] = b"6.12.1", b"#1 SMP Debian 6.12.1-1"
    return host_info(page.tobytes())


HOST = _host()


def ena(resets: int = 0, commands: int = 0, host: dict[str, Any] | None = None, rx: int = 0) -> Seen:
    counted = {
        "resets": {"normal": resets} if resets else {},
        "admin_commands": {"get_feature": commands} if commands else {},
    }
    return Seen({"host": host, "queues_open": {"tx": rx, "rx": rx}}, counted)


def vf_82599(messages: int = 0, rx: int = 0) -> Seen:
    return Seen({"mailbox_api": "1.7", "queues_open": {"tx": rx, "rx": rx}}, {"mailbox_messages": messages})


def test_an_ena_comes_up_step_by_step() -> None:
    told: list[Step] = []
    steps = Steps(True, told.append)
    views = [ena(), ena(1), ena(1, 5), ena(1, 6, HOST), ena(1, 9, HOST, 2), ena(2, 20, HOST, 2)]
    for second, seen in enumerate(views):
        steps.look(seen, second)
    steps.listen({"kind": "dhcp", "what": "discover"}, 6)
    assert steps.stopped_at == Step(subject.LEASE)
    steps.listen({"kind": "dhcp", "what": "request"}, 7)
    steps.listen({"kind": "metadata", "what": "PUT /latest/api/token"}, 8)
    assert not steps.reachable
    steps.happened(subject.PING, 9.04, "10.0.0.1")
    assert steps.reachable and steps.complete and steps.stopped_at is None
    assert [(step.name, step.seconds) for step in told] == [
        (subject.RESET, 1),
        (subject.NEGOTIATED, 2),
        (subject.HOST_INFO, 3),
        (subject.QUEUES, 4),
        (subject.LEASE, 7),
        (subject.METADATA, 8),
        (subject.PING, 9),
    ]
    assert steps[subject.HOST_INFO].detail == "Linux 6.12.1 (#1 SMP Debian 6.12.1-1), driver 2.13.0"


def test_an_82599_has_no_host_info_and_an_agreement_by_mailbox() -> None:
    steps = Steps(False)
    for second, seen in enumerate([vf_82599(), vf_82599(1), vf_82599(3), vf_82599(9, 1)]):
        steps.look(seen, second)
    assert [step.seconds for step in steps.steps[:3]] == [1, 2, 3]
    assert steps[subject.NEGOTIATED].detail == "mailbox API 1.7"
    assert subject.HOST_INFO not in [step.name for step in steps.steps]


@pytest.mark.parametrize("model", ["ena", "82599"])
def test_a_card_tells_what_the_steps_look_for(model: str) -> None:
    engine = Engine([1])
    try:
        card = Card(engine, 0, "card", 1, model=model)
        seen = Seen(card.describe()["vfs"][0], card.function_counters(card.functions[0]))
        assert (seen.resets, seen.agreement, seen.host, seen.queues) == (False, None, None, 0)
        card.close()
    finally:
        engine.close()
