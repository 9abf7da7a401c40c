"""What an ENA counts itself: traffic, and what an instance's allowances held up, by `ethtool -S` names."""

from typing import Any

import numpy as np

from vfwire.drivers.ena_admin import Admin
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg

_BASIC = ("tx_bytes", "tx_pkts", "rx_bytes", "rx_pkts", "rx_drops", "tx_drops", "rx_overruns")


def device_statistics(control: Admin, capabilities: int) -> dict[str, int]:
    """`hw_` counters of the device, and the allowance counters that its capabilities offer."""
    answer = control.command(
        admin.GET_STATS, _ask(admin.GET_STATS_TYPE_BASIC, admin.ETH_TRAFFIC), what="its statistics"
    )
    told = np.frombuffer(answer[: msg.BASIC_STATS.itemsize], msg.BASIC_STATS)[0]
    found = {f"hw_{name}": int(told[f"{name}_low"]) | int(told[f"{name}_high"]) << 32 for name in _BASIC}
    if capabilities >> admin.CUSTOMER_METRICS & 1:
        return found | _metrics(control)
    if capabilities >> admin.ENI_STATS & 1:
        return found | _eni(control)
    return found


def _ask(kind: int, scope: int = 0, metrics: int = 0) -> Any:
    entry = np.zeros((), msg.GET_STATS_CMD)
    entry["type"], entry["scope"], entry["requested_metrics"] = kind, scope, metrics
    return entry


def _eni(control: Admin) -> dict[str, int]:
    answer = control.command(admin.GET_STATS, _ask(admin.GET_STATS_TYPE_ENI), what="its allowance statistics")
    told = np.frombuffer(answer[: msg.ENI_STATS.itemsize], msg.ENI_STATS)[0]
    return {name: int(told[name]) for name in msg.ENI_STATS.names or ()}


def _metrics(control: Admin) -> dict[str, int]:
    """One 64-bit word in the control buffer for each metric that was asked for, in the order of their bits."""
    entry = _ask(admin.GET_STATS_TYPE_CUSTOMER_METRICS, metrics=admin.CUSTOMER_METRICS_SUPPORT_MASK)
    wanted = len(admin.METRIC_NAMES)
    answer = control.command(admin.GET_STATS, entry, what="its metrics", buffer=8 * wanted)
    reported = int(np.frombuffer(answer[:8], "<u8")[0])
    values = control.view("buffer")[: 8 * wanted].view("<u8").tolist()
    names = [name for bit, name in sorted(admin.METRIC_NAMES.items()) if reported >> bit & 1]
    return dict(zip(names, values, strict=False))  # one value for each that was reported
