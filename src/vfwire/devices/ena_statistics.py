"""GET_STATS: what an ENA counts, as `ethtool -S` shows it in a guest.

Basic statistics count frames, drops and overruns; the others are EC2's: allowances (twice, in the older form and as
metrics that a driver asks for by bit) and ENA SRD, which no VF here uses. All are of the whole function: no driver asks
for one queue's. The metrics' control buffer is used whatever the flags say, since Linux's driver sets none.
"""

from collections.abc import Callable

import numpy as np

from vfwire.datapath.control_words import row_of
from vfwire.datapath.instance import CONNTRACK_MOST
from vfwire.datapath.state import CardState, Drop
from vfwire.devices.ena_options import EnaOptions
from vfwire.devices.ena_rings import Answer, Refused, guest_address
from vfwire.devices.guest_memory import GuestMemory
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as messages

_MINE = (0, 0xFFFF)  # as device_id: the header says 0xFFFF, Linux's driver leaves it 0
_RX_DROPS = (Drop.NO_RX_DESCRIPTOR, Drop.RX_DISABLED)
_INSTANCE_FIELDS = {
    admin.BW_IN_ALLOWANCE_EXCEEDED: "bw_in_exceeded",
    admin.BW_OUT_ALLOWANCE_EXCEEDED: "bw_out_exceeded",
    admin.PPS_ALLOWANCE_EXCEEDED: "pps_exceeded",
    admin.CONNTRACK_ALLOWANCE_EXCEEDED: "conntrack_exceeded",
}


class EnaStatistics:
    """The statistics of one function."""

    def __init__(self, state: CardState, function: int, memory: GuestMemory, options: EnaOptions) -> None:
        self._state = state
        self._function = function
        self._memory = memory
        self._record = row_of(state.functions, function)
        self._capabilities = options.capabilities()

    def get(self, entry: bytes, _has_buffer: bool) -> Answer:
        command = np.frombuffer(entry, messages.GET_STATS_CMD, 1)[0]
        kind = int(command["type"])
        capability, reader = _READERS.get(kind, (None, None))
        if reader is None or (capability is not None and capability not in self._capabilities):
            raise Refused(admin.UNSUPPORTED_OPCODE)
        if int(command["device_id"]) not in _MINE or int(command["queue_idx"]):
            raise Refused(admin.ILLEGAL_PARAMETER)
        return admin.SUCCESS, reader(self, command)

    def drops(self) -> tuple[int, int, int]:
        """(receive drops, transmit drops, receive overruns), of which the last is part of the first."""
        causes = self._state.drops[self._function]
        received = sum(int(causes[cause]) for cause in _RX_DROPS)
        return received, int(causes.sum()) - received, int(causes[Drop.NO_RX_DESCRIPTOR])

    def _basic(self, _command: np.void) -> bytes:
        rx_drops, tx_drops, overruns = self.drops()
        record = self._record
        return pack_pairs(
            *(record["tx_bytes"], record["tx_frames"], record["rx_bytes"], record["rx_frames"]),
            *(rx_drops, tx_drops, overruns),
        )

    def metrics(self) -> dict[int, int]:
        """Every customer metric by its number, of the instance that this function is part of.

        Without a limit nothing is counted, and as many connections are left as a limit can be: 0 left is an alarm.
        """
        row = int(self._record["instance"])
        found = dict.fromkeys(admin.METRIC_NAMES, 0)
        found[admin.LINKLOCAL_ALLOWANCE_EXCEEDED] = int(self._record["linklocal_exceeded"])
        found[admin.CONNTRACK_ALLOWANCE_AVAILABLE] = CONNTRACK_MOST
        if row >= 0:
            instance = self._state.instances[row]
            found |= {number: int(instance[field]) for number, field in _INSTANCE_FIELDS.items()}
            free = (int(instance["conntrack_most"]) or CONNTRACK_MOST) - int(instance["conntrack_count"])
            found[admin.CONNTRACK_ALLOWANCE_AVAILABLE] = max(free, 0)
        return found

    def _eni(self, _command: np.void) -> bytes:
        answer = np.zeros((), messages.ENI_STATS)
        for number, value in self.metrics().items():
            if admin.METRIC_NAMES[number] in (messages.ENI_STATS.names or ()):
                answer[admin.METRIC_NAMES[number]] = value
        return answer.tobytes()

    def _srd(self, _command: np.void) -> bytes:
        return np.zeros((), messages.SRD_INFO).tobytes()

    def _customer(self, command: np.void) -> bytes:
        """Without a control buffer the driver only asks which there are."""
        values = self.metrics()
        wanted = int(command["requested_metrics"])
        chosen = [values[number] for number in sorted(values) if wanted >> number & 1]
        where = command["control_buffer"]
        data = np.array(chosen, "<u8").tobytes()
        length = int(where["length"])
        if length and length < len(data):
            raise Refused(admin.MALFORMED_REQUEST)
        if length and data and not self._memory.write(guest_address(where["address"]), data):
            raise Refused(admin.ILLEGAL_PARAMETER)
        answer = np.zeros((), messages.CUSTOMER_METRICS)
        answer["reported_metrics"] = wanted & admin.CUSTOMER_METRICS_SUPPORT_MASK
        return answer.tobytes()


def pack_pairs(*values: int) -> bytes:
    """64-bit counters as the low and high dwords of BASIC_STATS and KEEP_ALIVE_EVENT: their order in memory."""
    return b"".join(int(value).to_bytes(8, "little") for value in values)


_READERS: dict[int, tuple[int | None, Callable[[EnaStatistics, np.void], bytes]]] = {
    admin.GET_STATS_TYPE_BASIC: (None, EnaStatistics._basic),
    admin.GET_STATS_TYPE_ENI: (admin.ENI_STATS, EnaStatistics._eni),
    admin.GET_STATS_TYPE_ENA_SRD: (admin.ENA_SRD_INFO, EnaStatistics._srd),
    admin.GET_STATS_TYPE_CUSTOMER_METRICS: (admin.CUSTOMER_METRICS, EnaStatistics._customer),
}
