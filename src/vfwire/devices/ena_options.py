"""What an ENA says it is and can: chosen when the card starts, so that a driver's other paths can be tried, too."""

import re
from dataclasses import dataclass, field

from vfwire.errors import UsageError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts.ena_registers import PCI_DEVICE_LLQ_VF, PCI_DEVICE_VF

DEVICES = {"ec20": PCI_DEVICE_VF, "ec21": PCI_DEVICE_LLQ_VF}
FEATURES = frozenset(
    {
        admin.DEVICE_ATTRIBUTES,
        admin.MAX_QUEUES_NUM,
        admin.HW_HINTS,
        admin.LLQ,
        admin.MAX_QUEUES_EXT,
        admin.RSS_HASH_FUNCTION,
        admin.STATELESS_OFFLOAD_CONFIG,
        admin.RSS_INDIRECTION_TABLE_CONFIG,
        admin.MTU,
        admin.RSS_HASH_INPUT,
        admin.INTERRUPT_MODERATION,
        admin.AENQ_CONFIG,
        admin.LINK_CONFIG,
        admin.HOST_ATTR_CONFIG,
        admin.PHC_CONFIG,
    }
)
GROUPS = frozenset(admin.EVENT_NAMES) - {admin.WARNING}
CAPABILITIES = frozenset(
    {
        admin.ENI_STATS,
        admin.ENA_SRD_INFO,
        admin.CUSTOMER_METRICS,
        admin.EXTENDED_RESET_REASONS,
        admin.CDESC_MBZ,
    }
)
CAPABILITY_NAMES = {
    admin.ENI_STATS: "ENI_STATS",
    admin.ENA_SRD_INFO: "ENA_SRD_INFO",
    admin.CUSTOMER_METRICS: "CUSTOMER_METRICS",
    admin.EXTENDED_RESET_REASONS: "EXTENDED_RESET_REASONS",
    admin.CDESC_MBZ: "CDESC_MBZ",
}
_NAMED = (
    (FEATURES, admin.FEATURE_NAMES),
    (GROUPS, admin.EVENT_NAMES),
    (CAPABILITIES, CAPABILITY_NAMES),
)
SENDABLE = {  # events that somebody may want to see by hand
    admin.EVENT_NAMES[group]: group
    for group in (
        admin.FATAL_ERROR,
        admin.NOTIFICATION,
        admin.REFRESH_CAPABILITIES,
        admin.CONF_NOTIFICATIONS,
        admin.DEVICE_REQUEST_RESET,
    )
}
PARTS = (  # what can fail until the driver resets the function
    "keep-alive",
    "admin",
    "traffic",
)
REMOVABLE = tuple(sorted(names[number] for numbers, names in _NAMED for number in numbers))


@dataclass(frozen=True, slots=True)
class EnaOptions:
    """without: names of features, capabilities and event groups (`REMOVABLE`) that the device shall not have.

    device: PCI device ID. version: of the interface; controller: of the controller, (major, minor, subminor).
    readless: registers are read by DMA; without, the PCI revision says that they are not. queues: pairs of each VF.
    burst: bytes that a low-latency queue takes between two doorbells, 0 for no limit.
    """

    device: int = PCI_DEVICE_VF
    version: tuple[int, int] = (0, 10)
    controller: tuple[int, int, int] = (0, 0, 1)
    readless: bool = True
    queues: int = 32
    burst: int = 0
    without: frozenset[str] = field(default_factory=frozenset)

    def features(self) -> frozenset[int]:
        return self._kept(FEATURES, admin.FEATURE_NAMES)

    def groups(self) -> frozenset[int]:
        return self._kept(GROUPS, admin.EVENT_NAMES)

    def capabilities(self) -> frozenset[int]:
        return self._kept(CAPABILITIES, CAPABILITY_NAMES)

    def _kept(self, numbers: frozenset[int], names: dict[int, str]) -> frozenset[int]:
        return frozenset(number for number in numbers if names[number] not in self.without)


def bits(numbers: frozenset[int]) -> int:
    """A bit mask, as the device's attributes have them."""
    return sum(1 << number for number in numbers)


def parse_version(text: str, parts: int) -> tuple[int, ...]:
    """ "0.10" or "0.0.1" as numbers of one byte each. Raises UsageError."""
    if re.fullmatch(rf"\d+(\.\d+){{{parts - 1}}}", text):
        numbers = tuple(int(part) for part in text.split("."))
        if max(numbers) <= 255:
            return numbers
    raise UsageError(
        f"{text!r} is no version", f"write {parts} numbers up to 255, as {'.'.join(['0'] * (parts - 1))}.1"
    )


def check_options(options: EnaOptions) -> None:
    """Raise UsageError for what no ENA can be."""
    unknown = sorted(options.without - set(REMOVABLE))
    if unknown:
        raise UsageError(f"an ENA has no {unknown[0]!r} to leave out", f"it has {', '.join(REMOVABLE)}")
    if not 1 <= options.queues <= 32:
        raise UsageError(f"an ENA has 1 to 32 queue pairs, not {options.queues}")
    if options.burst and not 256 <= options.burst <= 0xFFFF:
        raise UsageError(f"a burst is 256 to 65535 bytes, or 0 for no limit, not {options.burst}")
