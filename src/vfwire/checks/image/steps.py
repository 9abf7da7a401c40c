"""What a card and a network see of a guest that comes up, as steps in their order, each with its time.

No agent and no login: the steps are what the guest's driver does to the device, and what its network stack asks for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

RESET = "driver resets the device"
NEGOTIATED = "driver and device agree"
HOST_INFO = "driver says what it is"
QUEUES = "queues are up"
LEASE = "DHCP lease is taken"
METADATA = "metadata is asked for"
PING = "ping is answered"


@dataclass(frozen=True)
class Seen:
    """A card's view of its function at one moment: what `describe` and `counters` of devices/card.py tell."""

    described: dict[str, Any]
    counted: dict[str, Any]

    @property
    def resets(self) -> bool:
        """An ENA counts resets by reason; an 82599's driver begins with a message to its PF."""
        return bool(sum(self.counted.get("resets", {}).values()) or self.counted.get("mailbox_messages"))

    @property
    def agreement(self) -> str | None:
        """What they agreed on, in a few words."""
        commands = self.counted.get("admin_commands")
        if commands is not None:
            return f"{sum(commands.values())} admin commands" if commands else None
        messages = self.counted["mailbox_messages"]
        return f"mailbox API {self.described['mailbox_api']}" if messages > 1 else None

    @property
    def host(self) -> str | None:
        """An ENA driver's own words: OS, kernel, driver version."""
        host = self.described.get("host")
        if not host:
            return None
        return f"{host['os']} {host['release']} ({host['build']}), driver {host['driver_version']}"

    @property
    def queues(self) -> int:
        """Receive queues that the driver has opened."""
        opened: dict[str, int] = self.described["queues_open"]
        return opened["rx"]


@dataclass
class Step:
    """seconds: since the start, None while it has not happened."""

    name: str
    seconds: float | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"step": self.name, "seconds": self.seconds, "detail": self.detail}


@dataclass
class Steps:
    """The steps of one boot. `on_step` is told of each as it happens."""

    has_host_info: bool
    on_step: Callable[[Step], None] = lambda _step: None
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        names = [RESET, NEGOTIATED, HOST_INFO, QUEUES, LEASE, METADATA, PING]
        if not self.has_host_info:
            names.remove(HOST_INFO)
        self.steps = [Step(name) for name in names]

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def happened(self, name: str, seconds: float, detail: str = "") -> None:
        """Only the first time counts."""
        step = self[name]
        if step.seconds is None:
            step.seconds, step.detail = round(seconds, 1), detail
            self.on_step(step)

    def look(self, seen: Seen, seconds: float) -> None:
        if seen.resets:
            self.happened(RESET, seconds)
        if seen.agreement:
            self.happened(NEGOTIATED, seconds, seen.agreement)
        if self.has_host_info and seen.host:
            self.happened(HOST_INFO, seconds, seen.host)
        if seen.queues:
            self.happened(QUEUES, seconds, f"{seen.queues} of receive")

    def listen(self, event: dict[str, Any], seconds: float) -> None:
        """An event of the instance's network (network.py)."""
        if event["kind"] == "dhcp" and event["what"] == "request":
            self.happened(LEASE, seconds)
        elif event["kind"] == "metadata":
            self.happened(METADATA, seconds, event["what"])

    @property
    def reachable(self) -> bool:
        return self[PING].seconds is not None

    @property
    def complete(self) -> bool:
        return all(step.seconds is not None for step in self.steps)

    @property
    def stopped_at(self) -> Step | None:
        """The first step that has not happened; None where all have."""
        return next((step for step in self.steps if step.seconds is None), None)
