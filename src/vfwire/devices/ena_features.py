"""GET_FEATURE and SET_FEATURE: what an ENA says of itself, and what its driver chooses.

One method for each feature and direction. A feature that the device does not have, or not in this direction, is
answered UNSUPPORTED_OPCODE. A control buffer's address points at the data itself, whatever flag says that there is one
(the drivers set the "indirect" flag and mean this).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vfwire.devices import ena_pages as pages
from vfwire.devices.ena_clock import Clock
from vfwire.devices.ena_events import EventQueue
from vfwire.devices.ena_host import host_info
from vfwire.devices.ena_options import EnaOptions, bits
from vfwire.devices.ena_rings import Answer, EnaRings, LlqChoice, Refused, guest_address
from vfwire.devices.ena_rss import EnaRss
from vfwire.devices.guest_memory import GuestMemory
from vfwire.devices.pf_port import PfPort
from vfwire.errors import UsageError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages

MAX_QUEUES_EXT_VERSION = 1
IMPLEMENTATION = 1
ADDRESS_BITS = 48
DELAY_NS = 1000  # one unit of interrupt moderation
LLQ_DEPTH = 1024
_WIDE_DEPTH = LLQ_DEPTH // 2
_DESCRIPTORS = {"tx": 18, "rx": 16}  # of one packet, with its meta descriptor
_HEADER = 96  # bytes that a low-latency queue takes by itself
_BUFFER_MAX = 4096  # bytes of a control buffer that is read or written
_MEGA = 1_000_000
_ENTRY_SIZES = {admin.LIST_ENTRY_SIZE_128B: 128, admin.LIST_ENTRY_SIZE_256B: 256}
_BEFORE_HEADER = (
    admin.LLQ_NUM_DESCS_BEFORE_HEADER_1,
    admin.LLQ_NUM_DESCS_BEFORE_HEADER_2,
    admin.LLQ_NUM_DESCS_BEFORE_HEADER_4,
    admin.LLQ_NUM_DESCS_BEFORE_HEADER_8,
)
_STRIDES = (admin.SINGLE_DESC_PER_ENTRY, admin.MULTIPLE_DESCS_PER_ENTRY)
_DESCRIPTOR = 16  # bytes
_TX_OFFLOADS = (
    admin.FEATURE_OFFLOAD_DESC_TX_L3_CSUM_IPV4_MASK
    | admin.FEATURE_OFFLOAD_DESC_TX_L4_IPV4_CSUM_PART_MASK
    | admin.FEATURE_OFFLOAD_DESC_TX_L4_IPV4_CSUM_FULL_MASK
    | admin.FEATURE_OFFLOAD_DESC_TX_L4_IPV6_CSUM_PART_MASK
    | admin.FEATURE_OFFLOAD_DESC_TX_L4_IPV6_CSUM_FULL_MASK
    | admin.FEATURE_OFFLOAD_DESC_TSO_IPV4_MASK
    | admin.FEATURE_OFFLOAD_DESC_TSO_IPV6_MASK
)
_RX_OFFLOADS = (
    admin.FEATURE_OFFLOAD_DESC_RX_L3_CSUM_IPV4_MASK
    | admin.FEATURE_OFFLOAD_DESC_RX_L4_IPV4_CSUM_MASK
    | admin.FEATURE_OFFLOAD_DESC_RX_L4_IPV6_CSUM_MASK
    | admin.FEATURE_OFFLOAD_DESC_RX_HASH_MASK
)


class EnaFeatures:
    """The features of one function. Call while its lock is held."""

    def __init__(
        self,
        options: EnaOptions,
        port: PfPort,
        memory: GuestMemory,
        rings: EnaRings,
        rss: EnaRss,
        events: EventQueue,
        clock: Clock,
    ) -> None:
        self.host: dict[str, Any] | None = None
        self.hints: dict[str, int] = {}
        self._options = options
        self._port = port
        self._memory = memory
        self._rings = rings
        self._rss = rss
        self._events = events
        self._clock = clock
        self._features = options.features()

    def get(self, entry: bytes, has_buffer: bool) -> Answer:
        command = np.frombuffer(entry, messages.FEATURE_CMD)[0]
        feature = int(command["feat_common"]["feature_id"])
        reader = _READERS.get(feature)
        if reader is None or feature not in self._features:
            raise Refused(admin.UNSUPPORTED_OPCODE)
        data = reader(self)
        fill = _BUFFERS.get(feature)
        if fill is not None and has_buffer:
            self._write_buffer(command, fill(self))
        return admin.SUCCESS, data

    def set(self, entry: bytes, has_buffer: bool) -> Answer:
        command = np.frombuffer(entry, messages.FEATURE_CMD)[0]
        feature = int(command["feat_common"]["feature_id"])
        writer = _WRITERS.get(feature)
        if writer is None or feature not in self._features:
            raise Refused(admin.UNSUPPORTED_OPCODE)
        writer(self, entry, self._read_buffer(command) if has_buffer else b"")
        return admin.SUCCESS, b""

    def _read_buffer(self, command: np.void) -> bytes:
        where = command["control_buffer"]
        size = int(where["length"])
        if size > _BUFFER_MAX:
            raise Refused(admin.MALFORMED_REQUEST)
        data = self._memory.read(guest_address(where["address"]), size) if size else b""
        if data is None:
            raise Refused(admin.ILLEGAL_PARAMETER)
        return data

    def _write_buffer(self, command: np.void, data: bytes) -> None:
        where = command["control_buffer"]
        if int(where["length"]) < len(data):
            raise Refused(admin.MALFORMED_REQUEST)
        if not self._memory.write(guest_address(where["address"]), data):
            raise Refused(admin.ILLEGAL_PARAMETER)

    # --- What the device is --------------------------------------------------------------------------------

    def _attributes(self) -> bytes:
        answer = np.zeros((), messages.DEVICE_ATTR)
        major, minor = self._options.version
        answer["impl_id"] = IMPLEMENTATION
        answer["device_version"] = major << 8 | minor
        answer["supported_features"] = bits(self._features)
        answer["capabilities"] = bits(self._options.capabilities())
        answer["phys_addr_width"] = answer["virt_addr_width"] = ADDRESS_BITS
        answer["mac_addr"] = np.frombuffer(self._port.mac, np.uint8)
        answer["max_mtu"] = self._port.facts.mtu
        return answer.tobytes()

    def _max_queues(self) -> bytes:
        answer = np.zeros((), messages.MAX_QUEUES)
        answer["max_sq_num"] = answer["max_cq_num"] = self._options.queues
        answer["max_sq_depth"] = answer["max_cq_depth"] = pages.MAX_DEPTH
        answer["max_legacy_llq_num"] = 0
        answer["max_header_size"] = _HEADER
        answer["max_packet_tx_descs"] = _DESCRIPTORS["tx"]
        answer["max_packet_rx_descs"] = _DESCRIPTORS["rx"]
        return answer.tobytes()

    def _max_queues_ext(self) -> bytes:
        answer = np.zeros((), messages.MAX_QUEUES_EXT)
        answer["version"] = MAX_QUEUES_EXT_VERSION
        for way in ("tx", "rx"):
            for queue in ("sq", "cq"):
                answer[f"max_{way}_{queue}_num"] = self._options.queues
                answer[f"max_{way}_{queue}_depth"] = pages.MAX_DEPTH
            answer[f"max_per_packet_{way}_descs"] = _DESCRIPTORS[way]
        answer["max_tx_header_size"] = _HEADER
        return answer.tobytes()

    def _offloads(self) -> bytes:
        answer = np.zeros((), messages.OFFLOAD)
        answer["tx"] = _TX_OFFLOADS
        answer["rx_supported"] = answer["rx_enabled"] = _RX_OFFLOADS
        return answer.tobytes()

    def set_hints(self, values: Mapping[str, int]) -> None:
        """Raises UsageError for a hint that there is none of, or a value that does not fit."""
        names = set(messages.HW_HINTS_DESC.names or ()) - {"reserved"}
        for name, value in values.items():
            if name not in names or not 0 <= value <= 0xFFFF:
                raise UsageError(f"{name}={value} is no hint", f"there are {', '.join(sorted(names))}")
        self.hints = dict(values)

    def hints_data(self) -> bytes:
        """What an operator has set of them; 0 leaves a value to the driver."""
        answer = np.zeros((), messages.HW_HINTS_DESC)
        for name, value in self.hints.items():
            answer[name] = value
        return answer.tobytes()

    def _link(self) -> bytes:
        answer = np.zeros((), messages.LINK_DESC)
        rate = self._port.facts.rate_bps or max(admin.LINK_SPEEDS.values())
        answer["speed"] = rate // _MEGA
        answer["supported"] = next((bit for bit, bps in admin.LINK_SPEEDS.items() if bps >= rate), 0)
        answer["flags"] = admin.GET_FEATURE_LINK_DESC_AUTONEG_MASK | admin.GET_FEATURE_LINK_DESC_DUPLEX_MASK
        return answer.tobytes()

    def _moderation(self) -> bytes:
        answer = np.zeros((), messages.INTR_MODER)
        answer["intr_delay_resolution"] = DELAY_NS // 1000
        return answer.tobytes()

    # --- What the driver chooses ---------------------------------------------------------------------------

    def _set_mtu(self, entry: bytes, _buffer: bytes) -> None:
        if not self._port.set_mtu(int(_data(entry, messages.MTU_DESC)["mtu"])):
            raise Refused(admin.ILLEGAL_PARAMETER)

    def _set_host(self, entry: bytes, _buffer: bytes) -> None:
        command = _data(entry, messages.HOST_ATTR)
        iova = guest_address(command["os_info_ba"])
        page = self._memory.read(iova, messages.HOST_INFO.itemsize) if iova else None
        if iova and page is None:
            raise Refused(admin.ILLEGAL_PARAMETER)
        self.host = None
        if page is not None:
            self.host = {**host_info(page), "debug_area_bytes": int(command["debug_area_size"])}

    def _events_config(self) -> bytes:
        answer = np.zeros((), messages.AENQ_DESC)
        answer["supported_groups"] = bits(self._options.groups())
        answer["enabled_groups"] = self._events.groups
        return answer.tobytes()

    def _set_events(self, entry: bytes, _buffer: bytes) -> None:
        groups = int(_data(entry, messages.AENQ_DESC)["enabled_groups"])
        if groups & ~bits(self._options.groups()):
            raise Refused(admin.ILLEGAL_PARAMETER)
        self._events.enable(groups, bool(self._port.record["link_up"]))

    def _llq(self) -> bytes:
        answer = np.zeros((), messages.LLQ_DESC)
        answer["max_llq_num"] = self._options.queues
        answer["max_llq_depth"] = LLQ_DEPTH
        answer["header_location_ctrl_supported"] = admin.INLINE_HEADER
        answer["entry_size_ctrl_supported"] = sum(_ENTRY_SIZES)
        answer["desc_num_before_header_supported"] = sum(_BEFORE_HEADER)
        answer["descriptors_stride_ctrl_supported"] = sum(_STRIDES)
        answer["feature_version"] = admin.LLQ_FEATURE_VERSION_1
        answer["entry_size_recommended"] = admin.LIST_ENTRY_SIZE_128B
        answer["max_wide_llq_depth"] = _WIDE_DEPTH
        if self._options.burst:
            answer["accel_flags"] = 1 << admin.LIMIT_TX_BURST
            answer["max_tx_burst_size"] = self._options.burst
        return answer.tobytes()

    def _set_llq(self, entry: bytes, _buffer: bytes) -> None:
        """Queues that exist keep what was chosen when they were created."""
        chosen = _data(entry, messages.LLQ_DESC)
        entry_bytes = _ENTRY_SIZES.get(int(chosen["entry_size_ctrl_enabled"]), 0)
        before = int(chosen["desc_num_before_header_enabled"])
        stride = int(chosen["descriptors_stride_ctrl_enabled"])
        inline = int(chosen["header_location_ctrl_enabled"]) == admin.INLINE_HEADER
        if not inline or before not in _BEFORE_HEADER or stride not in _STRIDES:
            raise Refused(admin.ILLEGAL_PARAMETER)
        if before * _DESCRIPTOR >= entry_bytes:
            raise Refused(admin.ILLEGAL_PARAMETER)
        many = stride == admin.MULTIPLE_DESCS_PER_ENTRY
        self._rings.llq = LlqChoice(entry_bytes, before, entry_bytes // _DESCRIPTOR if many else 1)

    def _phc(self) -> bytes:
        return self._clock.describe()

    def _set_phc(self, entry: bytes, _buffer: bytes) -> None:
        chosen = _data(entry, messages.PHC_DESC)
        if int(chosen["output_length"]) < messages.PHC_RESPONSE.itemsize:
            raise Refused(admin.ILLEGAL_PARAMETER)
        self._clock.output = guest_address(chosen["output_address"])

    def _set_hash_function(self, entry: bytes, buffer: bytes) -> None:
        self._rss.set_function(_data(entry, messages.HASH_FUNCTION), buffer)

    def _set_hash_fields(self, _entry: bytes, buffer: bytes) -> None:
        self._rss.set_fields(buffer)

    def _set_table(self, entry: bytes, buffer: bytes) -> None:
        self._rss.set_table(_data(entry, messages.IND_TABLE), buffer)


def _data(entry: bytes, kind: np.dtype[np.void]) -> np.void:
    """The feature's own part of a command."""
    return np.frombuffer(entry, kind, 1, messages.FEATURE_DATA)[0]  # type: ignore[no-any-return]


_READERS: dict[int, Callable[[EnaFeatures], bytes]] = {
    admin.DEVICE_ATTRIBUTES: EnaFeatures._attributes,
    admin.MAX_QUEUES_NUM: EnaFeatures._max_queues,
    admin.HW_HINTS: EnaFeatures.hints_data,
    admin.LLQ: EnaFeatures._llq,
    admin.MAX_QUEUES_EXT: EnaFeatures._max_queues_ext,
    admin.RSS_HASH_FUNCTION: lambda self: self._rss.function(),
    admin.STATELESS_OFFLOAD_CONFIG: EnaFeatures._offloads,
    admin.RSS_INDIRECTION_TABLE_CONFIG: lambda self: self._rss.table(),
    admin.RSS_HASH_INPUT: lambda self: self._rss.input(),
    admin.INTERRUPT_MODERATION: EnaFeatures._moderation,
    admin.AENQ_CONFIG: EnaFeatures._events_config,
    admin.LINK_CONFIG: EnaFeatures._link,
    admin.PHC_CONFIG: EnaFeatures._phc,
}
_BUFFERS: dict[int, Callable[[EnaFeatures], bytes]] = {
    admin.RSS_HASH_FUNCTION: lambda self: self._rss.key(),
    admin.RSS_HASH_INPUT: lambda self: self._rss.fields(),
    admin.RSS_INDIRECTION_TABLE_CONFIG: lambda self: self._rss.entries(),
}
_WRITERS: dict[int, Callable[[EnaFeatures, bytes, bytes], None]] = {
    admin.LLQ: EnaFeatures._set_llq,
    admin.RSS_HASH_FUNCTION: EnaFeatures._set_hash_function,
    admin.RSS_INDIRECTION_TABLE_CONFIG: EnaFeatures._set_table,
    admin.MTU: EnaFeatures._set_mtu,
    admin.RSS_HASH_INPUT: EnaFeatures._set_hash_fields,
    admin.AENQ_CONFIG: EnaFeatures._set_events,
    admin.HOST_ATTR_CONFIG: EnaFeatures._set_host,
    admin.PHC_CONFIG: EnaFeatures._set_phc,
}
